"""A model fitted to a problem with a known answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hiddenstate.artifact import Artifact
from hiddenstate.errors import UsageError
from hiddenstate.job.model import Model, Remark, silent
from hiddenstate.job.problems.evaluate import evaluate_problem, predictions, test_cases
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime import Model as Runtime
from hiddenstate.tasks.problems import Problem, Span, parse_problem

if TYPE_CHECKING:
    import polars


class Fitted(Model):
    """Answers a problem, at lengths it was trained at and beyond.

    model = hiddenstate.load("runs/parity")
    model.evaluate("problem:parity", lengths=[40, 400])
    """

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Wrap an artifact; see `job.model.Model`."""
        super().__init__(artifact, weights)
        self.problem = parse_problem(str(artifact.metrics["problem"]))
        self.runtime = Runtime(artifact, weights)

    def evaluate(
        self,
        source: str | None = None,
        *,
        lengths: Sequence[int] | None = None,
        bootstrap: int = 1000,
        seed: int = 0,
        shuffle: bool = False,
        observer: Remark = silent,
        **reading: Any,
    ) -> dict[str, Any]:
        """Score the model at lengths: those given, those of a source, or those of the fit.

        source: the problem with other lengths, as problem:parity:length=100-400
        Raises UsageError for another problem, and for what only files have.
        """
        _refuse_reading({**reading, "shuffle": shuffle or None})
        problem = self._asked(source)
        if lengths is None and source is not None and problem.length != self.problem.length:
            lengths = sorted(set(problem.length))
        chosen = list(self.artifact.metrics["test_lengths"]) if lengths is None else list(lengths)
        problem.check_lengths(np.array(chosen))
        observer(f"Sequences of length {', '.join(map(str, chosen))} are drawn.")
        count = int(self.artifact.metrics["test_sequences"])
        return evaluate_problem(
            self.runtime, self.problem, chosen, count=count, bootstrap=bootstrap, seed=seed
        )

    def predict(
        self, source: str | None = None, *, cases: int = 20, **reading: Any
    ) -> polars.DataFrame:
        """Answer some sequences of the source's greatest length; a row for each answer."""
        import polars

        _refuse_reading({**reading, "observer": None, "every_step": None})
        problem = self._asked(source)
        drawn = test_cases(self.problem, problem.length.high, cases)
        told = predictions(self.runtime, self.problem, drawn)
        place = drawn.step if problem.per_step else drawn.lengths - 1
        names = np.array(problem.classes) if problem.classes else None
        answers = told if names is None else names[told.argmax(axis=1)]
        truth = drawn.values if names is None else names[drawn.values]
        return polars.DataFrame(
            {
                "case": drawn.case[drawn.mask],
                "step": place[drawn.mask] + 1,
                "truth": truth[drawn.mask],
                "predicted": answers[drawn.mask],
            }
        )

    def _asked(self, source: str | None) -> Problem:
        """Return the problem that a source names: this model's, with any lengths."""
        problem = self.problem if source is None else parse_problem(str(source))
        alike = replace(problem, length=Span(problem.shortest, problem.shortest))
        if alike != replace(self.problem, length=alike.length):
            raise UsageError(
                f"The model was fitted to {self.problem.text}, and is asked {problem.text}.",
                "It can be asked that problem at other lengths.",
                "Name the same problem, or fit a model to this one.",
            )
        return problem


def _refuse_reading(options: Mapping[str, Any]) -> None:
    """Raise UsageError where an option of files is given."""
    given = [name for name, value in options.items() if value is not None and value is not False]
    if given:
        raise UsageError(
            f"{', '.join(given)} was set for a problem with a known answer.",
            "Its sequences are drawn and not read; `hiddenstate compare` measures their order.",
            "Leave it out.",
        )
