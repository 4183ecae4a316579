"""Rules about the data of a fitted run, and about its two executions: HS606 to HS610."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.run import Run

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS606",
    "much-is-unknown",
    Severity.WARNING,
    asks="Does the model know what the data hold?",
    because="Everything unknown is read as one and the same symbol: what sets these values apart "
    "is lost, and the model never learnt what follows them.",
    remedy="Fit again on data that hold these values; where new ones keep coming, leave the column "
    "out (--exclude), or group its values into fewer that stay.",
    limits={"share": 0.05},
)
def much_unknown(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The share of steps with a value that is not in the vocabulary."""
    for each in _run(seen).unknowns():
        share = each.unknown / max(each.steps, 1)
        if share >= rule.limits["share"]:
            shown = f", such as {', '.join(map(repr, each.shown))}" if each.shown else ""
            yield rule.finding(
                each.column,
                f"{each.unknown:,} of {each.steps:,} steps ({share:.1%}) have a value of "
                f"{each.column} that the model never saw{shown}.",
                {"share": share, "unknown": each.unknown},
            )


@rule(
    "HS607",
    "unknown-never-trained",
    Severity.WARNING,
    asks="Was the symbol that stands for all unknown ones trained?",
    because="The training data held nothing unknown, so the row of the embedding that stands for "
    "it is as it was drawn: what the model says after it is noise, however sure it sounds.",
    remedy="Let training see unknown values: keep only values seen several times (text and labels: "
    "least_count = 2), so that rare ones are unknown, or fit again on data that hold these.",
    limits={"share": 0.01},
)
def unknown_never_trained(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Inputs whose unknown symbol occurs in these data and not in training."""
    found = [each for each in _run(seen).unknowns() if each.trained is not None]
    if not found:
        raise Skip("the training part is not there")
    for each in found:
        share = each.unknown / max(each.steps, 1)
        if not each.trained and share >= rule.limits["share"]:
            yield rule.finding(
                each.column,
                f"{share:.1%} of the steps hold an unknown value of {each.column}, and no training "
                "step did: its embedding is random.",
                {"share": share, "unknown": each.unknown},
            )


@rule(
    "HS608",
    "gives-the-answer-away",
    Severity.WARNING,
    asks="Was every input known at the time of its event?",
    because="A column that is written down after the fact, or that foretells the answer where "
    "nothing honest could, makes the model right in tests and wrong in use.",
    remedy="Leave the column out (--exclude), or keep of it only what is known when the event "
    "happens.",
)
def gives_away(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Inputs that foretell the rest of their case too well (`data.leaks`)."""
    for each in _run(seen).suspicions():
        yield rule.finding(
            each.column, f"The input {each.column}: {each.reason} ({each.evidence})."
        )


@rule(
    "HS609",
    "longer-than-trained",
    Severity.WARNING,
    asks="Are the sequences as long as those of training?",
    because="Past the lengths of training the state goes where training never took it; counters "
    "and sums run out of the range that the head was fitted to.",
    remedy="Train on sequences as long as those in use, or score by length beyond training "
    "(`hiddenstate compare --lengths`) before you rely on it; cut long histories to their end.",
    limits={"share_of_steps": 0.1},
)
def longer_than_trained(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The share of steps that lie beyond the longest training sequence."""
    lengths = _run(seen).lengths()
    steps, longest = lengths.looked_at, lengths.longest_trained
    beyond = int(np.clip(steps - longest, 0, None).sum())
    share = beyond / max(int(steps.sum()), 1)
    if share >= rule.limits["share_of_steps"]:
        edges = np.histogram_bin_edges(steps, 20)
        counts = np.histogram(steps, edges)[0].astype(np.float64)
        yield rule.finding(
            "data",
            f"{share:.0%} of the steps lie beyond step {longest}, the end of the longest training "
            f"sequence; the longest one here has {int(steps.max()):,}.",
            {"share": share, "longest_trained": longest, "longest": int(steps.max())},
            picture=Picture(
                "histogram",
                f"Steps of the sequences (longest in training: {longest})",
                "steps",
                "sequences",
                {"here": counts},
                edges,
            ),
        )


@rule(
    "HS610",
    "runtime-differs",
    Severity.ERROR,
    asks="Does the runtime say what the trained model says?",
    because="Training and use run two programs over the same weights; where they differ, the "
    "scores are not those of what is used.",
    remedy="Fit the model again with this version; if it stays, it is a fault of hiddenstate: "
    "please report it with the run folder's spec.json.",
    limits={"difference": 1e-3},
)
def runtime_differs(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The largest difference of the outputs on the batch, over the largest output."""
    found = _run(seen).difference()
    share = found.largest / max(found.scale, 1e-12)
    # NaN differs, too.
    if not share <= rule.limits["difference"]:
        yield rule.finding(
            found.where,
            f"Runtime and torch differ by {found.largest:.3g} in {found.where}, whose largest "
            f"value is {found.scale:.3g}.",
            {"difference": found.largest, "scale": found.scale},
        )


def _run(seen: Examination) -> Run:
    if seen.run is None:
        raise Skip("no run folder was given")
    return seen.run
