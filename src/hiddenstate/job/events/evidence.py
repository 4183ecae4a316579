"""What a model of event logs brings to its diagnosis."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hiddenstate import tasks
from hiddenstate.artifact import ModelSpec
from hiddenstate.data.leaks import FEWEST_CASES, leaks
from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.run import Lengths, Reliability, Suspicion, Unknowns
from hiddenstate.job.events.prepared import PreparedLog
from hiddenstate.job.evidence import DRAWS, Evidence, Json, Longs, few, spread
from hiddenstate.job.model import part
from hiddenstate.models import Batch
from hiddenstate.schema import UNKNOWN, EventLog, Schema
from hiddenstate.tasks.judged import ClassJudge
from hiddenstate.train import LogFeed

MOST_CASES = 5000
SHOWN = 3


class Gathered(Evidence):
    """Cases of the held-back part, or of a log that is given."""

    @cached_property
    def log(self) -> EventLog:
        """The cases that are looked at."""
        if self.source is not None:
            log: EventLog = self.model.read(self.source, self.observer)
            return log
        parts = part(self.ready, PreparedLog).parts
        return next(each for each in parts[::-1] if each.cases)

    def given(self) -> Json:
        """Return the scores on the log that was given."""
        return self._score(self.log)

    @cached_property
    def _cases(self) -> Longs:
        return spread(self.log.lengths, self.rows)

    @cached_property
    def batch(self) -> Batch:
        """Cases of all lengths."""
        return LogFeed(self.log, self._schema, self._tasks, self._spec.heads).batch(self._cases)

    def names(self, row: int) -> tuple[str, ...]:
        """Return the activities of a case."""
        found = self.log.select(self._cases[row : row + 1]).activities.names()
        return tuple(str(each) for each in found)

    def taught(self) -> Json:
        """Return the scores on the training cases, or on some of them where there are many."""
        training = part(self.ready, PreparedLog).parts[0]
        chosen = few(np.random.default_rng(self.seed), training.cases, MOST_CASES)
        return self._score(training.select(chosen))

    def unknowns(self) -> tuple[Unknowns, ...]:
        """Return how many events have a value that is in no vocabulary."""
        schema, strange = self._schema, self._schema.unknowns(self.log)
        trained: dict[str, int] = {}
        if self.ready is not None:
            codes = schema.encode(self._trained).codes
            trained = dict(zip(schema.vocabularies, (codes == UNKNOWN).sum(axis=0).tolist()))
        return tuple(
            Unknowns(
                column,
                self.log.events,
                sum(strange.get(column, {}).values()),
                tuple(list(strange.get(column, {}))[:SHOWN]),
                trained.get(column),
            )
            for column in schema.vocabularies
        )

    def suspicions(self) -> tuple[Suspicion, ...]:
        """Return the inputs that `data.leaks` suspects."""
        log = self.log if self.ready is None else part(self.ready, PreparedLog).log
        if log.cases < FEWEST_CASES:
            raise Skip("the log has too few cases to tell")
        answers = [(task.name, task.case_answers(log)) for task in self._tasks if task.of_cases]
        used = {*list(self._schema.vocabularies)[1:], *self._schema.scalers}
        return tuple(
            Suspicion(each.column, each.reason, each.evidence)
            for each in leaks(log, answers)
            if each.column in used
        )

    def lengths(self) -> Lengths:
        """Return the events of each case, and of the longest training case."""
        if self.ready is None:
            raise Skip("the training part is not there")
        return Lengths(self.log.lengths, int(self._trained.lengths.max()))

    def reliability(self) -> Reliability:
        """Return how often predictions of the first task came true."""
        judge = tasks.judge(self._tasks[0], self.log)
        if not isinstance(judge, ClassJudge):
            raise Skip("it says no probabilities of classes")
        for rows, outputs in self.model.runtime.predict(self.log):
            judge.add(rows, outputs[0])
        judged = judge.result()
        return Reliability(judged.confidence, judged.correct, judged.length)

    @property
    def _trained(self) -> EventLog:
        """All cases that the weights were trained on."""
        ready = part(self.ready, PreparedLog)
        return ready.both if self.finished else ready.parts[0]

    def _score(self, log: EventLog) -> Json:
        found: Json = self.model.evaluate(log, bootstrap=DRAWS, seed=self.seed)
        return found

    @property
    def _spec(self) -> ModelSpec:
        return part(self.model.runtime.spec, ModelSpec)

    @property
    def _schema(self) -> Schema:
        return part(self._spec.schema, Schema)

    @cached_property
    def _tasks(self) -> list[tasks.Task]:
        return [tasks.from_json(head.task) for head in self._spec.heads]
