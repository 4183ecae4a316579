"""Cho et al. 2014, with the reset gate on either side of the product, and either direction of z."""

from __future__ import annotations

import math

from tests.naive.vectors import Vector, product, sigmoid


def step(params: dict, options: dict, x: Vector, state: dict) -> tuple[dict, dict]:
    h = state["h"]
    size = len(h)

    def rows(name: str, gate: int) -> list:
        if name not in params:
            return [0.0] * size
        return params[name][gate * size : (gate + 1) * size]

    def plain_gate(gate: int) -> Vector:
        from_x = product(rows("w_x", gate), x)
        from_h = product(rows("w_h", gate), h)
        b_x, b_h = rows("b_x", gate), rows("b_h", gate)
        return sigmoid([from_x[k] + from_h[k] + b_x[k] + b_h[k] for k in range(size)])

    r, z = plain_gate(0), plain_gate(1)
    from_x, b_x, b_h = product(rows("w_x", 2), x), rows("b_x", 2), rows("b_h", 2)
    if options["reset"] == "after":
        from_h = product(rows("w_h", 2), h)
        n = [math.tanh(from_x[k] + b_x[k] + r[k] * (from_h[k] + b_h[k])) for k in range(size)]
    else:
        from_h = product(rows("w_h", 2), [r[k] * h[k] for k in range(size)])
        n = [math.tanh(from_x[k] + b_x[k] + from_h[k] + b_h[k]) for k in range(size)]
    if options["update"] == "keeps":
        new = [z[k] * h[k] + (1.0 - z[k]) * n[k] for k in range(size)]
    else:
        new = [(1.0 - z[k]) * h[k] + z[k] * n[k] for k in range(size)]
    return {"h": new}, {"r": r, "z": z, "n": n}
