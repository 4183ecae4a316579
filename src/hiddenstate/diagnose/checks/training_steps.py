"""The steps of a training, beside gradients and weights: HS502 to HS505."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip
from hiddenstate.diagnose.watching.rules import (
    batches,
    later,
    norms_picture,
    of_training,
    rate,
    require_steps,
    share_fallen,
    updates_picture,
)
from hiddenstate.diagnose.watching.training import Training


@of_training(
    "HS502",
    "clipped-at-every-step",
    Severity.WARNING,
    asks="Does clipping touch outliers only?",
    because="When nearly every gradient is cut to one length, by much, its size says nothing any "
    "more: rare batches with a large error count no more than any other, and the limit decides the "
    "step and not the learning rate.",
    remedy="Raise the limit to about twice the median norm, or find out why gradients are that "
    "large: a loss summed where it should be averaged, or inputs and targets that are not scaled.",
    limits={"share_clipped": 0.99, "norm_over_limit": 10.0, "steps": 100},
)
def clipped_always(training: Training, rule: Rule) -> Iterator[Finding]:
    """The share of clipped steps in the later half, and by how much."""
    clipped, norms = training.each("clipped"), training.each("norm")
    if training.clip_norm is None or not math.isfinite(training.clip_norm):
        raise Skip("gradients are not clipped, or the limit is not known")
    require_steps(training, rule.limits["steps"])
    half = later(len(clipped))
    if not np.isfinite(norms[half]).any():
        raise Skip("gradient norms were not recorded")
    share, typical = float(np.nanmean(clipped[half])), float(np.nanmedian(norms[half]))
    over = typical / training.clip_norm
    if share >= rule.limits["share_clipped"] and over >= rule.limits["norm_over_limit"]:
        yield rule.finding(
            "gradient",
            f"{share:.0%} of the last steps were clipped: the median gradient norm is "
            f"{typical:.3g}, {over:.0f} times the limit of {training.clip_norm:g}.",
            {"share_clipped": share, "norm": typical, "limit": training.clip_norm},
            picture=norms_picture(training),
        )


@of_training(
    "HS503",
    "explodes-unclipped",
    Severity.WARNING,
    asks="Is the gradient free of explosions, or clipped where it has them?",
    because="Backpropagation through many steps multiplies Jacobians: now and then a gradient is "
    "hundreds of times as long as usual, and one such step undoes what hundreds have learnt "
    "(Pascanu, Mikolov, Bengio 2013).",
    remedy="Clip the gradient by its global norm before the optimiser's step, at about twice its "
    "median norm (torch.nn.utils.clip_grad_norm_, or train.clip_norm).",
    limits={"largest_over_usual": 50.0, "largest_over_first": 10.0, "steps": 100},
)
def explodes_unclipped(training: Training, rule: Rule) -> Iterator[Finding]:
    """The largest norm of a window that was not clipped, over the usual one."""
    norms, largest = training.each("norm"), training.each("largest_norm")
    if not np.isfinite(norms).any():
        raise Skip("gradient norms were not recorded")
    require_steps(training, rule.limits["steps"])
    # Beside its neighbours: the usual norm falls by orders of magnitude as a model learns.
    usual = np.fmax(norms, np.fmax(np.append(np.nan, norms[:-1]), np.append(norms[1:], np.nan)))
    bare = ~(training.each("clipped") > 0) & np.isfinite(largest) & (usual > 0)
    # And beside the first ones: a jump from next to nothing to little does no harm.
    bare &= largest >= rule.limits["largest_over_first"] * norms[0]
    over = np.divide(largest, usual, out=np.zeros_like(usual), where=bare)
    worst = int(over.argmax())
    if over[worst] >= rule.limits["largest_over_usual"]:
        window = training.windows[worst]
        yield rule.finding(
            "gradient",
            f"The gradient norm rose to {window.largest_norm:.3g} within the {window.steps} steps "
            f"up to step {window.last}, {over[worst]:,.0f} times its usual {usual[worst]:.3g} "
            "there, and was not clipped.",
            {"largest": window.largest_norm, "usual": usual[worst], "ratio": float(over[worst])},
            picture=norms_picture(training),
        )


@of_training(
    "HS504",
    "steps-too-large",
    Severity.WARNING,
    asks="Are the steps small beside the weights?",
    because="Steps that are as large as the weights replace what was learnt instead of improving "
    "it; the loss then stays high, or jumps about.",
    remedy="Lower the learning rate by a factor of three to ten until a step changes a weight "
    "matrix by a thousandth to a hundredth of its norm; warm up, and clip the gradient.",
    limits={"update": 0.15, "update_alone": 2.0, "loss_fell": 0.03, "steps": 50},
)
def steps_too_large(training: Training, rule: Rule) -> Iterator[Finding]:
    """The largest relative change of the weights in one step, with what it did to the loss."""
    updates = training.each("update")
    if not np.isfinite(updates).any():
        raise Skip("the changes of the weights were not measured")
    require_steps(training, rule.limits["steps"])
    largest = float(np.nanmax(updates))
    fell = share_fallen(training, "later")
    stuck = fell < rule.limits["loss_fell"]
    if largest >= rule.limits["update_alone"] or (stuck and largest >= rule.limits["update"]):
        scale = training.noise_scale
        went = ""
        if math.isfinite(fell):
            first, now = training.first_loss, training.windows[-1].loss
            went = f"; the loss was {first:.4g} before the first step and is {now:.4g} now"
        noisy = f"; the gradient's noise scale is {batches(scale)}" if scale == scale else ""
        yield rule.finding(
            "learning rate",
            f"One step changed a weight matrix by {largest:.1%} of its norm{rate(training)}"
            f"{went}{noisy}.",
            {"update": largest, "loss_fell": fell, "noise_scale": scale},
            picture=updates_picture(training),
        )


@of_training(
    "HS505",
    "steps-too-small",
    Severity.WARNING,
    asks="Are the steps large enough to learn in the time given?",
    because="All batches agree about the direction and the weights hardly move: most of the "
    "training is spent on the first bit of the way.",
    remedy="Raise the learning rate by factors of ten while the loss falls, until a step changes a "
    "weight matrix by about a thousandth of its norm; Adam finds that scale by itself where plain "
    "gradient descent does not.",
    limits={"update": 1e-4, "noise_scale": 20.0, "loss_fell": 0.1, "steps": 100},
)
def steps_too_small(training: Training, rule: Rule) -> Iterator[Finding]:
    """Weights that stand nearly still though the gradient says clearly where to go."""
    updates = training.each("update")
    if not np.isfinite(updates).any():
        raise Skip("the changes of the weights were not measured")
    require_steps(training, rule.limits["steps"])
    # The largest of all windows: at the end of a schedule small steps are meant.
    largest, scale = float(np.nanmax(updates)), training.noise_scale
    fell = share_fallen(training)
    limits = rule.limits
    if (
        0 < largest <= limits["update"]
        and scale <= limits["noise_scale"]
        and fell <= limits["loss_fell"]
    ):
        yield rule.finding(
            "learning rate",
            f"One step changes a weight matrix by {largest:.1g} of its norm at most, the loss has "
            f"fallen by {max(fell, 0):.1%} in {training.steps:,} steps, and the gradient is clear: "
            f"its noise scale is {batches(scale)}{rate(training)}.",
            {"update": largest, "loss_fell": fell, "noise_scale": scale},
            severity=Severity.NOTE if training.was_good else None,
            picture=updates_picture(training),
        )
