"""Attention and positions as the papers write them, one query after another."""

from __future__ import annotations

import cmath
import math

from tests.naive.vectors import Matrix, Vector, add, product, tanh


def dot(left: Vector, right: Vector) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def softmax(scores: Vector) -> Vector:
    highest = max(scores)
    parts = [math.exp(score - highest) for score in scores]
    return [part / sum(parts) for part in parts]


def mean(weights: Vector, values: Matrix) -> Vector:
    return [dot(weights, list(column)) for column in zip(*values, strict=True)]


def look(
    kind: str, params: dict, query: Vector, states: Matrix, seen: Vector | None = None
) -> tuple[Vector, Vector]:
    """Bahdanau et al. 2014 and Luong et al. 2015: context and alpha; `seen` is the coverage."""
    scores = []
    for j, state in enumerate(states):
        if kind == "dot":
            scores.append(dot(query, state))
        elif kind == "general":
            scores.append(dot(query, product(params["key.weight"], state)))
        else:
            parts = [product(params["query.weight"], query), product(params["key.weight"], state)]
            if seen is not None:
                parts.append([row[0] * seen[j] for row in params["coverage.weight"]])
            inner = add(*parts, params["key.bias"])
            scores.append(dot(params["score.weight"][0], tanh(inner)))
    alpha = softmax(scores)
    return mean(alpha, states), alpha


def scaled(query: Vector, keys: Matrix, values: Matrix) -> tuple[Vector, Vector]:
    """Vaswani et al. 2017, eq. 1, for one head and query, over the keys that it sees."""
    alpha = softmax([dot(query, key) / math.sqrt(len(query)) for key in keys])
    return mean(alpha, values), alpha


def rotary(vector: Vector, position: int) -> Vector:
    """Su et al. 2021, section 3.2.1, in complex numbers: pair k times e^(i position theta_k)."""
    half = len(vector) // 2
    turned = [
        complex(vector[k], vector[k + half])
        * cmath.exp(1j * position * 10000.0 ** (-2.0 * k / len(vector)))
        for k in range(half)
    ]
    return [pair.real for pair in turned] + [pair.imag for pair in turned]


def sinusoids(position: int, size: int) -> Vector:
    """Vaswani et al. 2017, section 3.5."""
    found = []
    for feature in range(size):
        angle = position / 10000.0 ** (2 * (feature // 2) / size)
        found.append(math.cos(angle) if feature % 2 else math.sin(angle))
    return found
