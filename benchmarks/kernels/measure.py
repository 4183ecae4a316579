"""Gate, then stopwatch: a row of the tables, with no time for a candidate that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from benchmarks.kernels.clock import Spread, interleaved
from benchmarks.kernels.plan import Setting

Arrays = Sequence[Any]

# What a float32 result may be off by: twice what torch's float32 is off by, and a few roundings.
TIMES_TORCH = 2.0
ROUNDINGS = 4 * float(np.finfo(np.float32).eps)
# Digits that are recorded: a page shows three.
DIGITS = 6


class Candidate(NamedTuple):
    """Something to be timed.

    call:   the work
    read:   turns what a call returned into arrays, in the order of the truth
    within: error allowed beside the rule for float32, for weights of fewer bits
    first:  what is to be read in place of the first call, where a call changes a state
    """

    call: Callable[[], Any]
    read: Callable[[Any], Arrays]
    within: float = 0.0
    first: Callable[[], Any] | None = None


def errors(found: Arrays, truth: Arrays) -> list[float]:
    """Return for each array the largest difference, in units of the truth's largest entry."""
    if len(found) != len(truth):
        raise ValueError(f"{len(found)} arrays were read, the truth has {len(truth)}")
    each = []
    for array, right in zip(found, truth):
        array, right = np.asarray(array, np.float64), np.asarray(right)
        if array.shape != right.shape:
            raise ValueError(f"an array has shape {array.shape}, the truth {right.shape}")
        each.append(float(np.abs(array - right).max() / np.abs(right).max()))
    return each


@dataclass
class Row:
    """One case: seconds per call of each candidate by round, and what is asked of them."""

    case: str
    samples: dict[str, list[float]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Return the median seconds of a candidate that was timed."""
        return Spread.of(self.samples[name]).median

    def fastest(self, names: Sequence[str]) -> str | None:
        """Return the fastest of these candidates, None where none was timed."""
        timed = [name for name in names if name in self.samples]
        return min(timed, key=self.median) if timed else None

    def compare(
        self, ours: str, peers: Sequence[str], what: str, least: float | None = None
    ) -> None:
        """Note how many times faster ours is than the fastest of the peers, round by round."""
        peer = self.fastest(peers)
        if peer is None:
            if least is not None:
                # A target without its peer is neither met nor missed, and must be seen.
                self.checks.append({"what": what, "values": None, "least": least, "met": None})
        elif ours in self.samples:
            pairs = zip(self.samples[peer], self.samples[ours], strict=True)
            self.check(what, [theirs / own for theirs, own in pairs], least)
        else:
            self.check(what, [], least)

    def check(self, what: str, values: list[float], least: float | None = None) -> None:
        """Note a measured figure by its values in every round, and the least it should be."""
        spread = Spread.of(values) if values else None
        met = None if least is None else spread is not None and spread.median >= least
        self.checks.append({"what": what, "values": spread, "least": least, "met": met})

    def summary(self) -> str:
        """Return a line for whoever waits."""
        times = [f"{name} {self.median(name) * 1e6:.1f} us" for name in self.samples]
        times += [f"{name}: {reason}" for name, reason in self.wrong.items()]
        return f"{self.case}: {', '.join(times)}"

    def to_json(self) -> dict[str, Any]:
        """Return what is recorded: summaries instead of samples, in as many digits as they have."""
        return {
            "case": self.case,
            "times_s": rounded({name: Spread.of(each) for name, each in self.samples.items()}),
            "rounds": max(map(len, self.samples.values()), default=0),
            "errors": rounded(self.errors),
            "wrong": self.wrong,
            "checks": rounded(self.checks),
            "facts": rounded(self.facts),
        }


def rounded(value: Any) -> Any:
    """Return JSON values with every number in DIGITS digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, Mapping):
        return {name: rounded(each) for name, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def measured(
    case: str,
    candidates: Mapping[str, Candidate],
    truth: Arrays,
    setting: Setting,
    baseline: str,
) -> Row:
    """Compare every candidate with the truth, then time those that pass.

    baseline: the candidate whose own float32 error sets what the others may be off by
    """
    row = Row(case)
    found = {
        name: errors(each.read((each.first or each.call)()), truth)
        for name, each in candidates.items()
    }
    for name, off in found.items():
        allowed = max(TIMES_TORCH * max(found[baseline]) + ROUNDINGS, candidates[name].within)
        # NaN must not pass: it is the largest of all for NumPy, and no comparison with it is true.
        row.errors[name] = float(np.max(off))
        if not row.errors[name] <= allowed:
            row.wrong[name] = f"off by {row.errors[name]:.1e}, allowed {allowed:.1e}"
    calls = {name: each.call for name, each in candidates.items() if name not in row.wrong}
    if calls:
        row.samples = interleaved(calls, setting.seconds, 3 if setting.quick else 7)
    return row
