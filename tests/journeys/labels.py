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


def machines(cases: int = 60, seed: int = 0, *, every_step: bool = False) -> str:
    """Return series of two sensors in long form, with a number that may be below 0 (CSV).

    Of a machine its drift in all, of a step the heat so far: the sum of what was loaded. One number
    in twelve is not known.
    """
    rng = np.random.default_rng(seed)
    lines = ["machine_id,time,load,noise,y"]
    for case in range(cases):
        steps = int(rng.integers(5, 12))
        load = rng.normal(0, 1, steps)
        heat = np.cumsum(load)
        for step in range(steps):
            number = heat[step] if every_step else heat[-1]
            shown = f"{10 * number - 4:.4f}"
            shown = "NaN" if (step if every_step else case) % 12 == 3 else shown
            lines.append(f"m{case},{step},{load[step]:.4f},{rng.normal():.4f},{shown}")
    return "\n".join(lines) + "\n"


def prices(cases: int = 90, seed: int = 0) -> str:
    """Return texts with a price that two of their words tell, few of them high (CSV)."""
    rng = np.random.default_rng(seed)
    worth = {"plain": 1.0, "fine": 4.0, "golden": 40.0}
    lines = ["title,price"]
    for _ in range(cases):
        kind, count = str(rng.choice(list(worth), p=(0.5, 0.3, 0.2))), int(rng.integers(1, 4))
        rest = rng.choice(["the", "old", "ring", "with", "a"], 4).tolist()
        number = worth[kind] * count * float(rng.uniform(0.9, 1.1))
        lines.append(f"{' '.join([*rest, str(count), kind])},{number:.3f}")
    return "\n".join(lines) + "\n"
