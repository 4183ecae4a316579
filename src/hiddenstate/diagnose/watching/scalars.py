"""What a watch writes down while a module trains: scalars, as TensorBoard takes them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from hiddenstate.diagnose.tracing.record import LayerTrace
from hiddenstate.diagnose.watching.gate_rows import gate_statistics
from hiddenstate.diagnose.watching.training import Rows, Window

OF_WINDOW = ("loss", "norm", "largest_norm", "clipped", "learning_rate", "validation")


class Writer(Protocol):
    """What takes scalars, as torch.utils.tensorboard.SummaryWriter does."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> Any:
        """Take one number of one step."""


def write(
    writer: Writer, window: Window, rows: Mapping[str, Rows], layers: Iterable[LayerTrace]
) -> None:
    """Write the numbers of a window that are known, at its last step.

    Tags: watch/ of the window; update/WEIGHT; rows_read/EMBEDDING, a share; gates/LAYER/GATE/ with
    mean, saturated and moves, see `gate_statistics`.
    """
    for tag, value in _scalars(window, rows, layers):
        if math.isfinite(value):
            writer.add_scalar(tag, value, window.last)


def _scalars(
    window: Window, rows: Mapping[str, Rows], layers: Iterable[LayerTrace]
) -> Iterator[tuple[str, float]]:
    for name in OF_WINDOW:
        yield f"watch/{name}", getattr(window, name)
    if window.signal > 0:
        yield "watch/noise_scale", window.noise / window.signal
    for name, update in window.updates.items():
        yield f"update/{name}", update
    for name, of_table in rows.items():
        yield f"rows_read/{name}", of_table.read / max(of_table.rows, 1)
    for layer in layers:
        for name, value in gate_statistics(layer).items():
            yield f"gates/{layer.name}/{name}", value
