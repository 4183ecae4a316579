"""Random numbers for each purpose, so that no sequence is learnt from and scored on."""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["training", "order", "validation", "test"]
KEYS: dict[Purpose, int] = {"training": 0, "order": 1, "validation": 2, "test": 3}


def stream(purpose: Purpose, seed: int, number: int = 0) -> np.random.Generator:
    """Return the random numbers for a purpose, apart from those of every other purpose and seed.

    The purpose is a key of the seed's sequence and not a part of the seed: two different lists of
    whole numbers can be one seed.
    """
    key = (KEYS[purpose], number)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
