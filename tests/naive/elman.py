"""Elman 1990: the context units are the hidden units of the step before."""

from __future__ import annotations

import math

from tests.naive.vectors import Vector, add, product


def step(params: dict, options: dict, x: Vector, state: dict) -> tuple[dict, dict]:
    total = add(product(params["w_x"], x), product(params["w_h"], state["h"]))
    for bias in ("b_x", "b_h"):
        if bias in params:
            total = add(total, params[bias])
    if options["activation"] == "relu":
        return {"h": [max(a, 0.0) for a in total]}, {}
    return {"h": [math.tanh(a) for a in total]}, {}
