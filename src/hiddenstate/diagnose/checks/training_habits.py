"""What a training loop leaves out or does too often: HS512 to HS515, HS518, HS519."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip
from hiddenstate.diagnose.watching.rules import later, listed, of_training, require_steps
from hiddenstate.diagnose.watching.training import Training


@of_training(
    "HS512",
    "gradients-not-cleared",
    Severity.ERROR,
    asks="Are the gradients cleared between the steps?",
    because="Each backward pass adds to what is there. Without zero_grad every step follows the "
    "sum of all gradients since the training began, most of them from weights that are long gone.",
    remedy="Call optimiser.zero_grad() once for each step, before backward; see that it is the "
    "optimiser of this model's own parameters.",
    limits={"steps": 8},
)
def not_cleared(training: Training, rule: Rule) -> Iterator[Finding]:
    """Steps at which a gradient was there before the first backward pass, in a few parameters."""
    seen = training.added
    if seen is None or seen.steps < rule.limits["steps"]:
        raise Skip("too few backward passes were looked at")
    if not seen.cleared:
        yield rule.finding(
            "gradient",
            f"At all {seen.steps} steps that were looked at the gradient of the step before was "
            "still there when backward added the new one.",
            {"steps": seen.steps},
        )


@of_training(
    "HS513",
    "rate-gone",
    Severity.WARNING,
    asks="Does the schedule last as long as the training?",
    because="Where the learning rate has come down to nothing, all steps that follow are computed "
    "and change nothing.",
    remedy="Give the schedule as many steps as the training has, and see whether it counts steps "
    "or epochs: a scheduler that is meant for epochs, stepped after every batch, is at its end "
    "after a few of them.",
    limits={"share_of_highest": 1e-5, "share_of_steps": 0.2, "windows": 3},
)
def rate_gone(training: Training, rule: Rule) -> Iterator[Finding]:
    """The windows at the end whose learning rate is nothing beside the highest."""
    rates, steps = training.each("learning_rate"), training.each("steps")
    highest = float(np.fmax.reduce([0.0, training.highest_rate, *rates]))
    if not np.isfinite(rates).any() or highest == 0:
        raise Skip("the learning rate is not known, or was 0 throughout")
    alive = np.flatnonzero(~(rates <= rule.limits["share_of_highest"] * highest))
    idle = slice(int(alive[-1]) + 1 if len(alive) else 0, None)
    share = float(steps[idle].sum() / steps.sum())
    if len(rates[idle]) >= rule.limits["windows"] and share >= rule.limits["share_of_steps"]:
        yield rule.finding(
            "learning rate",
            f"The learning rate was {highest:.3g} at most and is {rates[-1]:.2g} for the "
            f"last {int(steps[idle].sum()):,} of {training.steps:,} steps.",
            {"share_of_steps": share, "highest": highest},
        )


@of_training(
    "HS514",
    "trained-in-eval-mode",
    Severity.WARNING,
    asks="Is the model in training mode while it trains?",
    because="In eval mode dropout drops nothing and batch norm keeps its old statistics: the model "
    "is trained without what was put in against learning by heart, and nobody is told.",
    remedy="Call model.train() after every validation, and before the first step.",
    limits={"share_of_steps": 0.5, "steps": 20},
)
def in_eval_mode(training: Training, rule: Rule) -> Iterator[Finding]:
    """The share of the later half's steps that the module was in eval mode."""
    if not training.noisy:
        raise Skip("nothing in it acts otherwise in training mode")
    require_steps(training, rule.limits["steps"])
    half = later(len(training.windows))
    shares, steps = training.each("evaluating")[half], training.each("steps")[half]
    if not np.isfinite(shares).all():
        raise Skip("the mode was not looked at")
    share = float((shares * steps).sum() / steps.sum())
    if share >= rule.limits["share_of_steps"]:
        yield rule.finding(
            listed(training.noisy),
            f"At {share:.0%} of the last {int(steps.sum()):,} steps the module was in eval mode, "
            f"in which {listed(training.noisy)} do nothing.",
            {"share_of_steps": share},
        )


