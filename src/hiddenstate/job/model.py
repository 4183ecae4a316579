"""A fitted model, as the command line and Python use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiddenstate import artifact as artifacts
from hiddenstate.artifact import Artifact
from hiddenstate.errors import ArtifactError
from hiddenstate.job.evaluate import METRICS, Ceiling, evaluate_log
from hiddenstate.job.shuffle import shuffle_ablation
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import EventLog
from hiddenstate.tasks import floors_from
from hiddenstate.tasks import from_json as task_from_json

if TYPE_CHECKING:
    import polars

Remark = Callable[[str], None]


def silent(_: object) -> None:
    """Observe nothing."""


class Model:
    """A fitted model that predicts and is scored on files, frames or event logs.

        model = hiddenstate.load("runs/tickets")
        model.predict("open_cases.csv")
        model.evaluate("held_back.csv")

    It runs on NumPy; torch is not loaded.
    """

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Wrap an artifact; `weights` is how its recurrent weights are held, as in `runtime`."""
        self.artifact = artifact
        self.runtime = Runtime(artifact, weights)
        self._reading = dict(artifact.metrics["reading"])
        self._floors = {
            head.name: floors_from(
                artifact.floors[head.name],
                {
                    name.removeprefix(f"{index}/"): array
                    for name, array in artifact.floor_arrays.items()
                    if name.startswith(f"{index}/")
                },
            )
            for index, head in enumerate(artifact.spec.heads)
        }

    @property
    def interrupted(self) -> bool:
        """Whether the fit was stopped by Ctrl-C."""
        return bool(self.artifact.metrics["training"]["interrupted"])

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Scores on the held-back cases of the fit, beside their floors."""
        return self.artifact.metrics

    def read(
        self, source: Any, observer: Remark = silent, *, answers: bool = True, **reading: Any
    ) -> EventLog:
        """Read a source as the fit did; tell repairs and unknown labels.

        answers: whether the columns with the outcomes must be there, as they must for scores
        reading: fields of `data.Options` that differ from the fit's, such as case="ticket"
        """
        schema = self.artifact.spec.schema
        if isinstance(source, EventLog):
            log = source
        else:
            from hiddenstate import data

            inputs = [*list(schema.vocabularies)[1:], *schema.scalers]
            wanted = dict.fromkeys((*inputs, *(self._answers() if answers else ())))
            settings = {
                "case": schema.case,
                "activity": schema.activity,
                "timestamp": schema.time,
                "attributes": list(wanted),
                "categorical": [name for name in wanted if name not in schema.scalers],
                "numeric": list(schema.scalers),
                "labels": {name: v.symbols for name, v in schema.vocabularies.items()},
                **self._reading,
            }
            changed = {name: value for name, value in reading.items() if value is not None}
            log, report = data.read(source, **{**settings, **changed})
            for repair in report.repairs:
                observer(repair.sentence)
        for column, labels in schema.unknowns(log).items():
            shown = ", ".join(f"{name!r} ({count})" for name, count in list(labels.items())[:5])
            observer(
                f"{sum(labels.values())} events have a value of {column} that the model never saw "
                f"and takes as unknown: {shown}{', ...' if len(labels) > 5 else ''}"
            )
        return log

    def evaluate(
        self,
        source: Any,
        *,
        bootstrap: int = 1000,
        seed: int = 0,
        ceiling: Ceiling | None = None,
        shuffle: bool = False,
        observer: Remark = silent,
        **reading: Any,
    ) -> dict[str, Any]:
        """Score the model on finished cases; see `evaluate_log` for the result, `read` for more.

        shuffle: also measure how much the order of the past matters
        """
        log = self.read(source, observer, **reading)
        result = evaluate_log(
            self.runtime, self._floors, log, bootstrap=bootstrap, seed=seed, ceiling=ceiling
        )
        if shuffle:
            metrics = METRICS["number" if "mae_days" in result else "classes"]
            result["shuffle"] = shuffle_ablation(self.runtime, log, metrics, bootstrap, seed)
        return result

    def predict(
        self,
        source: Any,
        *,
        every_step: bool = False,
        observer: Remark = silent,
        **reading: Any,
    ) -> polars.DataFrame:
        """Predict after the last event of every case (or after every event); a row for each."""
        from hiddenstate.job.tables import prediction_table

        log = self.read(source, observer, answers=False, **reading)
        return prediction_table(self.runtime, log, every_step=every_step)

    def _answers(self) -> tuple[str, ...]:
        """Columns that hold the answer of a task."""
        heads = (task_from_json(head.task) for head in self.artifact.spec.heads)
        return tuple(column for task in heads for column in task.forbidden)

    def save(self, folder: str | Path) -> None:
        """Write the artifact into a folder."""
        artifacts.save(self.artifact, Path(folder))


def load(folder: str | Path, weights: Storage = "float32") -> Model:
    """Load a run folder; ArtifactError where it is foreign, unfinished or damaged.

    weights: how the recurrent weights are held: float32, or, with the compiled kernels, bfloat16
             or int8 (half and a quarter of the memory; KernelRefusal where they cannot)
    """
    artifact = artifacts.load(Path(folder))
    try:
        return Model(artifact, weights)
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise ArtifactError(
            f"{folder}: floors.json, floors.safetensors or metrics.json is not whole "
            f"({type(problem).__name__}: {problem}).",
            "They hold the floors of every task and how the log was read.",
            "Restore the folder from a copy, or fit the model again.",
        ) from None
