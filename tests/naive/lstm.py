"""Hochreiter, Schmidhuber 1997; Gers et al. 2000, 2002; Greff 2017; Sak 2014; Ba 2016."""

from __future__ import annotations

from tests.naive.vectors import Vector, add, layer_norm, product, sigmoid, tanh, times


def step(params: dict, options: dict, x: Vector, state: dict) -> tuple[dict, dict]:
    h, c = state["h"], state["c"]
    size = len(c)
    from_x, from_h = product(params["w_x"], x), product(params["w_h"], h)
    if options["layer_norm"]:
        from_x = layer_norm(from_x, params["gain_x"])
        from_h = layer_norm(from_h, params["gain_h"])
    total = add(from_x, from_h)
    for bias in ("b_x", "b_h"):
        if bias in params:
            total = add(total, params[bias])
    own_forget = options["forget_gate"] and not options["coupled"]
    order = ["i", "f", "g", "o"] if own_forget else ["i", "g", "o"]
    rows = {gate: total[k * size : (k + 1) * size] for k, gate in enumerate(order)}

    def with_peephole(gate: str, memory: Vector) -> Vector:
        if not options["peephole"]:
            return rows[gate]
        return add(rows[gate], times(params[f"p_{gate}"], memory))

    i = sigmoid(with_peephole("i", c))
    if own_forget:
        f = sigmoid(with_peephole("f", c))
    elif options["coupled"]:
        f = [1.0 - a for a in i]
    else:
        f = [1.0] * size
    g = tanh(rows["g"])
    c = add(times(f, c), times(i, g))
    o = sigmoid(with_peephole("o", c))
    shown = c
    if options["layer_norm"]:
        shown = add(layer_norm(c, params["gain_c"]), params["shift_c"])
    h = times(o, tanh(shown))
    if options["projection"] is not None:
        h = product(params["w_p"], h)
    return {"h": h, "c": c}, {"i": i, "f": f, "g": g, "o": o}
