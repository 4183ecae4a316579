"""Parameters that training cannot move: HS431 and HS432."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hiddenstate.diagnose.checks.inputs import gradients
from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.drawn import is_default
from hiddenstate.diagnose.subject.calling import seeded

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS431",
    "parameters-frozen",
    Severity.NOTE,
    asks="Do all parameters ask for a gradient?",
    because="A parameter with requires_grad=False stays as it is through any training. That is "
    "meant for what was trained before; an embedding with the numbers that it was drawn with, and "
    "nothing else held, was frozen by mistake.",
    remedy="Set requires_grad_(True) on what is to be trained, before the optimiser is built.",
)
def frozen(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Parameters with requires_grad=False, by the module that holds them."""
    parameters = dict(seen.subject.module.named_parameters())
    count = sum(each.numel() for each in parameters.values())
    held = [name for name, each in parameters.items() if not each.requires_grad]
    as_drawn = {
        f"{name}.weight".lstrip(".")
        for name, each in seen.subject.module.named_modules()
        if isinstance(each, nn.Embedding) and is_default(each)
    }
    for place, names in _by_place(held, seen.subject.module).items():
        size = sum(parameters[name].numel() for name in names)
        yield rule.finding(
            place,
            f"{_listed(names)} {'is' if len(names) == 1 else 'are'} frozen: {size:,} of the "
            f"model's {count:,} parameters.",
            {"frozen": float(size), "of": float(count)},
            severity=Severity.WARNING if set(held) <= as_drawn else None,
        )


@rule(
    "HS432",
    "gradient-cut",
    Severity.WARNING,
    asks="Does the loss's gradient reach every parameter that the loss depends on?",
    because="The loss changes with these parameters, and no gradient comes back to them: they stay "
    "as they were drawn, and all that comes after has to live with it. Parameters on which the "
    "loss does not depend are named as a note, unless they are the recurrent weights of a layer "
    "that learns from its input: what is taken from it has read one step only.",
    remedy="Look between them and the loss for .detach(), torch.no_grad(), .data, .item(), "
    ".numpy(), argmax or rounding, and take it out. Where it is recurrent weights alone, give the "
    "layer all steps at once, and take its state where it has read them.",
    limits={"share of the loss": 1e-6},
)
def cut(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Parameters without a gradient, and whether the loss changes when they do."""
    if seen.subject.ends.max() < 2:
        raise Skip("in rows of one step recurrent weights get no gradient anyway")
    found = seen.known("gradients of parameters", lambda: gradients(seen))
    if not found:
        raise Skip("no parameter asks for a gradient")
    without = [name for name, each in found.items() if each is None or not each.any()]
    for place, names in _by_place(without, seen.subject.module).items():
        change = _change(seen, names)
        depends = change > rule.limits["share of the loss"]
        said = "the loss on this batch does not change with other numbers there"
        if depends:
            said = f"with other numbers there the loss changes by {change:.2g} of itself"
        if all(found[name] is not None for name in names):
            said += "; the graph is whole, and its slopes are 0 (units pressed flat, off or unread)"
        yield rule.finding(
            place,
            f"No gradient comes to {_listed(names)}; {said}.",
            {"parameters": float(len(names)), "share of the loss": change},
            severity=None if depends or _unread_states(names, found) else Severity.NOTE,
        )


def _unread_states(names: list[str], found: Mapping[str, Any]) -> bool:
    """Return whether a layer learns from its input, and nothing at all from its states."""
    for name in names:
        place, _, last = name.rpartition(".")
        ours = {"w_h": "w_x", "weight_hh": "weight_ih"}.get(last)
        own = ours or re.sub("^weight_hh_l", "weight_ih_l", last)
        other = found.get(f"{place}.{own}" if place else own) if own != last else None
        if other is not None and other.any():
            return True
    return False


def _by_place(names: list[str], module: nn.Module) -> dict[str, list[str]]:
    """Return full names of parameters by the module that holds them."""
    places: dict[str, list[str]] = {}
    for name in names:
        places.setdefault(name.rpartition(".")[0] or type(module).__name__, []).append(name)
    return places


def _listed(names: list[str]) -> str:
    return ", ".join(name.rpartition(".")[2] for name in names)


def _change(seen: Examination, names: list[str]) -> float:
    """Return how much the loss changes, as a share of it, with other numbers in some parameters."""
    assert seen.loss is not None
    costs = []
    for moved in (False, True):
        module = seen.subject.copy()
        generator = torch.Generator().manual_seed(seen.seed)
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if moved and name in names:
                    noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                    size = float(parameter.abs().mean())
                    parameter.add_((size or 0.1) * noise)
            raw = seen.subject.call(module, seed=seen.seed)
            with seeded(seen.seed, module):
                costs.append(float(seen.loss(raw)))
    return abs(costs[1] - costs[0]) / max(abs(costs[0]), 1e-12)
