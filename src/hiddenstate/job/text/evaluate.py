"""What a language model says at every step of a text, and its scores beside the floors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hiddenstate.job.scores import Json, against_floors, result
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema.documents import TextCodes
from hiddenstate.tasks.compare import Metric
from hiddenstate.tasks.language import NAME, LanguageFloors, SymbolJudge, draws_documents

METRICS: tuple[Metric, ...] = ("nats", "accuracy")
# What a bootstrap draws: documents, or stretches of a text where there are few.
DOCUMENTS, BLOCKS, SYMBOLS = "documents", "blocks of text", "symbols"
# Documents that are read side by side, and how many outputs are held at once (float64).
MOST_SIDE_BY_SIDE = 64
MOST_OUTPUTS = 4_000_000


def log_probabilities(
    runtime: Runtime, text: TextCodes
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield steps [n] and their log probabilities [n, V] in nats, all steps once.

    A document is read from its start to its end, the state carried on all the way; documents of
    like length are read side by side. Within a document, steps come in their order.
    """
    rows, first = text.rows, np.cumsum(text.lengths) - text.lengths
    order = np.argsort(text.lengths, kind="stable")
    for begin in range(0, len(order), MOST_SIDE_BY_SIDE):
        chosen = order[begin : begin + MOST_SIDE_BY_SIDE]
        lengths, state = text.lengths[chosen], None
        size = max(1, MOST_OUTPUTS // (len(runtime.spec.heads[0].classes) * len(chosen)))
        for start in range(0, int(lengths.max(initial=0)), size):
            left = np.clip(lengths - start, 0, size)
            places = np.arange(int(left.max()))
            real = places < left[:, None]
            steps = np.where(real, first[chosen][:, None] + start + places, 0)
            codes = text.codes[rows[steps]][..., None]
            numbers = np.zeros((*steps.shape, 0), dtype=np.float32)
            outputs, state = runtime.run(codes, numbers, left, state)
            (log_p,) = runtime.decode((outputs[0][real],))
            yield steps[real], log_p


def evaluate_text(
    runtime: Runtime,
    floors: LanguageFloors,
    text: TextCodes,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Json:
    """Return the scores of a text beside its floors, as JSON values."""
    judge = SymbolJudge(text)
    drawn = DOCUMENTS if draws_documents(text) else BLOCKS
    for steps, log_p in log_probabilities(runtime, text):
        judge.add(steps, log_p)
    scores = against_floors(
        "symbols",
        judge.result(),
        floors.judge(text),
        compared=floors.compared,
        description=floors.description,
        metrics=METRICS,
        bootstrap=bootstrap,
        seed=seed,
        drawn=drawn,
    )
    count = int(scores["model"]["cases"])
    units = (drawn, SYMBOLS)
    return result(runtime.fingerprint, count, text.steps, {NAME: scores}, METRICS, units)
