"""What every fitted model can do, and how one is loaded from its run folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hiddenstate import artifact as artifacts
from hiddenstate.artifact import Artifact
from hiddenstate.errors import ArtifactError, UsageError, nearest
from hiddenstate.job.families import family_of
from hiddenstate.kernels.native import Storage

if TYPE_CHECKING:
    import polars

Remark = Callable[[str], None]
Part = TypeVar("Part")


def silent(_: object) -> None:
    """Observe nothing."""


def part(value: object, kind: type[Part]) -> Part:
    """Return a part of an artifact that has to be of this kind; TypeError where it is not."""
    if not isinstance(value, kind):
        raise TypeError(f"a {type(value).__name__} stands where a {kind.__name__} should")
    return value


def refuse_options(options: Mapping[str, Any], known: Iterable[str], task: str) -> None:
    """Raise UsageError where an option is set that a task does not have."""
    allowed = tuple(known)
    for name, value in options.items():
        if name not in allowed and value not in (None, False):
            flag = name.replace("_", "-")
            raise UsageError(
                f"--{flag} was given, and the model's task is {task}.",
                "That option is for models of another kind of data.",
                f"Leave --{flag} out.{nearest(name, allowed)}",
            )


class Model(ABC):
    """A fitted model. What it reads and answers depends on its task:

        model = hiddenstate.load("runs/tickets")
        model.predict("open_cases.csv")
        model.evaluate("held_back.csv")

    It runs on NumPy and the compiled kernels; torch is not loaded.
    """

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Wrap an artifact; `weights` is how its recurrent weights are held, as in `runtime`."""
        self.artifact = artifact
        self.weights = weights

    @property
    def interrupted(self) -> bool:
        """Whether the fit was stopped by Ctrl-C."""
        return bool(self.artifact.metrics["training"]["interrupted"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Scores on the held-back part of the fit, beside their floors."""
        return self.artifact.metrics

    @abstractmethod
    def evaluate(
        self,
        source: Any,
        *,
        bootstrap: int = 1000,
        seed: int = 0,
        observer: Remark = silent,
        **options: Any,
    ) -> dict[str, Any]:
        """Score the model on a source, beside its floors; `options` are those of its family."""

    @abstractmethod
    def predict(
        self, source: Any, *, observer: Remark = silent, **options: Any
    ) -> polars.DataFrame:
        """Return a table with what the model says of a source."""

    def save(self, folder: str | Path) -> None:
        """Write the artifact into a folder."""
        artifacts.save(self.artifact, Path(folder))


def load(folder: str | Path, weights: Storage = "float32") -> Any:
    """Load a run folder; ArtifactError where it is foreign, unfinished or damaged.

    Returns the `Model` of the task's family, with its own methods.

    weights: how the recurrent weights are held: float32, or, with the compiled kernels, bfloat16
             or int8 (half and a quarter of the memory; KernelRefusal where they cannot)
    """
    artifact = artifacts.load(Path(folder))
    try:
        family = family_of(artifact.spec.task_names)
    except UsageError:
        raise ArtifactError(
            f"{folder} holds a model of {', '.join(artifact.spec.task_names)}, which is no task.",
            "A model that was fitted here was expected; a converted one knows no data of its own.",
            "Run it on arrays: hiddenstate.runtime.Model(hiddenstate.artifact.load(folder)).",
        ) from None
    try:
        return family.model(artifact, weights)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise ArtifactError(
            f"{folder}: floors.json, floors.safetensors or metrics.json is not whole "
            f"({type(problem).__name__}: {problem}).",
            "They hold the floors of every task and how the source was read.",
            "Restore the folder from a copy, or fit the model again.",
        ) from None
