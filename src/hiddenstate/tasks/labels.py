"""Labels of sequences and of steps: what floors are given, and predictions beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import ShapeError
from hiddenstate.schema import words
from hiddenstate.tasks.judged import LEAST_LOG_PROBABILITY, JudgedClasses
from hiddenstate.tasks.task import UNKNOWN_CLASS

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]
Longs = NDArray[np.int64]

# A sequence or step without a label is neither learnt nor scored.
NO_LABEL = -2
TEMPERATURES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclass(frozen=True, eq=False)
class Given:
    """C sequences as floors see them.

    offsets  steps of sequence c are rows offsets[c] to offsets[c + 1] [C + 1]
    pieces   words or tokens of the steps [N]
    frames   scaled numbers of the steps [N, F]
    texts    whole texts [C]; the pieces are then their words in small letters
    """

    offsets: Longs
    pieces: NDArray[np.object_] | None = None
    frames: NDArray[Any] | None = None
    texts: NDArray[np.object_] | None = None

    @classmethod
    def of_texts(cls, texts: NDArray[np.object_]) -> Given:
        """Cut whole texts [C] into words."""
        cut = [[words.bare(piece) for piece in words.cut(text.lower())] for text in texts]
        pieces = np.empty(sum(map(len, cut)), dtype=object)
        pieces[:] = [piece for each in cut for piece in each]
        return cls(np.cumsum([0, *map(len, cut)]), pieces, texts=texts)

    @property
    def cases(self) -> int:
        """Number of sequences C."""
        return len(self.offsets) - 1

    @property
    def case_of_step(self) -> Longs:
        """The sequence of each step [N]."""
        return np.repeat(np.arange(self.cases), np.diff(self.offsets))

    @property
    def place_of_step(self) -> Longs:
        """The place of each step in its sequence [N], from 0."""
        lengths = np.diff(self.offsets)
        return np.arange(self.offsets[-1]) - np.repeat(self.offsets[:-1], lengths)

    def followed_by(self, other: Given) -> Given:
        """Return these sequences and then those of another of the same kind."""

        def join(a: Any, b: Any) -> Any:
            return None if a is None else np.concatenate((a, b))

        return Given(
            np.concatenate((self.offsets, self.offsets[-1] + other.offsets[1:])),
            join(self.pieces, other.pieces),
            join(self.frames, other.frames),
            join(self.texts, other.texts),
        )

    def select(self, cases: NDArray[Any]) -> Given:
        """Return the given sequences in the given order."""
        lengths = np.diff(self.offsets)[cases]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        steps = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][cases] - offsets[:-1], lengths)
        return Given(
            offsets,
            None if self.pieces is None else self.pieces[steps],
            None if self.frames is None else self.frames[steps],
            None if self.texts is None else self.texts[cases],
        )


class Guess(Protocol):
    """A predictor of classes without a hidden state; M is C, or N where every step is labelled."""

    def log_probabilities(self, given: Given) -> tuple[Floats, Ints]:
        """Return log probabilities [M, V] in nats, and the predicted classes [M]."""

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array as JSON values."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""


def log_softmax(scores: NDArray[Any], temperature: float = 1.0) -> Floats:
    """Return log probabilities [M, V] in proportion to exp(temperature * scores)."""
    scaled = scores.astype(np.float64) * temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    total: Floats = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return total


def best_temperature(scores: Floats, target: Ints) -> tuple[float, float]:
    """Return the temperature with the least log loss on truths [M], and that loss in nats.

    What counts several pieces as independent is too sure of itself; it is made as sure as it may.
    """
    known = target >= 0
    scores, target = scores[known], target[known]
    if not len(target):
        return 1.0, np.inf
    rows = np.arange(len(target))
    losses = [float(-log_softmax(scores, t)[rows, target].mean()) for t in TEMPERATURES]
    least = int(np.argmin(losses))
    return TEMPERATURES[least], losses[least]


def judge_labels(
    case: NDArray[Any],
    length: NDArray[Any],
    target: NDArray[Any],
    log_probabilities: NDArray[Any],
    classes: Sequence[str],
    predicted: NDArray[Any] | None = None,
) -> JudgedClasses:
    """Put predictions beside the truth: case, length and target [M], log probabilities [M, V].

    target: UNKNOWN_CLASS where the truth is a label that training never saw; it counts as an error.
    predicted [M] names other classes than the most probable ones. Raises ShapeError.
    """
    shape = (len(target), len(classes))
    if log_probabilities.shape != shape or len(case) != len(target) or len(length) != len(target):
        raise ShapeError(
            f"Predictions of shape {list(log_probabilities.shape)} came for {len(target)} labels.",
            f"The shape {list(shape)} was expected.",
            "Give one row for each label.",
        )
    first = log_probabilities.argmax(axis=1) if predicted is None else predicted
    rows = np.arange(len(target))
    known = target != UNKNOWN_CLASS
    truth = log_probabilities[rows, np.where(known, target, 0)]
    ahead = log_probabilities > truth[:, None]
    ahead |= (log_probabilities == truth[:, None]) & (np.arange(shape[1]) < target[:, None])
    ahead[rows, first] = True
    rank = np.where(first == target, 1, 1 + ahead.sum(axis=1))
    bounded = np.maximum(truth, LEAST_LOG_PROBABILITY)
    return JudgedClasses(
        case=case.astype(np.int32),
        length=length.astype(np.int32),
        target=target.astype(np.int32),
        predicted=first.astype(np.int32),
        log_probability=np.where(known, bounded, np.nan).astype(np.float32),
        rank=np.where(known, rank, 0).astype(np.int32),
        confidence=np.exp(log_probabilities[rows, first]).astype(np.float32),
        classes=tuple(classes),
    )