@of_training(
    "HS515",
    "weights-shrunk",
    Severity.WARNING,
    asks="Does weight decay leave the weights a usual size?",
    because="Weights grow as they learn. Where they become a fraction of what was drawn, decay "
    "pulls harder than the loss: the recurrent weights let nothing through any more, and the "
    "model ends as a constant.",
    remedy="Lower weight_decay by factors of ten (0.01 is usual for AdamW; in Adam and plain "
    "descent it is added to the gradient, where 1e-4 is much already), and leave biases and "
    "embeddings out.",
    limits={"size": 0.3, "lost_a_step": 0.01, "steps": 50},
)
def weights_shrunk(training: Training, rule: Rule) -> Iterator[Finding]:
    """Size of the weights over that at the first step, and what decay takes off in one step."""
    require_steps(training, rule.limits["steps"])
    if training.decay >= rule.limits["lost_a_step"]:
        yield rule.finding(
            "weights",
            f"Weight decay takes {training.decay:.1%} off every weight in one step (its rate times "
            f"the learning rate): nothing lasts longer than {1 / training.decay:.0f} steps.",
            {"lost_a_step": training.decay},
        )
        return
    sizes = training.each("size")
    sizes = sizes[np.isfinite(sizes)]
    if not len(sizes):
        raise Skip("the weights were not measured")
    if training.was_good:
        raise Skip("the weights were trained before")
    if sizes[-1] < rule.limits["size"]:
        yield rule.finding(
            "weights",
            f"The weight matrices have {sizes[-1]:.1%} of the norm that they had at the first "
            f"step, {training.steps:,} steps ago, in the middle.",
            {"size": float(sizes[-1])},
        )


@of_training(
    "HS518",
    "batches-added",
    Severity.NOTE,
    asks="Is the loss of each batch divided where several are added up in one step?",
    because="Gradients of several backward passes are added. Where each loss is the mean of its "
    "own batch the step is as many times as long, and clipping at the same norm cuts as much more.",
    remedy="Divide each loss by the number of batches to a step before backward; a sum of "
    "different losses is none of this.",
    limits={"passes": 2, "sure": 3},
)
def batches_added(training: Training, rule: Rule) -> Iterator[Finding]:
    """Backward passes to a step, and the weight that the loss had in one."""
    seen, answered = training.added, training.answered
    if seen is None or seen.passes < rule.limits["passes"] or not seen.cleared or seen.thrown:
        return
    weight = math.nan if answered is None else answered.weight
    if weight < 0.9:
        return
    told = ", each with its whole weight" if math.isfinite(weight) else ""
    sure = bool(told) and seen.passes >= rule.limits["sure"]
    yield rule.finding(
        "gradient",
        f"The gradients of {seen.passes:.0f} backward passes are added up before each step{told}.",
        {"passes": seen.passes, "weight": weight},
        severity=Severity.WARNING if sure else None,
    )


@of_training(
    "HS519",
    "dropout-too-strong",
    Severity.WARNING,
    asks="Does dropout leave something to learn from?",
    because="With nine numbers of ten dropped each step sees another, nearly empty model: what it "
    "learns is what the answers are on average.",
    remedy="Drop 0.1 to 0.5. Where a share to keep was meant, the library's argument is the share "
    "to drop.",
    limits={"share": 0.9, "share_if_stuck": 0.7, "of_constant": 0.9, "steps": 50},
)
def dropout_too_strong(training: Training, rule: Rule) -> Iterator[Finding]:
    """The largest share that is dropped, and whether the model is better than a constant."""
    require_steps(training, rule.limits["steps"])
    seen, share = training.answered, training.dropout
    stuck = seen is not None and seen.loss >= rule.limits["of_constant"] * seen.constant
    if share >= rule.limits["share"] or (stuck and share >= rule.limits["share_if_stuck"]):
        yield rule.finding(
            "dropout", f"{share:.0%} of the numbers are dropped in training.", {"share": share}
        )
