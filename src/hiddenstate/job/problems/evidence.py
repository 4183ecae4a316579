"""What a model of a problem with a known answer brings to its diagnosis."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.run import Lengths
from hiddenstate.job.evidence import Evidence, Json
from hiddenstate.job.problems.feed import samples
from hiddenstate.models import Batch
from hiddenstate.tasks.problems import Problem, parse_problem
from hiddenstate.train import SampleFeed


class Gathered(Evidence):
    """Sequences drawn for the purpose, of the fit's lengths or of those that are given."""

    @cached_property
    def problem(self) -> Problem:
        """The problem, with the lengths that are looked at."""
        own: Problem = self.model.problem
        return own if self.source is None else parse_problem(str(self.source))

    @cached_property
    def batch(self) -> Batch:
        """Sequences of all lengths."""
        low, high = self.problem.length
        lengths = np.linspace(low, high, self.rows).round().astype(np.int64)
        rng = np.random.default_rng(self.seed)
        drawn = samples(self.problem, rng, lengths, "test")
        return SampleFeed(drawn).batch(np.arange(self.rows))

    def taught(self) -> Json:
        """Say that there is no training part."""
        raise Skip("the training sequences are drawn anew for every epoch")

    def lengths(self) -> Lengths:
        """Return the steps of the lengths that are scored, and of the longest in training."""
        asked = self.model.metrics["test_lengths"] if self.source is None else self.problem.length
        steps = self.model.problem.steps(np.array(sorted(set(asked))))
        longest = self.model.problem.steps(np.array([self.model.problem.length.high]))
        return Lengths(np.asarray(steps, dtype=np.int64), int(longest[0]))
