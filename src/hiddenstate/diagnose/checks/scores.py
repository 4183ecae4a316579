"""Rules about the scores of a fitted run, by length and beside its floors: HS601 to HS605."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.report.score_pictures import by_length, calibration_by_length
from hiddenstate.diagnose.run import Bucket, Run, Scored, Value

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

# Fewer independent cases give an interval too narrow to believe.
FEWEST_CASES = 10
# Of the expected calibration error (`tasks.score`).
BINS = 15


@rule(
    "HS601",
    "worse-than-its-floor",
    Severity.WARNING,
    asks="Is the model better than what costs nothing?",
    because="A count of what usually follows, or the last value repeated, needs no training: a "
    "model that is worse has not learnt what the data say plainly.",
    remedy="Train longer or with a larger learning rate, take a larger state, see that the inputs "
    "the floor uses are inputs of the model too; where it stays so, use the floor.",
    limits={"behind": 0.03, "surely": 0.01, "cases": 200},
)
def worse_than_floor(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The verdicts of the paired bootstrap, and the simplest floor of all.

    Behind by a small share of what the floor gains over the simplest one, it is a note.
    """
    for scored in _judged(_run(seen)):
        simplest, floor = next(iter(scored.floors.items()), None), scored.best_floor
        if scored.worse and floor is not None:
            gain = scored.better(floor[1].value, _simplest(scored.floors))
            behind = scored.better(floor[1].value, scored.model.value)
            limits = rule.limits
            little = gain > 0 and (
                behind < limits["behind"] * gain or scored.surely < limits["surely"] * gain
            )
            yield rule.finding(
                scored.task,
                " ".join(scored.worse),
                {"model": scored.model.value, "floor": floor[1].value},
                severity=Severity.NOTE if little else None,
                picture=by_length(scored),
            )
        elif simplest is not None and _nothing_gained(scored, simplest[1], rule):
            name, value = simplest
            yield rule.finding(
                scored.task,
                f"On the {scored.part} part its {scored.metric} is {scored.model.value:.4g}, not "
                f"surely better than {value.value:.4g} of the simplest floor, {name}: next to "
                "nothing was learnt.",
                {"model": scored.model.value, "floor": value.value},
                picture=by_length(scored),
            )
        elif scored.also_worse:
            told = " ".join(scored.also_worse)
            yield rule.finding(scored.task, told, severity=Severity.NOTE)


