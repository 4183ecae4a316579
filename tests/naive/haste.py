"""haste's kernels (lib/lstm_forward_gpu.cu.cc, lib/gru_forward_gpu.cu.cc), one unit at a time."""

from __future__ import annotations

from math import exp, tanh

from tests.naive.vectors import Matrix, Vector


def sigmoid(a: float) -> float:
    return 1.0 / (1.0 + exp(-a))


def column(matrix: Matrix, index: int, vector: Vector) -> float:
    return sum(row[index] * value for row, value in zip(matrix, vector, strict=True))


def run(layer: dict, xs: list[Vector], state: list[Vector]) -> tuple[list[Vector], list[Vector]]:
    """Outputs and last state of one layer's arrays: kernel [D, G*H], recurrent_kernel [H, G*H]."""
    wx, wh, bx = layer["kernel"], layer["recurrent_kernel"], layer["bias"]
    size, outputs = len(state[0]), []
    for x in xs:
        h = state[0]
        if "recurrent_bias" in layer:
            state = [gru(wx, wh, bx, layer["recurrent_bias"], x, h)]
        else:
            new_c, new_h = [], []
            for k in range(size):
                at = [gate * size + k for gate in range(4)]
                i, g, f, o = (column(wx, j, x) + column(wh, j, h) + bx[j] for j in at)
                c = sigmoid(f) * state[1][k] + sigmoid(i) * tanh(g)
                new_c.append(c)
                new_h.append(sigmoid(o) * tanh(c))
            state = [new_h, new_c]
        outputs.append(state[0])
    return outputs, state


def gru(wx: Matrix, wh: Matrix, bx: Vector, br: Vector, x: Vector, h: Vector) -> Vector:
    size, new = len(h), []
    for k in range(size):
        at_z, at_r, at_g = (gate * size + k for gate in range(3))
        z = sigmoid(column(wx, at_z, x) + column(wh, at_z, h) + bx[at_z] + br[at_z])
        r = sigmoid(column(wx, at_r, x) + column(wh, at_r, h) + bx[at_r] + br[at_r])
        g = tanh(column(wx, at_g, x) + r * (column(wh, at_g, h) + br[at_g]) + bx[at_g])
        new.append(z * h[k] + (1.0 - z) * g)
    return new
