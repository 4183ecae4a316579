"""What the reader of a trace has to know, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from hiddenstate.diagnose.tracing.observe import hides_layers
from hiddenstate.diagnose.tracing.record import LayerTrace
from hiddenstate.diagnose.tracing.sequences import Run
from hiddenstate.nn import Recurrent

# By how much, of the largest |h| or of 1, a trace may differ from the layer's own output by type.
ROUNDING = {"float64": 1e-9, "float32": 1e-4}
# And where the layer computed in 16 bits, or on a GPU, which may round products to TF32.
NARROW_ROUNDING, TF32_ROUNDING = 0.1, 1e-2


def about_module(module: nn.Module, *, training: bool) -> Iterator[str]:
    """Yield what is known before the module runs."""
    if not training and any(each.training for each in module.modules()):
        yield "It ran in evaluation mode; the module is in training mode."
    for name, each in module.named_modules():
        if isinstance(each, torch.jit.ScriptModule) and "." not in name:
            yield f"{name} is compiled by TorchScript: what is recurrent in it is not seen."
        if hasattr(each, "_orig_mod") or getattr(each, "_compiled_call_impl", None):
            yield (
                f"{name or 'The module'} is compiled by torch.compile and ran eagerly: its output "
                "may differ from the compiled one in the last bits."
            )


def about_calls(name: str, run: Run, layers: Sequence[LayerTrace], *, asked: bool) -> Iterator[str]:
    """Yield what is to be said about one sequence of a module; asked: gradients were."""
    module, call = run.calls[0].module, run.calls[0]
    kind = str(layers[0].x.dtype)
    if call.narrow:
        yield f"{name} computed in {call.narrow}, its trace is in {kind}."
    if call.device != "cpu" and call.steps is None:
        yield f"{name} ran on {call.device}, its trace on the processor."
    if hides_layers(module):
        yield (
            f"{name} drops features between its layers in training mode, which cannot be seen from "
            "outside: only its first layer is traced, without gradients."
        )
    if isinstance(module, Recurrent) and module.zoneout:
        yield f"{name} has zoneout: a state is what the gates make of it, mixed with the old one."
    if run.changed:
        worst = max(run.changed, key=lambda step: run.changed[step])
        yield (
            f"{name} got a state at {len(run.changed)} of {len(run.calls)} steps that is not the "
            f"one it gave at the step before: the module changes it on its way, by up to "
            f"{run.changed[worst]:.2g} at step {worst}."
        )
    allowed = ROUNDING[kind]
    if call.narrow:
        allowed = NARROW_ROUNDING
    elif kind == "float32" and call.device != "cpu":
        allowed = TF32_ROUNDING
    for layer in layers:
        scale = max(1.0, float(np.abs(layer.states.h).max(initial=0.0)))
        if not layer.difference <= allowed * scale:  # NaN is a difference
            yield (
                f"{layer.name} gave an h that differs from its trace by up to "
                f"{layer.difference:.2g}: it does not compute what its weights say."
            )
    if not asked or hides_layers(module):
        return
    if any(layer.gradients is None for layer in layers):
        yield f"{name} has no gradients: it ran where torch records none (torch.no_grad)."
    elif not any(each.gradients for each in run.calls):
        yield f"The loss does not depend on {name}."
