"""A model fitted to sequences with labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact
from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.labels.task import EVERY_STEP, NUMERIC, in_own_units, levels_of
from hiddenstate.job.model import Model, Remark, silent
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Channels, Symbols, Tokens
from hiddenstate.tasks.label_floors import LabelFloors
from hiddenstate.tasks.regression_floors import RegressionFloors

if TYPE_CHECKING:
    import polars

    from hiddenstate.data.labelled import Labelled
    from hiddenstate.job.labels.encode import Schema

SHOWN = 5


class Told(NamedTuple):
    """What the model says after a step: the most probable label, and all probabilities [V]."""

    label: str
    probability: float
    probabilities: NDArray[np.float64]


class ToldNumber(NamedTuple):
    """What the model says after a step: a number, and its quantiles by level where it has them."""

    number: float
    quantiles: dict[float, float]


class Fitted(Model):
    """Says a label or a number of whole sequences or of every step: texts, tokens, or series.

    model = hiddenstate.load("runs/reviews")
    model.predict("new_reviews.csv")
    """

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Wrap an artifact; see `job.model.Model`."""
        super().__init__(artifact, weights)
        self.runtime = Runtime(artifact, weights)
        self._head = self.runtime.spec.heads[0]
        self._schema: Schema = _schema(self.runtime.spec.schema)
        self._reading = dict(artifact.metrics["reading"])
        arrays = {n.removeprefix("0/"): array for n, array in artifact.floor_arrays.items()}
        kind = RegressionFloors if self._head.name in NUMERIC else LabelFloors
        self._floors = kind.read(artifact.floors[self._head.name], arrays)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the model knows; none where it says numbers."""
        return self._head.classes

    def read(
        self, source: Any, observer: Remark = silent, *, answers: bool = True, **reading: Any
    ) -> Labelled:
        """Read a source as the fit did; tell repairs, unknown words and unknown labels.

        reading: fields of `data.labelled.LabelledOptions` that differ from the fit's
        """
        from hiddenstate.data.labelled import Labelled
        from hiddenstate.data.read_labelled import read_labelled
        from hiddenstate.job.labels.encode import unknowns

        if isinstance(source, Labelled):
            found = source
        else:
            settings = {**self._reading, **_given(reading)}
            name = self._head.name
            found, report = read_labelled(
                source,
                every_step=name in EVERY_STEP,
                numeric=name in NUMERIC,
                answers=answers,
                **settings,
            )
            for repair in report.repairs:
                observer(repair.sentence)
        strange = unknowns(found, self._schema)
        if strange:
            observer(
                f"{sum(strange.values())} words or symbols were never seen in training: "
                f"{_first(strange)}."
            )
        known = {None, *self.labels}
        names = [name for name in found.labels.names() if name not in known]
        if names and answers and self.labels:
            observer(
                f"{len(names)} labels are not known from training and count as errors: "
                f"{_first(dict.fromkeys(names))}."
            )
        return found

    def evaluate(
        self,
        source: Any,
        *,
        bootstrap: int = 1000,
        seed: int = 0,
        shuffle: bool = False,
        observer: Remark = silent,
        **reading: Any,
    ) -> dict[str, Any]:
        """Score the model on labelled sequences, beside its floors."""
        from hiddenstate.job.labels.evaluate import evaluate_labelled
        from hiddenstate.job.labels.numbers import evaluate_numbers

        if shuffle:
            raise UsageError(
                "--shuffle was asked for.",
                "It shuffles the past events of event logs; this model reads labelled sequences.",
                "Leave it out.",
            )
        found = self.read(source, observer, **reading)
        runtime, schema, floors = self.runtime, self._schema, self._floors
        draws = {"bootstrap": bootstrap, "seed": seed}
        if isinstance(floors, RegressionFloors):
            return evaluate_numbers(runtime, schema, floors, found, **draws)
        return evaluate_labelled(runtime, schema, floors, found, **draws)

    def predict(
        self,
        source: Any,
        *,
        every_step: bool = False,
        observer: Remark = silent,
        **reading: Any,
    ) -> polars.DataFrame:
        """Label sequences: a row for each sequence or, of a model that labels steps, each step.

        Columns: id (and step, from 1), token where there are tokens; label, probability, and a
        column `p(label)` for each label; or number, and a column `number LEVEL` for each quantile.
        """
        import polars

        from hiddenstate.job.labels.encode import encode
        from hiddenstate.job.labels.run import decoded, places

        of_steps = self._head.name in EVERY_STEP
        if every_step and not of_steps:
            raise UsageError(
                "--every-step was asked for, and this model labels whole sequences.",
                "A model that labels every step is fitted with --task label or regress_steps.",
                "Leave --every-step out.",
            )
        found = self.read(source, observer, answers=False, **reading)
        encoded = encode(found, self._schema)
        said = decoded(self.runtime, encoded, every_step=of_steps)
        case, place = places(encoded, every_step=of_steps)
        columns: dict[str, Any] = {"id": found.ids[case].astype(str)}
        if of_steps:
            columns["step"] = place
        if of_steps and encoded.pieces is not None:
            columns["token"] = encoded.pieces.astype(str)
        if not self.labels:
            return polars.DataFrame(columns | self._numbers(said))
        columns["label"] = np.array(self.labels)[said.argmax(axis=1)]
        columns["probability"] = np.exp(said.max(axis=1))
        for index, name in enumerate(self.labels):
            columns[f"p({name})"] = np.exp(said[:, index])
        return polars.DataFrame(columns)

    def follow(self, steps: Iterable[Any]) -> Iterator[Told | ToldNumber]:
        """Yield what the model says after every step of one sequence, as the steps come.

        steps: tokens, or frames (a number for each channel, NaN where missing); of a model of
               characters, characters

        Only a model that reads in one direction can do it, with --set model.bidirectional=false
        and, of whole sequences, --set model.pool=last; SpecError otherwise. What it says after the
        last step is what `predict` says of the whole sequence.
        """
        state = self.runtime.initial_state(1)
        before: list[Any] = []
        for step in steps:
            codes, numbers = self._encode_step(step, before)
            outputs, state = self.runtime.step_many(codes, numbers, state)
            (said,) = self.runtime.decode(outputs)
            if not self.labels:
                number, *quantiles = (float(each[0]) for each in self._numbers(said).values())
                yield ToldNumber(number, dict(zip(levels_of(self._head), quantiles, strict=True)))
                continue
            log_p = said[0]
            best = int(log_p.argmax())
            yield Told(self.labels[best], float(np.exp(log_p[best])), np.exp(log_p))

    def _numbers(self, said: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Return numbers [M], and their quantiles, by column from what was decoded."""
        told = in_own_units(self._head, said)
        columns = {"number": told.point}
        if told.quantiles is not None:
            for place, level in enumerate(levels_of(self._head)):
                columns[f"number {level:g}"] = told.quantiles[:, place]
        return columns

    def _encode_step(self, step: Any, before: list[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Encode a step [1, K] and [1, F]; `before` holds what is needed of those before it."""
        schema = self._schema
        none = np.zeros((1, 0), dtype=np.float32)
        if isinstance(schema, Channels):
            frame = np.asarray(step, dtype=np.float64)
            if frame.shape != (len(schema.names),):
                raise DataError(
                    f"A frame of shape {list(frame.shape)} came.",
                    f"This model reads {len(schema.names)} channels: {', '.join(schema.names)}.",
                    "Give a number for each, NaN where one is missing.",
                )
            # A gap is filled with the last value known, so that one must be remembered.
            last = before[0] if before else frame
            before[:] = [np.where(np.isfinite(frame), frame, last)]
            both = np.stack([last, frame])
            return np.zeros((1, 0), dtype=np.int64), schema.encode(both, None, np.array([0, 2]))[1:]
        if isinstance(schema, Symbols):
            codes = schema.encode(str(step))
            _require_one(step, len(codes), schema.unit)
            return codes[:, None].astype(np.int64), none
        if schema.unit == "characters":
            _require_one(step, len(str(step)), schema.unit)
        pair = [*before, str(step)]
        before[:] = [str(step)]
        return schema.encode(pair, np.array([0, len(pair)]))[-1:].astype(np.int64), none


def _schema(schema: object) -> Schema:
    if not isinstance(schema, Channels | Symbols | Tokens):
        raise TypeError(f"a {type(schema).__name__} stands where inputs of sequences should")
    return schema


def _require_one(step: object, count: int, unit: str) -> None:
    if count != 1:
        raise DataError(
            f"The step {step!r} is {count} {unit}.",
            f"This model reads one of the {unit} at a step.",
            "Give one after the other.",
        )


def _first(names: Iterable[str]) -> str:
    known = list(names)
    return ", ".join(map(repr, known[:SHOWN])) + ", ..." * (len(known) > SHOWN)


def _given(reading: dict[str, Any]) -> dict[str, Any]:
    """Return the reading settings that were given, without those of event logs alone."""
    of_logs = ("case", "activity", "timestamp")
    wrong = [name for name in of_logs if reading.get(name) is not None]
    if wrong:
        raise UsageError(
            f"--{' and --'.join(wrong)} was given, and this model reads labelled sequences.",
            "These flags name columns of event logs.",
            "Leave them out; the columns are those of the fit.",
        )
    return {name: value for name, value in reading.items() if value is not None}
