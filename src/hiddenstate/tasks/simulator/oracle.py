"""The ceiling: the process itself, predicting the cases that it made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError, nearest
from hiddenstate.schema.log import EventLog
from hiddenstate.tasks.judged import ClassJudge, JudgedClasses
from hiddenstate.tasks.simulator.process import Codes, Floats, Process
from hiddenstate.tasks.simulator.tickets import ticket_process
from hiddenstate.tasks.task import Targets

CASES, WINDOWS = 4096, 64


@dataclass(frozen=True)
class Oracle:
    """The exact next-action probabilities of a simulated log, given the activities so far.

    No predictor that sees the activities (and the times and attributes, which are drawn from the
    activities alone) can have a lower expected log loss. With `memory` it sees the last so many
    events only, from a random place in the case; the difference is what longer lags are worth.
    """

    process: Process = field(default_factory=ticket_process)
    memory: int | None = None

    def knows(self, log: EventLog) -> bool:
        """Say whether all activities of a log are the process's own."""
        used = np.unique(log.activities.codes)
        return {log.activities.labels[code] for code in used} <= set(self.process.actions)

    def log_probabilities(self, log: EventLog, classes: Sequence[str] | None = None) -> Floats:
        """Return log p(next action | activities so far) in nats for every event [N, V].

        Columns stand in the order of `classes`, by default the process's actions (END last).
        Raises DataError for a case that the process cannot make.
        """
        wanted = self.process.actions if classes is None else tuple(classes)
        table = np.full((log.events, len(wanted)), -np.inf)
        for rows, log_p in self._chunks(log, wanted):
            table[rows] = log_p
        return table

    def judge(self, log: EventLog, targets: Targets, classes: tuple[str, ...]) -> JudgedClasses:
        """Return the ceiling's judged predictions of the task next_event."""
        judge = ClassJudge(log, targets, classes)
        for rows, log_p in self._chunks(log, classes):
            judge.add(rows, log_p)
        return judge.result()

    def _chunks(
        self, log: EventLog, classes: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], Floats]]:
        """Yield rows of the log [n] and log probabilities [n, V]."""
        number = {name: i for i, name in enumerate(self.process.actions)}
        columns = np.array([number.get(name, -1) for name in classes])
        codes = self._codes(log)
        for traces, starts, ends, before in self._histories(log):
            pieces = [codes[a:b] for a, b in zip(starts, ends)]
            last = ends - starts
            for step, belief in enumerate(self.process.beliefs(pieces, before), start=1):
                asked = belief.trace if before is None else belief.trace[last[belief.trace] == step]
                if not len(asked):
                    continue
                p = self.process.next_action(belief)[np.isin(belief.trace, asked)]
                rows = starts[asked] + step - 1
                self._possible(p, rows, log, traces[asked])
                with np.errstate(divide="ignore"):
                    yield rows, np.where(columns >= 0, np.log(p[:, columns]), -np.inf)

    def _histories(self, log: EventLog) -> Iterator[tuple[Codes, Codes, Codes, Floats | None]]:
        """Yield cases, first and last rows of histories to filter, and the belief before them.

        Without a belief the histories are whole cases and every step of them is asked; with one
        they are windows and only the last step is.
        """
        starts, ends = log.offsets[:-1], log.offsets[1:]
        if self.memory is not None:
            ends = np.minimum(ends, starts + self.memory)
        for first in range(0, log.cases, CASES):
            cases = np.arange(first, min(first + CASES, log.cases))
            yield cases, starts[cases], ends[cases], None
        if self.memory is None:
            return
        late = np.flatnonzero(log.position_of_event() >= self.memory)
        case = log.case_of_event()
        for first in range(0, len(late), WINDOWS):
            rows = late[first : first + WINDOWS]
            yield case[rows], rows + 1 - self.memory, rows + 1, self.process.midway

    def _codes(self, log: EventLog) -> Codes:
        number = {name: i for i, name in enumerate(self.process.actions[:-1])}
        labels = log.activities.labels
        table = np.array([number.get(label, -1) for label in labels], dtype=np.int64)
        codes: Codes = table[log.activities.codes]
        if (codes < 0).any():
            name = labels[int(log.activities.codes[np.flatnonzero(codes < 0)[0]])]
            raise DataError(
                f"The log has an activity {name!r}, which the simulator does not know.",
                f"The exact filter serves logs of its own {len(number)} activities.",
                f"Give a simulated log.{nearest(name, number)}",
            )
        return codes

    @staticmethod
    def _possible(p: Floats, rows: Codes, log: EventLog, cases: Codes) -> None:
        wrong = np.flatnonzero(p.sum(axis=1) < 0.5)
        if len(wrong):
            place = int(rows[wrong[0]] - log.offsets[cases[wrong[0]]]) + 1
            raise DataError(
                f"Case {log.case_ids[cases[wrong[0]]]!r} cannot come from the simulator: its first "
                f"{place} events have probability zero.",
                "The exact filter serves logs that the simulator made, unchanged.",
                "Give a simulated log, with every event and in order.",
            )
