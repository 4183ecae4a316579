"""Which earlier events a prediction rests on: by gradient, and by leaving each of them out.

    gradient x input   sum over features of x_t * d prediction / d x_t: what the event adds, as far
                       as the model is linear there (of tokens: their embeddings)
    left out           prediction with the event - prediction without it, on the model as it is

The first costs one pass backwards and misses what is saturated: a shut gate has no gradient. The
second costs a pass for each event, and the other events move up a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiddenstate.charts import Picture
from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.measures.changed_events import ROWS, exchanged, without
from hiddenstate.diagnose.measures.input_gradients import input_gradients
from hiddenstate.diagnose.subject.subject import Subject, flat
from hiddenstate.errors import ShapeError

Floats = NDArray[np.float64]

DRAWS = 4
"""Other events that one is replaced by in turn."""
ROUNDING = 1e-6
"""Changes up to this share of a prediction are float32's, and no event's."""


@dataclass(frozen=True)
class Influence:
    """What each of the T events of one row adds to one prediction.

    row, step:  of the prediction; step None: the row's one prediction
    place:      of the number that was asked for among those predicted, as a class
    answer:     what it is called, or ""
    prediction: its value
    logits:     it is a log probability
    gradient:   [T] gradient x input, None where no gradient reaches the events
    norm:       [T] length of the gradient with respect to the event's features or embedding
    left_out:   [T] change by leaving the event out; NaN for those too long ago to be tried
    how:        removed: the later events move up; replaced: mean over others in its place
    events:     names, or ()
    """

    row: int
    step: int | None
    place: int
    answer: str
    prediction: float
    logits: bool
    gradient: Floats | None
    norm: Floats | None
    left_out: Floats
    how: Literal["removed", "replaced"]
    events: tuple[str, ...] = ()

    @property
    def past(self) -> float:
        """The largest change by leaving out an event before the last one that was read."""
        last = len(self.left_out) - 1 if self.step is None else self.step
        return float(np.nan_to_num(np.abs(self.left_out[:last])).max(initial=0.0))

    def words(self) -> str:
        """Return in a sentence which events count most."""
        sizes = np.nan_to_num(np.abs(self.left_out))
        least = ROUNDING * (1 + abs(self.prediction))
        most = [int(t) for t in np.argsort(-sizes, kind="stable")[:3] if sizes[t] > least]
        at = "" if self.step is None else f" after step {self.step}"
        said = f"The prediction {f'{self.answer!r} ' if self.answer else ''}for row {self.row}{at}"
        if not most:
            return f"{said} rests on no event."
        told = ", ".join(f"{self._told(t)} ({self.left_out[t]:+.3g})" for t in most)
        return (
            f"{said} rests most on {told}. Above 0 an event speaks for it, below 0 against it, by "
            f"so much as changes where the event is {self.how}."
        )

    def picture(self) -> Picture:
        """Return a bar for each event and each way of asking."""
        series: dict[str, Floats] = {self.how: self.left_out}
        if self.gradient is not None:
            series["gradient x input"] = self.gradient
        names = tuple(self._name(t) for t in range(len(self.left_out)))
        return Picture(
            "bars",
            "What the prediction rests on",
            "event" if self.events else "step",
            "share in log p" if self.logits else "share in the prediction",
            series,
            labels=names,
            note=self.words(),
        )

    def _told(self, t: int) -> str:
        return f"{self.events[t]!r} in step {t}" if self.events else f"step {t}"

    def _name(self, t: int) -> str:
        return f"{t} {self.events[t]}" if self.events else f"step {t}"


def influence(
    module: nn.Module | Subject,
    batch: tuple[Any, ...] | Mapping[str, Any] = (),
    *,
    batch_first: bool | None = None,
    row: int | None = None,
    step: int | None = None,
    output: int = 0,
    place: int | None = None,
    logits: bool = False,
    events: Sequence[str] = (),
    answers: Sequence[str] = (),
    most: int = ROWS,
    seed: int = 0,
) -> Influence:
    """Ask which events of a row one prediction rests on.

    module, batch, batch_first: as `examine` takes them; or a Subject that was made of them
    row:     the longest one where None
    step:    whose prediction, of an output with steps; the row's last one where None
    output:  which array of `subject.outputs`
    place:   which of the numbers predicted there; the largest where None
    logits:  they are logits of classes, and the prediction is a log probability
    events:  names of the row's steps
    answers: names of the numbers predicted, as classes
    most:    events left out, the last ones before the prediction

    Raises Skip where the module gives no number for a row, ShapeError for a step or a number that
    is not there.
    """
    subject = module
    if not isinstance(subject, Subject):
        subject = Subject(subject, batch, batch_first=batch_first)
    row = int(np.argmax(subject.ends)) if row is None else row
    if not 0 <= row < subject.batch:
        raise _absent("Row", row, "The batch", subject.batch)
    length = int(subject.ends[row])
    if not length:
        raise Skip(f"row {row} has no step")
    read = _Reading.of(subject, output, logits)
    if step is not None and (read.time is None or not 0 <= step < length):
        count = 0 if read.time is None else length
        raise _absent("Step", step, f"In row {row}, {read.name}", count)
    last = length - 1 if step is None else step
    # A module that takes no other number of rows gets as many, all of them this row.
    copies = 1 if subject.fixed_rows is None else subject.batch
    history = subject.rows([row] * copies)
    if subject.fixed_steps is None:
        history = subject.steps(length, arguments=history)
    every = read(subject.raw(history), [last] * copies)[0]
    if place is not None and not 0 <= place < len(every):
        raise _absent("Number", place, f"A prediction of {read.name}", len(every))
    place = int(every.argmax()) if place is None else place
    prediction = float(every[place])

    def changed(groups: Iterator[tuple[dict[str, Any], list[int]]]) -> Floats:
        found = [read(subject.raw(each), after)[:, place] for each, after in groups]
        return prediction - torch.cat(found).double().cpu().numpy()

    tried = np.arange(max(0, last + 1 - most), length)[:most]
    removed = subject.fixed_steps is None and last > 0
    if removed:
        change = changed(without(subject, history, tried, last, length))[: len(tried)]
    else:
        draws = [
            changed(exchanged(subject, history, tried, last, np.random.default_rng([seed, k])))
            for k in range(DRAWS)
        ]
        change = np.mean(draws, axis=0)[: len(tried)]
    left_out = np.full(length, np.nan)
    left_out[tried] = change
    steps = length if subject.fixed_steps is None else subject.time
    gradient, norm = input_gradients(
        subject, history, steps, lambda raw: read(raw, [last] * copies)[0, place]
    )
    return Influence(
        row=row,
        step=last if read.time is not None else None,
        place=place,
        answer=answers[place] if len(answers) == len(every) else "",
        prediction=prediction,
        logits=logits,
        gradient=None if gradient is None else gradient[:length],
        norm=None if norm is None else norm[:length],
        left_out=left_out,
        how="removed" if removed else "replaced",
        events=tuple(events)[:length] if len(events) >= length else (),
    )


@dataclass(frozen=True)
class _Reading:
    """Where the predictions stand in what a module gives."""

    name: str
    output: int
    batch: int
    time: int | None
    logits: bool

    @classmethod
    def of(cls, subject: Subject, output: int, logits: bool) -> _Reading:
        if not 0 <= output < len(subject.outputs):
            raise _absent("Output", output, "The module", len(subject.outputs))
        chosen = subject.outputs[output]
        if chosen.batch_axis is None or chosen.stretches:
            raise Skip(f"{chosen.name} has no row of its own for each sequence")
        return cls(chosen.name, output, chosen.batch_axis, chosen.time_axis, logits)

    def __call__(self, raw: Any, steps: Sequence[int]) -> Tensor:
        """Return the predictions [B, N] after these steps [B]."""
        given = flat(raw)[self.output]
        if not given.is_floating_point():
            raise Skip(f"{self.name} holds no floating-point numbers")
        if self.time is None:
            found = given.movedim(self.batch, 0)
        else:
            every = given.movedim((self.batch, self.time), (0, 1))
            found = every[torch.arange(len(every)), torch.as_tensor(list(steps))]
        found = found.flatten(1) if found.ndim > 1 else found[:, None]
        return found.log_softmax(-1) if self.logits else found


def _absent(what: str, number: int, where: str, count: int) -> ShapeError:
    return ShapeError(
        f"{what} {number} was asked for.",
        f"{where} has {count}{', counted from 0' * (count > 0)}.",
        "Name one that is there, or none.",
    )
