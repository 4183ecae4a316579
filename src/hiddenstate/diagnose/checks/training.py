"""Rules about a training, while it runs or from what it has recorded: HS5xx."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hiddenstate.diagnose.finding import (
    Finding,
    Nothing,
    Picture,
    Rule,
    Severity,
    Skip,
    rule,
)
from hiddenstate.diagnose.training import Training

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

Ask = Callable[[Training, Rule], Iterable[Finding]]

WATCHED: dict[str, Ask] = {}
"""What a training alone can be asked, by the rule's code."""

SHOWN = 4


def of_training(
    code: str,
    name: str,
    severity: Severity,
    *,
    asks: str,
    because: str,
    remedy: str,
    limits: Mapping[str, float] = Nothing,
) -> Callable[[Ask], Rule]:
    """Enter a rule that is asked of a Training, by `examine` or while it goes on."""

    def enter(ask: Ask) -> Rule:
        def check(seen: Examination, rule: Rule) -> Iterable[Finding]:
            if seen.training is None:
                raise Skip("no training was watched")
            return ask(seen.training, rule)

        WATCHED[code] = ask
        words = {"asks": asks, "because": because, "remedy": remedy}
        return rule(code, name, severity, **words, limits=limits)(check)

    return enter


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
        where = _names(seen.names) or "gradient"
        told = f"At step {seen.step} the loss was finite and the gradient was not, in {where}."
    yield rule.finding(where, told + grew, {"step": seen.step})


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
    _enough(training, rule.limits["steps"])
    half = _later(len(clipped))
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
            picture=_norms(training),
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
    _enough(training, rule.limits["steps"])
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
            picture=_norms(training),
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
    _enough(training, rule.limits["steps"])
    largest = float(np.nanmax(updates))
    fell, known = _fell(training, "later")
    stuck = known and fell < rule.limits["loss_fell"]
    if largest >= rule.limits["update_alone"] or (stuck and largest >= rule.limits["update"]):
        scale = training.noise_scale
        went = ""
        if known:
            first, now = training.first_loss, training.windows[-1].loss
            went = f"; the loss was {first:.4g} before the first step and is {now:.4g} now"
        noisy = f"; the gradient's noise scale is {_batches(scale)}" if scale == scale else ""
        yield rule.finding(
            "learning rate",
            f"One step changed a weight matrix by {largest:.1%} of its norm{_rate(training)}"
            f"{went}{noisy}.",
            {"update": largest, "loss_fell": fell, "noise_scale": scale},
            picture=_updates(training),
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
    _enough(training, rule.limits["steps"])
    # The largest of all windows: at the end of a schedule small steps are meant.
    largest, scale = float(np.nanmax(updates)), training.noise_scale
    fell, known = _fell(training)
    limits = rule.limits
    if (
        0 < largest <= limits["update"]
        and scale <= limits["noise_scale"]
        and known
        and fell <= limits["loss_fell"]
    ):
        yield rule.finding(
            "learning rate",
            f"One step changes a weight matrix by {largest:.1g} of its norm at most, the loss has "
            f"fallen by {max(fell, 0):.1%} in {training.steps:,} steps, and the gradient is clear: "
            f"its noise scale is {_batches(scale)}{_rate(training)}.",
            {"update": largest, "loss_fell": fell, "noise_scale": scale},
            picture=_updates(training),
        )


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
    "weights that are good already, ignore this.",
    limits={"loss_fell": 0.03, "spreads": 3.0, "steps": 200},
)
def loss_does_not_fall(training: Training, rule: Rule) -> Iterator[Finding]:
    """The best window against the first few steps."""
    _enough(training, rule.limits["steps"])
    fell, known = _fell(training)
    if not known:
        raise Skip("the loss before the first step is not known")
    losses = training.each("loss")
    # How far the mean of a window lies from the truth by chance.
    errors = training.each("spread") / np.sqrt(training.each("steps"))
    chance = rule.limits["spreads"] * float(np.nanmedian(errors))
    better = training.first_loss - float(np.nanmin(losses))
    if fell < rule.limits["loss_fell"] or better < chance:
        yield rule.finding(
            "loss",
            f"The loss was {training.first_loss:.4g} before the first step and is "
            f"{losses[-1]:.4g} after {training.steps:,} (at best {np.nanmin(losses):.4g}).",
            {"first": training.first_loss, "last": float(losses[-1]), "loss_fell": fell},
            picture=_losses(training),
        )


@of_training(
    "HS507",
    "loss-jumped",
    Severity.WARNING,
    asks="Does the loss keep what it has gained?",
    because="A loss that jumps up and stays there has lost what it had learnt: a step was too "
    "long, or a batch unlike all others came.",
    remedy="Go back to the weights from before the jump, lower the learning rate, clip the "
    "gradient by its global norm, and look at the batch of that step.",
    limits={"gain_lost": 0.5, "spreads": 5.0, "steps": 100},
)
def loss_jumped(training: Training, rule: Rule) -> Iterator[Finding]:
    """What of the gain is lost again at the end."""
    _enough(training, rule.limits["steps"])
    losses, spreads = training.each("loss"), training.each("spread")
    if len(losses) < 3 or not np.isfinite(losses).all():
        raise Skip("fewer than three windows of finite losses")
    best = int(losses.argmin())
    start = training.first_loss if math.isfinite(training.first_loss) else float(losses[0])
    if best >= len(losses) - 2:
        return
    # Of two windows, so that one batch unlike all others is no jump.
    gain, lost = start - float(losses[best]), float(losses[-2:].min() - losses[best])
    usual = float(np.nan_to_num(spreads[max(best - 1, 0) : best + 1]).max())
    if gain <= 0:
        return
    if lost > rule.limits["gain_lost"] * gain and lost > rule.limits["spreads"] * usual:
        yield rule.finding(
            "loss",
            f"The loss fell from {start:.4g} to {losses[best]:.4g} at step "
            f"{training.windows[best].last}, and is {losses[-1]:.4g} now: {lost / gain:.0%} of "
            "what was gained is lost.",
            {"lost": lost / gain, "best": float(losses[best]), "last": float(losses[-1])},
            picture=_losses(training),
        )


