"""The rest of an open case: all activities until its end, by the decoding of sequences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import ModelSpec
from hiddenstate.cells.state import select
from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.scores import against_floors, result
from hiddenstate.runtime import Model as Runtime
from hiddenstate.runtime.decoding import beam_search
from hiddenstate.schema import EventLog, Schema
from hiddenstate.tasks.class_floors import ClassFloors, TunedNGram
from hiddenstate.tasks.contexts import FIRST_SYMBOL, UNSEEN, Histories
from hiddenstate.tasks.edits import edit_similarity
from hiddenstate.tasks.judged_values import JudgedValues

LONGEST_STEPS = 200
BATCH_ROWS = 512
TASK = "next_event"

Integers = NDArray[np.int64]


def refusals(spec: ModelSpec) -> list[str]:
    """Return why a model cannot go on from its own answers; empty means that it can.

    What it reads at a step must follow from the activity alone: of an event that has not happened,
    neither the time nor an attribute is known.
    """
    reasons = list(spec.refusals("streaming"))
    if TASK not in spec.task_names:
        reasons.append(f"it was not fitted to {TASK}")
    schema = spec.schema
    if not isinstance(schema, Schema):
        return [*reasons, "it does not read event logs"]
    unknown = [*list(schema.vocabularies)[1:], *schema.number_names]
    if unknown:
        reasons.append(f"it reads {', '.join(unknown)}, which future events do not have yet")
    return reasons


class Search(NamedTuple):
    """How the rest is searched for; see `runtime.decoding.beam_search`."""

    beam: int = 1
    length_penalty: float = 1.0


class _Model:
    """A fitted model as a `Stepper` over the classes of next_event."""

    def __init__(self, runtime: Runtime, vocabulary: Any) -> None:
        self._runtime = runtime
        self._head = runtime.spec.task_names.index(TASK)
        classes = runtime.spec.heads[self._head].classes
        # The last entry stands for activities that are no class.
        self._codes = np.array([*map(vocabulary.encode, classes[:-1]), 0, 0], dtype=np.int64)

    def begin(self, pasts: Sequence[Integers]) -> Any:
        lengths = np.array([len(past) for past in pasts], dtype=np.int64)
        codes = np.zeros((len(pasts), max(int(lengths.max(initial=0)), 1), 1), np.int64)
        for row, past in zip(codes, pasts):
            row[: len(past), 0] = self._codes[past]
        numbers = np.zeros((*codes.shape[:2], 0), np.float32)
        return self._runtime.run(codes, numbers, lengths)[1]

    def step(self, codes: Integers, state: Any) -> tuple[Any, Any]:
        numbers = np.zeros((len(codes), 0), np.float32)
        outputs, state = self._runtime.step_many(self._codes[codes][:, None], numbers, state)
        return self._runtime.decode(outputs)[self._head], state

    def select(self, state: Any, rows: Integers) -> Any:
        return select(state, rows)


class _NGram:
    """The n-gram floor as a `Stepper`: what it has counted, step by step."""

    def __init__(self, floor: TunedNGram, classes: Sequence[str]) -> None:
        self._floor = floor
        number = {name: FIRST_SYMBOL + k for k, name in enumerate(floor.counts.activities)}
        found = (number.get(name, UNSEEN) for name in classes[:-1])
        self._symbols = np.array([*found, UNSEEN, UNSEEN], dtype=np.int32)

    def begin(self, pasts: Sequence[Integers]) -> Any:
        return [self._symbols[past] for past in pasts]

    def step(self, codes: Integers, state: Any) -> tuple[Any, Any]:
        state = [np.append(past, self._symbols[code]) for past, code in zip(state, codes)]
        lengths = np.array([len(past) for past in state])
        places = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
        histories = Histories(np.concatenate(state).astype(np.int32), places)
        rows = (np.cumsum(lengths) - 1).astype(np.int64)
        orders = self._floor.counts.predictions(histories, rows)
        _, p = next(islice(orders, self._floor.log_loss_order, None))
        return np.log(p), state

    def select(self, state: Any, rows: Integers) -> Any:
        return [state[row] for row in rows]


def rest_of_cases(
    runtime: Runtime, log: EventLog, search: Search, longest: int = LONGEST_STEPS
) -> list[list[str]]:
    """Return the activities until the end of every case, after its last event.

    Raises UsageError where the model cannot say (`refusals`), DataError for a case without events.
    """
    _require(runtime.spec)
    if not log.lengths.all():
        raise DataError("A case has no events.", "Its rest follows from its past.", "Leave it out.")
    classes = _classes(runtime)
    pasts = _coded(log, classes)
    model = _Model(runtime, _vocabulary(runtime))
    found = _search(model, pasts, classes, search, longest)
    return [[classes[code] for code in each] for each in found]


def evaluate_rest(
    runtime: Runtime,
    floors: ClassFloors,
    log: EventLog,
    search: Search,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    longest: int = LONGEST_STEPS,
) -> Mapping[str, Any]:
    """Score the rest after every event but the last of each finished case, by edit similarity.

    The floors are continued by the same search. Raises UsageError where the model cannot say,
    DataError where no case of two events has a known end.
    """
    _require(runtime.spec)
    classes = _classes(runtime)
    traces = _coded(log, classes)
    ended = np.ones(log.cases, dtype=bool) if log.ended is None else log.ended
    cuts = [
        (case, t) for case, trace in enumerate(traces) if ended[case] for t in range(1, len(trace))
    ]
    if not cuts:
        raise DataError(
            f"None of the {log.cases} cases has two events and a known end.",
            "The rest of a case is scored against what really came.",
            "Give finished cases.",
        )
    pasts = [traces[case][:t] for case, t in cuts]
    truths = [traces[case][t:].tolist() for case, t in cuts]

    def judged(stepper: _Model | _NGram) -> JudgedValues:
        found = _search(stepper, pasts, classes, search, longest)
        values = [edit_similarity(one, other) for one, other in zip(found, truths, strict=True)]
        return JudgedValues(
            np.array([case for case, _ in cuts], dtype=np.int32),
            np.array([t for _, t in cuts], dtype=np.int32),
            {"edit_similarity": np.array(values)},
        )

    named = {"last_activity": floors.ngram.at_order(1), "ngram": floors.ngram}
    scores = against_floors(
        "values",
        judged(_Model(runtime, _vocabulary(runtime))),
        {name: judged(_NGram(floor, floors.classes)) for name, floor in named.items()},
        compared=["ngram"],
        description=f"{floors.ngram.description}, continued to the end of the case",
        metrics=["edit_similarity"],
        bootstrap=bootstrap,
        seed=seed,
    )
    count = sum(len(trace) for trace in traces)
    top = result(runtime.fingerprint, log.cases, count, {"rest": scores}, ["edit_similarity"])
    return {**top, "search": search._asdict()}


def _search(
    stepper: _Model | _NGram,
    pasts: Sequence[Integers],
    classes: Sequence[str],
    search: Search,
    longest: int,
) -> list[list[int]]:
    """Return the best rest of each past, as classes, in batches of like length."""
    found: list[list[int]] = [[]] * len(pasts)
    order = np.argsort([len(past) for past in pasts], kind="stable")
    for start in range(0, len(order), BATCH_ROWS):
        rows = order[start : start + BATCH_ROWS]
        each = beam_search(
            stepper,
            np.array([pasts[row][-1] for row in rows]),
            stepper.begin([pasts[row][:-1] for row in rows]),
            end=len(classes) - 1,
            longest=longest,
            width=search.beam,
            length_penalty=search.length_penalty,
        )
        for row, (best, *_) in zip(rows, each, strict=True):
            found[row] = best.codes.tolist()
    return found


def _classes(runtime: Runtime) -> tuple[str, ...]:
    return runtime.spec.heads[runtime.spec.task_names.index(TASK)].classes


def _vocabulary(runtime: Runtime) -> Any:
    schema: Any = runtime.spec.schema
    return next(iter(schema.vocabularies.values()))


def _coded(log: EventLog, classes: Sequence[str]) -> list[Integers]:
    """Return every case as classes; an activity that is none has the number after the last."""
    number = {name: k for k, name in enumerate(classes[:-1])}
    labels = log.activities.labels
    table = np.array([*(number.get(label, len(classes)) for label in labels), len(classes)])
    codes = table[log.activities.codes]
    return [codes[a:b] for a, b in zip(log.offsets[:-1], log.offsets[1:])]


def _require(spec: ModelSpec) -> None:
    reasons = refusals(spec)
    if reasons:
        raise UsageError(
            f"This model cannot say how a case goes on to its end: {'; '.join(reasons)}.",
            "Each activity that it expects is read as the next event.",
            "Fit one with --task next_event --attributes none --no-timestamp.",
        )
