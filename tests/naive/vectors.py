"""Vectors as lists of floats; a matrix is a list of rows."""

from __future__ import annotations

import math

Vector = list[float]
Matrix = list[list[float]]


def product(matrix: Matrix, vector: Vector) -> Vector:
    return [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]


def add(*vectors: Vector) -> Vector:
    return [sum(entries) for entries in zip(*vectors, strict=True)]


def times(left: Vector, right: Vector) -> Vector:
    return [a * b for a, b in zip(left, right, strict=True)]


def sigmoid(vector: Vector) -> Vector:
    return [1.0 / (1.0 + math.exp(-a)) for a in vector]


def tanh(vector: Vector) -> Vector:
    return [math.tanh(a) for a in vector]


def layer_norm(vector: Vector, gain: Vector) -> Vector:
    mean = sum(vector) / len(vector)
    variance = sum((a - mean) ** 2 for a in vector) / len(vector)
    return [g * (a - mean) / math.sqrt(variance + 1e-5) for a, g in zip(vector, gain, strict=True)]