@of_training(
    "HS508",
    "embedding-rows-never-trained",
    Severity.WARNING,
    asks="Has training read every row of the embeddings?",
    because="A row that no training example reads keeps its random start: a symbol that meets it "
    "in use is answered by noise, and the table is larger than need be.",
    remedy="Build the vocabulary from the training data and map everything else to one unknown "
    "symbol that training sees; check that symbols are coded from 0 without gaps.",
    limits={"share_unread": 0.25, "rows_unread": 3, "still_growing": 0.02},
)
def embedding_rows(training: Training, rule: Rule) -> Iterator[Finding]:
    """Rows without a reader, once no new ones are being read."""
    if training.embeddings is None:
        raise Skip("the rows that training has read were not recorded")
    if not training.embeddings:
        raise Skip("no embedding is trained")
    for name, rows in training.embeddings.items():
        left = rows.rows - rows.read
        if rows.read - rows.earlier > rule.limits["still_growing"] * rows.rows:
            continue
        if left >= max(rule.limits["rows_unread"], rule.limits["share_unread"] * rows.rows):
            yield rule.finding(
                name,
                f"{left:,} of the {rows.rows:,} rows of {name} were never read in "
                f"{training.steps:,} steps, and in the later half hardly a new one was "
                f"({rows.read - rows.earlier}).",
                {"rows": rows.rows, "unread": left, "share": left / rows.rows},
            )


@of_training(
    "HS509",
    "parameters-never-move",
    Severity.ERROR,
    asks="Does every parameter that can be trained move?",
    because="What does not move keeps its random start: that part of the model learns nothing, "
    "and says nothing about it.",
    remedy="Give all parameters to the optimiser after the last of them is made; let the loss "
    "reach them (no detach, .data, no_grad or numpy on the way); set requires_grad to False where "
    "standing still is meant.",
    limits={"windows": 3},
)
def never_move(training: Training, rule: Rule) -> Iterator[Finding]:
    """Parameters that are the same to the last bit, by the reason."""
    if training.motionless is None:
        raise Skip("the movement of the parameters was not recorded")
    if len(training.windows) < rule.limits["windows"]:
        raise Skip(f"fewer than {rule.limits['windows']:.0f} windows were seen")
    reasons: dict[str, list[str]] = {}
    for name, reason in training.motionless.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        yield rule.finding(
            _names(names),
            f"{_names(names)} did not change at all in {training.steps:,} steps: {reason}.",
            {"parameters": len(names)},
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
            picture=_losses(training),
        )


def _enough(training: Training, steps: float) -> None:
    if training.steps < steps or len(training.windows) < 2:
        raise Skip(f"fewer than {steps:.0f} steps were seen")


def _later(count: int) -> slice:
    return slice(count // 2, None)


def _fell(training: Training, part: Literal["all", "later"] = "all") -> tuple[float, bool]:
    """Return the share of the first loss that is gone at the best window, and if that is known.

    part: of the windows; the later half says what is left of it at the end
    """
    first, losses = training.first_loss, training.each("loss")
    losses = losses[_later(len(losses))] if part == "later" else losses
    if not math.isfinite(first) or not np.isfinite(losses).any() or first == 0:
        return math.nan, False
    return float(first - np.nanmin(losses)) / abs(first), True


def _names(names: Iterable[str]) -> str:
    known = list(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more


def _batches(scale: float) -> str:
    return "beyond what could be measured" if math.isinf(scale) else f"{scale:.3g} batches"


def _rate(training: Training) -> str:
    rates = training.each("learning_rate")
    if not np.isfinite(rates).any():
        return ""
    return f" (learning rate {np.nanmax(rates):.3g})"


def _places(training: Training) -> NDArray[np.float64]:
    return training.each("last")


def _norms(training: Training) -> Picture:
    series = {"median": training.each("norm"), "largest": training.each("largest_norm")}
    if training.clip_norm is not None and math.isfinite(training.clip_norm):
        series["limit"] = np.full(len(training.windows), training.clip_norm)
    return Picture(
        "lines",
        "Gradient norm before clipping",
        "step",
        "global norm",
        series,
        _places(training),
        log_y=True,
    )


def _losses(training: Training) -> Picture:
    series = {"training": training.each("loss")}
    if np.isfinite(held := training.each("validation")).any():
        series["validation"] = held
    return Picture("lines", "Loss", "step", "loss", series, _places(training))


def _updates(training: Training) -> Picture:
    names = sorted({name for window in training.windows for name in window.updates})
    series = {
        name: np.array([window.updates.get(name, np.nan) for window in training.windows])
        for name in names
    }
    title = "Change of the weights in one step, over their norm"
    places = _places(training)
    return Picture("lines", title, "step", "share", series, places, log_y=True)
