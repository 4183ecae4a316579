"""Those who watch a fit: the caller, the history file, TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hiddenstate.errors import UsageError
from hiddenstate.job.folder import RunFolder
from hiddenstate.models import Trainable
from hiddenstate.train import Progress, Recipe

Tell = Callable[[Progress], None]

SCALARS = (
    "train_loss",
    "validation_loss",
    "learning_rate",
    "gradient_norm",
    "largest_gradient_norm",
    "clipped",
    "events_per_s",
)


@contextmanager
def observers(
    recipe: Recipe, folder: RunFolder | None, observer: Tell, *, leads: bool = True
) -> Iterator[Tell]:
    """Give one function that tells everybody; TensorBoard's file is closed at the end.

    leads: whether this process tells anything; of several that train together one does
    """
    if not leads:
        yield lambda _: None
        return
    board = _tensorboard(folder) if recipe.train.tensorboard else None

    def tell(progress: Progress) -> None:
        observer(progress)
        if progress.epoch_ended and folder is not None:
            folder.note_epoch(progress.to_json())
        if progress.epoch_ended and board is not None:
            for name in SCALARS:
                if (value := getattr(progress, name)) is not None:
                    board.add_scalar(f"{progress.phase}/{name}", value, progress.epoch)

    try:
        yield tell
    finally:
        if board is not None:
            board.close()


def begin(observer: Any, model: Trainable) -> None:
    """Hand the model, before its first step, to an observer that asks for it by `begins(model)`."""
    begins = getattr(observer, "begins", None)
    if begins is not None:
        begins(model)


def _tensorboard(folder: RunFolder | None) -> Any:
    if folder is None:
        raise UsageError(
            "TensorBoard scalars were asked for without a run folder.",
            "They are written into it.",
            "Give out=, or leave tensorboard off.",
        )
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "TensorBoard is not installed.",
            "train.tensorboard = true writes its log.",
            "Install it: pip install 'hiddenstate[tensorboard]', or leave the option off.",
        ) from None
    return SummaryWriter(str(folder.path / "tensorboard"))
