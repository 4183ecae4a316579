"""The loss of a training, on its own data and others: HS501, HS506, HS507, HS510, HS511, HS516,
HS517."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip
from hiddenstate.diagnose.tracing.record import Floats
from hiddenstate.diagnose.watching.rules import (
    listed,
    losses_picture,
    of_training,
    require_steps,
    share_fallen,
)
from hiddenstate.diagnose.watching.training import Training


@of_training(
    "HS501",
    "not-finite",
    Severity.ERROR,
    asks="Are the loss and every gradient finite numbers?",
    because="One step with a gradient that is NaN or infinite writes NaN into the weights, and "
    "nothing is learnt from there on.",
    remedy="Where the gradient had grown before, clip it by its global norm and lower the learning "
    "rate. Where it had not, look for a division by zero, the logarithm or square root of 0, or "
    "NaN in the inputs of the step named.",
)
def not_finite(training: Training, rule: Rule) -> Iterator[Finding]:
    """The first step that gave no number, and where."""
    seen = training.unfinite
    if seen is None:
        return
    grew = ""
    if math.isfinite(seen.largest):
        grew = (
            f" The gradient norm before it was {seen.typical:.3g} in the middle and "
            f"{seen.largest:.3g} at most."
        )
    where = "loss"
    told = f"The loss became {seen.value} at step {seen.step}."
    if seen.what == "gradient":
        where = listed(seen.names) or "gradient"
        told = f"At step {seen.step} the loss was finite and the gradient was not, in {where}."
    yield rule.finding(where, told + grew, {"step": seen.step})


@of_training(
    "HS506",
    "loss-does-not-fall",
    Severity.WARNING,
    asks="Has the training loss fallen?",
    because="A loss that is no lower than before the first step says that nothing was learnt, not "
    "even which answers are common.",
    remedy="Train on one batch alone: if its loss does not fall either, look for targets that do "
    "not belong to their inputs, a graph that was cut (detach, no_grad), parameters the optimiser "
    "was not given, or a learning rate far too small or too large. Where training goes on from "
    "weights that are good already, this is a note.",
    limits={"loss_fell": 0.03, "spreads": 3.0, "steps": 200},
)
def loss_does_not_fall(training: Training, rule: Rule) -> Iterator[Finding]:
    """The best window against the first few steps."""
    require_steps(training, rule.limits["steps"])
    _own_loss(training)
    fell = share_fallen(training)
    if not math.isfinite(fell):
        raise Skip("the loss before the first step is not known")
    losses, spreads = training.each("loss"), training.each("spread")
    if np.nanmedian(spreads) > abs(training.first_loss):
        raise Skip("the loss swings about 0, as that of a policy does")
    # How far the mean of a window lies from the truth by chance.
    errors = spreads / np.sqrt(training.each("steps"))
    chance = rule.limits["spreads"] * float(np.nanmedian(errors))
    better = training.first_loss - float(np.nanmin(losses))
    # Somewhat higher than at first: another model may train against this one.
    opposed = 1.1 < losses[-1] / training.first_loss < 2.0 and training.answered is None
    if fell < rule.limits["loss_fell"] or better < chance:
        yield rule.finding(
            "loss",
            f"The loss was {training.first_loss:.4g} before the first step and is "
            f"{losses[-1]:.4g} after {training.steps:,} (at best {np.nanmin(losses):.4g}).",
            {"first": training.first_loss, "last": float(losses[-1]), "loss_fell": fell},
            severity=Severity.NOTE if training.was_good or opposed else None,
            picture=losses_picture(training),
        )


@of_training(
    "HS507",
    "loss-jumped",
    Severity.WARNING,
    asks="Does the loss keep what it has gained?",
    because="A loss that jumps up and stays there has lost what it had learnt: a step was too "
    "long, or a batch unlike all others came. One that comes back up again and again learns what "
    "it then unlearns.",
    remedy="Go back to the weights from before the jump, lower the learning rate, clip the "
    "gradient by its global norm, and look at the batch of that step. Where it comes back: shuffle "
    "the rows, and look what is made anew between the epochs.",
    limits={
        "gain": 0.03,
        "gain_lost": 0.5,
        "lost_at_once": 0.5,
        "spreads": 5.0,
        "steps": 100,
        "returns": 3,
        "returned": 0.25,
        "gain_before": 0.2,
    },
)
def loss_jumped(training: Training, rule: Rule) -> Iterator[Finding]:
    """What of the gain is lost again at the end, and whether most of that was lost at once."""
    require_steps(training, rule.limits["steps"])
    _own_loss(training)
    losses, spreads = training.each("loss"), training.each("spread")
    if len(losses) < 3 or not np.isfinite(losses).all():
        raise Skip("fewer than three windows of finite losses")
    best = int(losses.argmin())
    start = training.first_loss if math.isfinite(training.first_loss) else float(losses[0])
    least = rule.limits["gain_before"] * abs(start)
    returns = _returns(losses, start, rule.limits["returned"], least)
    if len(returns) >= rule.limits["returns"]:
        yield rule.finding(
            "loss",
            f"{len(returns)} times the loss came back up by more than "
            f"{rule.limits['returned']:.0%} of what had been gained, at steps "
            f"{', '.join(str(training.windows[k].last) for k in returns[:6])}.",
            {"returns": len(returns)},
            picture=losses_picture(training),
        )
        return
    if best >= len(losses) - 2:
        return
    # Of two windows, so that one batch unlike all others is no jump.
    gain, lost = start - float(losses[best]), float(losses[-2:].min() - losses[best])
    usual = float(np.nan_to_num(spreads[max(best - 1, 0) : best + 1]).max())
    # A data set that gets harder, or an opponent that gets better, moves it step by step.
    if (
        gain < rule.limits["gain"] * abs(start)
        or np.diff(losses[best:]).max() < rule.limits["lost_at_once"] * lost
    ):
        return
    if lost > rule.limits["gain_lost"] * gain and lost > rule.limits["spreads"] * usual:
        yield rule.finding(
            "loss",
            f"The loss fell from {start:.4g} to {losses[best]:.4g} at step "
            f"{training.windows[best].last}, and is {losses[-1]:.4g} now: {lost / gain:.0%} of "
            "what was gained is lost.",
            {"lost": lost / gain, "best": float(losses[best]), "last": float(losses[-1])},
            picture=losses_picture(training),
        )


def _returns(losses: Floats, start: float, share: float, least: float) -> list[int]:
    """Return the windows in which the loss stood so much of its gain above where it had been."""
    found = []
    best = low = start
    for k, loss in enumerate(losses.tolist()):
        best = min(best, loss)
        if start - best > least and loss - low > share * (start - best):
            found.append(k)
            low = loss
        low = min(low, loss)
    return found


@of_training(
    "HS516",
    "loss-without-end",
    Severity.WARNING,
    asks="Has the loss a floor?",
    because="A loss below 0 that falls faster and faster has no best value: most often it is one "
    "with its sign turned, and the model learns to be as wrong as it can.",
    remedy="Look at the sign of the loss, and of each of its terms: losses are minimised. A score "
    "or a likelihood to be made large gets a minus; a cross entropy or an error does not.",
    limits={"over_first": 5.0, "later_over_earlier": 0.5, "steps": 50},
)
def loss_without_end(training: Training, rule: Rule) -> Iterator[Finding]:
    """A loss that began below 0, has become many times as large, and does not slow down."""
    require_steps(training, rule.limits["steps"])
    losses, first = training.each("loss"), training.first_loss
    if not math.isfinite(first) or not np.isfinite(losses).all():
        raise Skip("not all of the losses are known")
    last, middle = float(losses[-1]), float(losses[(len(losses) - 1) // 2])
    if not first < 0 or last > rule.limits["over_first"] * min(first, -1.0):
        return
    if middle - last >= rule.limits["later_over_earlier"] * (first - middle):
        yield rule.finding(
            "loss",
            f"The loss began at {first:.4g}, was {middle:.4g} half way and is {last:.4g} after "
            f"{training.steps:,} steps: below 0, and still falling as fast.",
            {"first": first, "middle": middle, "last": last},
            picture=losses_picture(training),
        )


@of_training(
    "HS517",
    "no-better-than-constant",
    Severity.WARNING,
    asks="Does the model answer better than one constant would?",
    because="The best constant knows how often each answer comes and nothing else. A model that "
    "is no better, and gets no better, uses nothing of what it reads: its loss fell only because "
    "it learnt what is common.",
    remedy="See that each answer belongs to its input (no shuffling of one alone, no shift), that "
    "inputs reach the layers and gradients come back, that dropout and weight decay leave "
    "something to learn with, and that the learning rate is neither far too large nor too small.",
    limits={
        "share": 0.985,
        "still_falling": 0.04,
        "errors": 2.0,
        "positions": 100,
        "looks": 3,
        "steps": 150,
    },
)
def no_better_than_constant(training: Training, rule: Rule) -> Iterator[Finding]:
    """Both losses on the batches that were looked at in the later half."""
    require_steps(training, rule.limits["steps"])
    _own_loss(training)
    seen = training.answered
    if seen is None:
        raise Skip("the loss is neither a mean cross entropy nor a mean squared error")
    if seen.looks < rule.limits["looks"] or seen.positions < rule.limits["positions"]:
        raise Skip("too few answers were looked at")
    if not seen.loss >= rule.limits["share"] * seen.constant:
        return
    if _still_falls(training, rule.limits["still_falling"], rule.limits["errors"]):
        return
    yield rule.finding(
        "loss",
        f"On {seen.looks} batches of the later half the loss is {seen.loss:.4g}; one constant "
        f"answer would have {seen.constant:.4g}.",
        {"loss": seen.loss, "constant": seen.constant},
        picture=losses_picture(training),
    )


@of_training(
    "HS510",
    "validation-turned",
    Severity.WARNING,
    asks="Does the loss on held-back data fall as long as the training loss does?",
    because="From the turn on the model learns its training data by heart: every further epoch "
    "makes it worse on data that it has not seen.",
    remedy="Stop at the best epoch and keep its weights; then more data, dropout, weight decay or "
    "a smaller state.",
    limits={"gain_lost": 0.25, "wobbles": 3.0, "judged_after": 3},
)
def validation_turned(training: Training, rule: Rule) -> Iterator[Finding]:
    """The rise of the validation loss after its best, with the training loss still falling."""
    judged = [w for w in training.windows if math.isfinite(w.validation)]
    if len(judged) < rule.limits["judged_after"] + 2:
        raise Skip("the validation loss was told too rarely")
    held = np.array([w.validation for w in judged])
    own = np.array([w.loss for w in judged])
    best = int(held.argmin())
    after = held[best + 1 :]
    if len(after) < rule.limits["judged_after"]:
        return
    # The mean of the last few: one epoch says little.
    rise = float(np.median(after[-3:]) - held[best])
    gain = max(float(held[0] - held[best]), 1e-12)
    wobble = float(np.median(np.abs(np.diff(held))))
    turned = rise > rule.limits["gain_lost"] * gain and rise > rule.limits["wobbles"] * wobble
    if turned and own[-1] < own[best]:
        kept = " The weights of the best are kept." if training.keeps_best else ""
        yield rule.finding(
            "validation",
            f"The validation loss fell to {held[best]:.4g} at step {judged[best].last} and has "
            f"risen to {held[-1]:.4g} since, while the training loss fell from {own[best]:.4g} to "
            f"{own[-1]:.4g}.{kept}",
            {"best": float(held[best]), "last": float(held[-1]), "gain_lost": rise / gain},
            severity=Severity.NOTE if training.keeps_best else None,
            picture=losses_picture(training),
        )


@of_training(
    "HS511",
    "stopped-while-learning",
    Severity.WARNING,
    asks="Had the model stopped learning when its training ended?",
    because="A loss that still falls at a good pace in the last epochs says that there was more to "
    "learn: the model is worse than its data and its size allow.",
    remedy="More epochs, or a larger learning rate that falls towards the end (warm-up and cosine, "
    "the default of `hiddenstate fit`), and stop by the validation loss, not by a count.",
    limits={"share_of_loss": 0.015, "share_of_gain": 0.01, "windows": 5},
)
def stopped_while_learning(training: Training, rule: Rule) -> Iterator[Finding]:
    """How far the loss fell in the last fifth of the training."""
    if not training.finished:
        raise Skip("the training has not ended")
    losses, which = training.each("validation"), "validation"
    if not np.isfinite(losses).any():
        losses, which = training.each("loss"), "training"
    losses = losses[np.isfinite(losses)]
    if len(losses) < rule.limits["windows"]:
        raise Skip(f"fewer than {rule.limits['windows']:.0f} epochs were judged")
    fifth = len(losses) // 5
    before = float(np.median(losses[-2 * fifth : -fifth]))
    now = float(np.median(losses[-fifth:]))
    fell, gain = before - now, float(losses[0] - losses.min())
    limits = rule.limits
    if (
        int(losses.argmin()) >= len(losses) - fifth
        and fell > limits["share_of_loss"] * abs(now)
        and fell > limits["share_of_gain"] * gain
    ):
        yield rule.finding(
            which,
            f"The {which} loss still fell from {before:.4g} to {now:.4g} in the last {fifth} of "
            f"{len(losses)} epochs, by {fell / abs(now):.1%}, and was lowest at the end.",
            {"before": before, "now": now},
            picture=losses_picture(training),
        )


def _still_falls(training: Training, share: float, errors: float) -> bool:
    """Return whether the loss falls after the first quarter, by a share of it and no chance."""
    first = len(training.windows) // 4
    losses, steps = training.each("loss")[first:], training.each("last")[first:]
    # Batches unlike all others say nothing about the way it goes.
    usual = np.abs(losses) <= 3 * np.nanpercentile(np.abs(losses), 25)
    losses, steps = losses[usual], steps[usual]
    if len(losses) < 4:
        raise Skip("too few windows to see where the loss goes")
    apart = steps - steps.mean()
    slope = float((apart * losses).sum() / np.square(apart).sum())
    left = losses - losses.mean() - slope * apart
    error = np.sqrt(np.square(left).sum() / (len(losses) - 2) / np.square(apart).sum())
    fallen = -slope * (steps[-1] - steps[0])
    return bool(-slope > errors * error and fallen > share * np.abs(losses).mean())


def _own_loss(training: Training) -> None:
    """Raise Skip where a loss need not fall as the module is trained."""
    if training.shared_by:
        raise Skip(f"the loss is not this module's alone: {training.shared_by}")
