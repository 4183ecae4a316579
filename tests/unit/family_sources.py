"""A small source for every family of tasks: file name, content, first metric and settings."""

from __future__ import annotations

from typing import Any

from tests.journeys import labels
from tests.journeys.test_translate import PAIRS
from tests.journeys.wrong_series import roll, signal

FAMILIES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "lm": ("text.txt", "the cat sat on the mat, and the dog too. " * 30, "nats", {}),
    "classify": ("reviews.csv", labels.reviews(40), "accuracy", {}),
    "label": ("tags.conll", labels.tagged(30), "accuracy", {"model.bidirectional": False}),
    "forecast": (
        "signal.csv",
        signal(240),
        "mse",
        {"series.horizon": 4, "series.context": 24, "series.base": "level"},
    ),
    "next_frame": ("roll.csv", roll(16), "nats_per_frame", {}),
    "translate": ("pairs.tsv", PAIRS, "bleu", {"pairs.unit": "words", "pairs.beam": 1}),
}
