"""Small files of labelled sequences that a model can learn, written as users have them."""

from __future__ import annotations

import numpy as np

CITIES = ("Paris", "Rome", "Oslo")
PEOPLE = ("Ann", "Bob", "Eve")


def reviews(cases: int = 90, seed: int = 0) -> str:
    """Return texts whose sentiment is told by one word, as CSV."""
    rng = np.random.default_rng(seed)
    lines = ["review_id,text,label"]
    for case in range(cases):
        label = ("good", "bad")[case % 2]
        word = rng.choice({"good": ["fine", "lovely"], "bad": ["awful", "poor"]}[label])
        rest = rng.choice(["the", "day", "food", "was", "we", "had"], 5).tolist()
        place = int(rng.integers(0, 6))
        lines.append(f'{case},"{" ".join([*rest[:place], word, *rest[place:]])}",{label}')
    return "\n".join(lines) + "\n"


def tagged(cases: int = 60, seed: int = 0) -> str:
    """Return sentences with a label on each token: a name behind `in` is a place (CoNLL)."""
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(cases):
        words = [(str(rng.choice(PEOPLE)), "PERSON"), ("is", "O"), ("in", "O")]
        words.append((str(rng.choice([*CITIES, "Ann"])), "PLACE"))
        blocks.append("".join(f"{word} {label}\n" for word, label in words))
    return "\n".join(blocks)


def waves(cases: int = 60, seed: int = 0, *, gaps: bool = False) -> str:
    """Return series of two channels that rise or fall, of unequal length (.ts)."""
    rng = np.random.default_rng(seed)
    lines = ["@problemName waves", "@univariate false", "@dimensions 2"]
    lines += ["@equalLength false", "@classLabel true up down", "@data"]
    for case in range(cases):
        steps = int(rng.integers(5, 12))
        rise = (1, -1)[case % 2]
        channels = [
            rise * np.linspace(-1, 1, steps) + rng.normal(0, 0.2, steps),
            rng.normal(0, 1, steps),
        ]
        written = [[f"{value:.4f}" for value in channel] for channel in channels]
        if gaps:
            written[1][int(rng.integers(0, steps))] = "?"
        parts = [*(",".join(channel) for channel in written), ("up", "down")[case % 2]]
        lines.append(":".join(parts))
    return "\n".join(lines) + "\n"
