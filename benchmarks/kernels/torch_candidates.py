"""One layer by torch.nn and by hiddenstate's layers: both are torch modules, timed alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.kernels.measure import Arrays, Candidate
from benchmarks.kernels.subject import NAMES, Subject


def trained(
    forward: Callable[[Any], Any],
    x: Any,
    output_gradient: Any,
    weights: list[Any],
    batch_first: bool = True,
) -> Candidate:
    """Return forward and backward of a module; read gives output, x's and weights' gradients.

    The weights count as new in every call, as they are in training: what is packed from them may
    not be kept.
    """
    x = x.requires_grad_()

    def call() -> Any:
        torch.autograd.graph.increment_version(weights)
        x.grad = None
        for weight in weights:
            weight.grad = None
        output = forward(x)
        output.backward(output_gradient)
        return output

    def read(output: Any) -> Arrays:
        by_time = [output.detach(), x.grad]
        if not batch_first:
            by_time = [array.transpose(0, 1) for array in by_time]
        return [*by_time, *(weight.grad.clone() for weight in weights)]

    return Candidate(call, read)


def torch_training(subject: Subject, batch_first: bool = True, wide: bool = False) -> Candidate:
    """torch.nn's layer, forward and backward."""
    module = subject.again(batch_first, wide)
    tensors = [torch.tensor(array) for array in (subject.x, subject.output_gradient)]
    if not batch_first:
        tensors = [tensor.transpose(0, 1).contiguous() for tensor in tensors]
    if wide:
        tensors = [tensor.double() for tensor in tensors]
    weights = [getattr(module, f"{name}_l0") for name in NAMES.values()]
    return trained(lambda x: module(x)[0], *tensors, weights, batch_first)


def training(subject: Subject) -> Candidate:
    """hiddenstate's layer, forward and backward."""
    layer = subject.layer
    tensors = [torch.tensor(array) for array in (subject.x, subject.output_gradient)]
    weights = [getattr(layer, name) for name in NAMES]
    return trained(lambda x: layer(x)[0], *tensors, weights)


def torch_sequence(subject: Subject, batch_first: bool = True, wide: bool = False) -> Candidate:
    """torch.nn's layer without gradients."""
    module = subject.again(batch_first, wide)
    x = torch.tensor(subject.x if batch_first else subject.x.transpose(1, 0, 2).copy())
    x = x.double() if wide else x

    def call() -> Any:
        with torch.inference_mode():
            return module(x)[0]

    return Candidate(call, lambda y: [y if batch_first else y.transpose(0, 1)])


def sequence(subject: Subject) -> Candidate:
    """hiddenstate's layer without gradients."""
    layer, x = subject.layer, torch.tensor(subject.x)

    def call() -> Any:
        with torch.no_grad():
            return layer(x)[0]

    return Candidate(call, lambda y: [y])