@rule(
    "HS602",
    "worse-at-some-lengths",
    Severity.WARNING,
    asks="Is the model better than its floors at every length?",
    because="A score over all lengths hides where the memory ends: short histories outweigh long "
    "ones, and at those a model may be worse than a count of the last few events.",
    remedy="Where it is behind at long lengths, let gradients and memory reach that far: "
    "init='chrono', an LSTM or GRU in the place of an Elman cell, a longer window; see HS2 for the "
    "horizon. Where it is behind at short ones, give it more of them.",
    limits={"share_of_events": 0.05, "events": 50},
)
def worse_at_lengths(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Ranges of lengths in which the intervals of model and best floor lie apart."""
    for scored in _judged(_run(seen)):
        if scored.worse or not scored.compared:
            continue
        behind = []
        for each in scored.lengths:
            names = [n for n in scored.compared if n in each.floors]
            worse = [
                n
                for n in names
                if each.model.apart(each.floors[n])
                and scored.better(each.model.value, each.floors[n].value) < 0
            ]
            if worse and each.events >= rule.limits["events"]:
                behind.append((each, worse[0]))
        events = sum(each.events for each, _ in behind)
        if behind and events >= rule.limits["share_of_events"] * scored.events:
            worst, floor = max(
                behind,
                key=lambda pair: scored.better(pair[0].floors[pair[1]].value, pair[0].model.value),
            )
            labels = ", ".join(each.label for each, _ in behind)
            yield rule.finding(
                f"{scored.task}, {scored.by} {labels}",
                f"At {scored.by} {worst.label} its {scored.metric} is {worst.model.value:.4g} "
                f"against {worst.floors[floor].value:.4g} of the {floor}; over all "
                f"lengths it is {scored.model.value:.4g}.",
                {"model": worst.model.value, "floor": worst.floors[floor].value},
                picture=by_length(scored),
            )


@rule(
    "HS603",
    "overfits",
    Severity.WARNING,
    asks="Does what was learnt hold on data that the model has not seen?",
    because="Most of what the model knows beyond the simplest guess is true of its training data "
    "alone: it was learnt by heart, or the data have changed since.",
    remedy="More training data, dropout, weight decay, a smaller state, fewer epochs (keep the "
    "best validation loss); where test data are later than training data, weight recent cases and "
    "fit again often.",
    limits={"lost": 0.5, "lost_at_a_length": 0.7, "events": 200},
)
def overfits(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The share of the gain over the simplest floor in training that is not there on other data."""
    for own, held in _both(_run(seen)):
        lost = _lost(held, own.model.value, held.model.value, _simplest(held.floors))
        apart = own.model.apart(held.model)
        places = []
        for one, other in _paired(own, held):
            if min(one.events, other.events) < rule.limits["events"]:
                continue
            here = _lost(held, one.model.value, other.model.value, _simplest(other.floors))
            if here >= rule.limits["lost_at_a_length"] and one.model.apart(other.model):
                places.append((other.label, here))
        if not (apart and lost >= rule.limits["lost"]) and not places:
            continue
        at = ""
        if places:
            at = f"; worst at {held.by} {max(places, key=lambda each: each[1])[0]}"
        yield rule.finding(
            held.task,
            f"Its {held.metric} is {own.model.value:.4g} on the training part and "
            f"{held.model.value:.4g} on the {held.part} part: {lost:.0%} of what it gains over "
            f"the simplest floor is lost{at}.",
            {"training": own.model.value, "held_back": held.model.value, "lost": lost},
            picture=by_length(held, own),
        )


@rule(
    "HS604",
    "underfits",
    Severity.WARNING,
    asks="Has the model learnt at least what its training data say plainly?",
    because="On the very data it was trained on it is worse than a simple floor is on data that "
    "floor has never seen: it was not trained enough, or cannot hold what is needed.",
    remedy="More epochs, a larger learning rate, a larger state, less dropout; see HS2 and HS3 "
    "for memory that fades or gates that are stuck.",
    limits={"behind": 0.2},
)
def underfits(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The training score against what the best floor gains over the simplest on other data."""
    for own, held in _both(_run(seen)):
        floor = held.best_floor
        if floor is None:
            continue
        name, value = floor
        behind = held.better(value.value, own.model.value)
        gain = held.better(value.value, _simplest(held.floors))
        if own.model.apart(value) and behind > rule.limits["behind"] * max(gain, 0.0):
            yield rule.finding(
                held.task,
                f"On its own training part its {held.metric} is {own.model.value:.4g}; the "
                f"{name} has {value.value:.4g} on the {held.part} part, and the simplest floor "
                f"{_simplest(held.floors):.4g}.",
                {"training": own.model.value, "floor": value.value},
                picture=by_length(held, own),
            )


@rule(
    "HS605",
    "badly-calibrated",
    Severity.WARNING,
    asks="Do things happen as often as the model says?",
    because="A probability that does not mean what it says cannot be weighed against a cost: "
    "alarms come too often or too late.",
    remedy="Where it is surer than it is right: stop earlier (keep the best validation loss), "
    "regularise, smooth the labels a little. Where it is right more often than it says: train "
    "longer, with a larger learning rate or less dropout. What is left: scale the logits by one "
    "number fitted on validation data (Guo et al. 2017).",
    limits={"error": 0.1, "surely": 0.05, "events": 300},
)
def badly_calibrated(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Expected calibration error, or what falls inside an interval, over all and by length."""
    asked = False
    for scored in _judged(_run(seen)):
        every = Bucket("all", 0, None, scored.events, scored.model, {}, scored.calibration)
        if not math.isfinite(every.calibration.value):
            continue
        asked = True
        off = [each for each in (every, *scored.lengths) if _off(scored, each, rule)]
        if not off:
            continue
        worst = max(off, key=lambda each: _error(scored, each)[0])
        where = "over all lengths" if worst is every else f"at {scored.by} {worst.label}"
        if scored.nominal is None:
            told = (
                f"What it says and what happens differ by {worst.calibration.value:.1%} on "
                f"average {where} (expected calibration error), where chance alone makes "
                f"{_by_chance(worst.events):.1%}.{_sure(_run(seen), worst)}"
            )
        else:
            told = (
                f"{worst.calibration.value:.1%} of the truths lie inside an interval that should "
                f"hold {scored.nominal:.0%}, {where}."
            )
        error = _error(scored, worst)[0]
        yield rule.finding(
            scored.task, told, {"error": error}, picture=calibration_by_length(scored)
        )
    if not asked:
        raise Skip("it says neither probabilities of classes nor intervals")


def _nothing_gained(scored: Scored, floor: Value, rule: Rule) -> bool:
    """Return whether the model is no better than a floor, or many cases cannot tell."""
    if not math.isfinite(floor.value):
        return False
    if scored.better(scored.model.value, floor.value) <= 0:
        return True
    told = math.isfinite(scored.model.low) and math.isfinite(floor.low)
    return told and scored.cases >= rule.limits["cases"] and not scored.model.apart(floor)


def _off(scored: Scored, bucket: Bucket, rule: Rule) -> bool:
    if bucket.events < rule.limits["events"]:
        return False
    error, least = _error(scored, bucket)
    return error >= rule.limits["error"] and least >= rule.limits["surely"]


def _error(scored: Scored, bucket: Bucket) -> tuple[float, float]:
    """Return how far a bucket is off beyond chance, and how far at least by its interval."""
    found = bucket.calibration
    if scored.nominal is None:
        by_chance = _by_chance(bucket.events)
        return found.value - by_chance, found.low - by_chance
    gap = found.value - scored.nominal
    least = found.low - scored.nominal if gap > 0 else scored.nominal - found.high
    return abs(gap), least


def _sure(run: Run, bucket: Bucket) -> str:
    """Return a sentence on whether predictions are surer than right, "" where that is not known."""
    try:
        said, true = run.reliability().at(bucket.shortest, bucket.longest)
    except Skip:
        return ""
    side = "surer than it is right" if said > true else "right more often than it says"
    return f" It is {side}: {said:.1%} said, {true:.1%} true." if said == said else ""


def _by_chance(events: int) -> float:
    """Return about how large the calibration error of a perfect model is, on so many events.

    In each of K bins of n / K events the share that came true is off by sqrt(p (1 - p) K / n), of
    which the mean size is sqrt(2 / pi) times as much; p (1 - p) is 0.2 for middling confidences.
    """
    return math.sqrt(2 / math.pi) * math.sqrt(0.2 * BINS / max(events, 1))


def _run(seen: Examination) -> Run:
    if seen.run is None:
        raise Skip("no run folder was given")
    return seen.run


def _judged(run: Run) -> list[Scored]:
    found = [each for each in run.scores() if math.isfinite(each.model.value)]
    enough = [each for each in found if each.cases >= FEWEST_CASES]
    if not enough:
        most = max((each.cases for each in found), default=0)
        raise Skip(f"{most} scored cases are too few to tell (at least {FEWEST_CASES})")
    return enough


def _both(run: Run) -> Iterator[tuple[Scored, Scored]]:
    """Yield each task's scores on the training part and on other data."""
    held = {each.task: each for each in _judged(run)}
    if all(each.part == "training" for each in held.values()):
        raise Skip("no data were held back from training")
    for own in run.training_scores():
        if own.task in held and math.isfinite(own.model.value):
            yield own, held[own.task]


def _paired(own: Scored, held: Scored) -> Iterator[tuple[Bucket, Bucket]]:
    known = {each.label: each for each in own.lengths}
    for each in held.lengths:
        if each.label in known:
            yield known[each.label], each


def _simplest(floors: Mapping[str, Value]) -> float:
    return next((value.value for value in floors.values()), math.nan)


def _lost(scored: Scored, own: float, held: float, floor: float) -> float:
    """Return the share of the gain over a floor that is lost; 0 where nothing was gained."""
    gained = scored.better(own, floor)
    if not math.isfinite(gained) or gained <= 0:
        return 0.0
    return scored.better(own, held) / gained
