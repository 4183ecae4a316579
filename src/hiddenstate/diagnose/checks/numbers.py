"""Numbers: finite, and the same from every kernel. HS161, HS162."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.compare import (
    ROUNDINGS,
    base,
    differences,
    shaken,
    steady,
    unset,
    worst,
)
from hiddenstate.diagnose.subject.calling import cloned, seeded
from hiddenstate.diagnose.subject.layout import every_leaf
from hiddenstate.diagnose.subject.nested import tensors
from hiddenstate.diagnose.subject.subject import flat
from hiddenstate.diagnose.tracing.capture import trace
from hiddenstate.diagnose.tracing.record import LayerTrace
from hiddenstate.nn import Recurrent

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS161",
    "kernels-disagree",
    Severity.ERROR,
    asks="Does the fast kernel give what the reference gives?",
    because="The reference is the cell's equations, step by step. Where the fast path differs, "
    "the model is not the cell that it is called, and a score cannot be reproduced elsewhere.",
    remedy="Run the layer with kernel='reference' and report the case; of a torch layer whose "
    "forward was overridden, build the variant from a cell of its own.",
    limits={"difference of the states": 1e-3},
)
def kernels_disagree(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Own layers run once more by the reference; torch's are compared with their trace."""
    few, known = seen.few, steady(seen)
    reference = few.copy()
    own = [each for each in reference.modules() if isinstance(each, Recurrent)]
    for each in own:
        each.kernel = "reference"
    if own:
        found = worst(differences(few, known, flat(few.call(reference))))
        if found is not None:
            ran = ", ".join(sorted({str(each.last_kernel) for each in _ran(seen)}))
            yield rule.finding(
                found.output.name,
                f"{found.output.name} from the kernel {ran} and from the reference are "
                f"{found.largest:.3g} apart, {found.share:.2%} of its largest value.",
                {"difference": found.largest, "share": found.share},
            )
    for name, part in few.module.named_modules():
        told = _other_forward(seen, name, part)
        if told:
            yield rule.finding(name or "module", told, severity=Severity.NOTE)
    limit = rule.limits["difference of the states"]
    for layer in seen.trace.layers:
        if layer.difference > limit * _size(layer) and not _rounding(seen, layer):
            yield rule.finding(
                layer.name,
                f"The output of {layer.name} and its equations ({layer.cell.name}, "
                f"{layer.cell.convention}) are {layer.difference:.3g} apart.",
                {"difference": layer.difference},
            )


def _other_forward(seen: Examination, name: str, part: nn.Module) -> str:
    """Return a sentence on a class made from torch's whose own forward gives something else."""
    torchs = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)
    kind = next((each for each in torchs if isinstance(part, each)), None)
    if kind is None or type(part).forward is kind.forward:
        return ""
    plain = seen.few.copy()
    plain.get_submodule(name).__class__ = kind
    try:
        found = worst(differences(seen.few, base(seen), flat(seen.few.call(plain))))
    except Skip:
        return ""
    if found is None:
        return ""
    return (
        f"{type(part).__name__} is made from nn.{kind.__name__} and computes something else with "
        f"the same weights: {found.largest:.3g} apart in {found.output.name}. What reads its "
        "class (an export, a conversion, a trace) takes it for the other."
    )


def _size(layer: LayerTrace) -> float:
    sizes = np.abs(layer.states.h)
    return max(1.0, float(sizes[np.isfinite(sizes)].max(initial=0.0)))


def _rounding(seen: Examination, layer: LayerTrace) -> bool:
    """Return whether one rounding error in every weight changes the states about as much."""
    with seeded(seen.seed, seen.few.module):
        layers = [
            trace(module, cloned(seen.few.arguments)).layers
            for module in (seen.few.copy(), shaken(seen))
        ]
    for one, other in zip(*layers):
        if one.name == layer.name and one.states.h.shape == other.states.h.shape:
            gap = float(np.abs(one.states.h - other.states.h).max(initial=0.0))
            return layer.difference <= ROUNDINGS * gap
    return True


@rule(
    "HS162",
    "not-finite",
    Severity.ERROR,
    asks="Are all results numbers?",
    because="One NaN reaches every weight in one update. Infinities become NaN at the next "
    "subtraction.",
    remedy="Look at the inputs of the place named: a division by zero, the logarithm or root of "
    "0, an overflow of float16, weights that have exploded; torch.autograd.set_detect_anomaly "
    "finds the operation.",
)
def not_finite(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The batch, the weights, and what the module gives at real steps; -inf may be a mask."""
    subject = seen.subject
    for name, leaf in every_leaf(subject.arguments):
        array = subject.array(name) if name in subject.sequences else leaf
        if name in subject.sequences:
            array = array[torch.as_tensor(subject.valid)]
        count = _odd(array)
        if count:
            yield rule.finding(
                name, f"{count:,} numbers of {name} are NaN or infinite.", {"numbers": count}
            )
            return
    for name, weight in subject.module.named_parameters():
        count = _odd(weight)
        if count:
            yield rule.finding(
                name, f"{count:,} of {name}'s weights are NaN or infinite.", {"numbers": count}
            )
            return
    if unset(seen) is not None:
        raise Skip("it reads memory that nobody wrote (HS154)")
    # Rows without steps are asked by HS105.
    some = torch.as_tensor(subject.ends > 0)
    for output, array in zip(subject.outputs, subject.known):
        if output.batch_axis is not None and output.time_axis is not None:
            array = array.movedim((output.batch_axis, output.time_axis), (0, 1))
            array = array[torch.as_tensor(subject.valid[:, : array.shape[1]])]
        elif output.batch_axis is not None:
            array = array.movedim(output.batch_axis, 0)[some]
        count = _odd(array)
        if count:
            begins = _first_layer(seen)
            yield rule.finding(
                output.name,
                f"{count:,} of {output.name}'s numbers are NaN or infinite, from a batch and "
                f"weights that are not.{begins}",
                {"numbers": count},
            )
            return
    # A gate that reads -inf is just shut, and its weights' gradients are NaN.
    for layer in _traced(seen):
        count = int((~np.isfinite(layer.x[layer.valid])).sum())
        if count:
            yield rule.finding(
                layer.name,
                f"{count:,} of the numbers that {layer.name} reads are NaN or infinite, from a "
                "batch and weights that are not.",
                {"numbers": count},
            )
            return


def _odd(array: object) -> int:
    """Return how many numbers are NaN or +inf."""
    if not isinstance(array, Tensor):
        found = tensors(array)
        array = found[0][1] if found else None
    if not isinstance(array, Tensor) or not array.is_floating_point():
        return 0
    return int((array.isnan() | (array == torch.inf)).sum())


def _traced(seen: Examination) -> tuple[LayerTrace, ...]:
    try:
        return tuple(seen.trace.layers)
    except Skip:
        return ()


def _first_layer(seen: Examination) -> str:
    layers = _traced(seen)
    if not layers:
        return ""
    for layer in layers:
        if not np.isfinite(layer.states.h[layer.valid]).all():
            return f" The first layer with such states is {layer.name}."
    return " The states of the recurrent layers are finite."


def _ran(seen: Examination) -> list[Recurrent]:
    """Return own layers that know which kernel ran them."""
    module = seen.few.copy()
    seen.few.call(module)
    return [each for each in module.modules() if isinstance(each, Recurrent) and each.last_kernel]
