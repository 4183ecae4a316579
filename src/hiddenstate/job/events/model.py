"""A model fitted to event logs, as the command line and Python use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hiddenstate.artifact import Artifact
from hiddenstate.job.events.evaluate import METRICS, Ceiling, evaluate_log
from hiddenstate.job.events.shuffle import shuffle_ablation
from hiddenstate.job.events.suffix import Search, evaluate_rest, rest_of_cases
from hiddenstate.job.model import Model, Remark, part, silent
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import EventLog, Schema
from hiddenstate.tasks import floors_from
from hiddenstate.tasks import from_json as task_from_json

if TYPE_CHECKING:
    import polars


class Fitted(Model):
    """Predicts at every step of event histories: from files, frames or event logs."""

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Wrap an artifact; `weights` is how its recurrent weights are held, as in `runtime`."""
        super().__init__(artifact, weights)
        self.runtime = Runtime(artifact, weights)
        self._schema = part(self.runtime.spec.schema, Schema)
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
            for index, head in enumerate(self.runtime.spec.heads)
        }

    def read(
        self, source: Any, observer: Remark = silent, *, answers: bool = True, **reading: Any
    ) -> EventLog:
        """Read a source as the fit did; tell repairs and unknown labels.

        answers: whether the columns with the outcomes must be there, as they must for scores
        reading: fields of `data.Options` that differ from the fit's, such as case="ticket"
        """
        schema = self._schema
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
        from hiddenstate.job.events.tables import prediction_table

        log = self.read(source, observer, answers=False, **reading)
        return prediction_table(self.runtime, log, every_step=every_step)

    def rest(
        self,
        source: Any,
        *,
        beam: int = 1,
        length_penalty: float = 1.0,
        observer: Remark = silent,
        **reading: Any,
    ) -> polars.DataFrame:
        """Return the activities until the end of every open case; a row for each, with their count.

        Raises UsageError where the model reads more than activities (`suffix.refusals`).
        """
        import polars

        log = self.read(source, observer, answers=False, **reading)
        found = rest_of_cases(self.runtime, log, Search(beam, length_penalty))
        return polars.DataFrame(
            {
                "case": [str(name) for name in log.case_ids],
                "events": log.lengths,
                "left": [len(each) for each in found],
                "rest": [" > ".join(each) for each in found],
            }
        )

    def evaluate_rest(
        self,
        source: Any,
        *,
        beam: int = 1,
        length_penalty: float = 1.0,
        bootstrap: int = 1000,
        seed: int = 0,
        observer: Remark = silent,
        **reading: Any,
    ) -> dict[str, Any]:
        """Score `rest` after every event but the last of finished cases, by edit similarity."""
        log = self.read(source, observer, **reading)
        floors: Any = self._floors.get("next_event")
        search = Search(beam, length_penalty)
        return dict(
            evaluate_rest(self.runtime, floors, log, search, bootstrap=bootstrap, seed=seed)
        )

    def _answers(self) -> tuple[str, ...]:
        """Columns that hold the answer of a task."""
        heads = (task_from_json(head.task) for head in self.runtime.spec.heads)
        return tuple(column for task in heads for column in task.forbidden)
