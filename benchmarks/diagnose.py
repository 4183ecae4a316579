"""How many planted faults the checks find, and how often they cry wolf; docs/results/diagnose.md.

python -m benchmarks.diagnose [FOLDER] [PROCESSES]
python -m benchmarks.diagnose --first-contact

Thresholds were set on the first instances of each kind; here others are drawn. Found means: a
warning or an error of one of the kind's own rules. FOLDER keeps what is done (runs/diagnose unless
given), so that a run that was stopped goes on. The second form scores the newest of the sets that
were written by people who had not seen the checks, and keeps the outcome for the page; it can be
done once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import tests.faults  # noqa: F401  enters every kind
import torch
from tests.faults.plant import FAULTS, HEALTHY, HELD_OUT, SETS, drawn

from benchmarks.kernels.machine import describe
from hiddenstate.diagnose import Severity

RESULTS = Path(__file__).parents[1] / "docs" / "results"
FIRST_CONTACT = RESULTS / "first_contact.json"
NEWEST = list(SETS.values())[-1]
# Instances from here on were never looked at while thresholds were set.
FIRST = 2000
FAULTY, MENDED, SOUND = 2, 1, 1


@dataclass(frozen=True)
class Trial:
    """One instance: a fault, a fault with its remedy applied, or a healthy model."""

    part: str
    kind: str
    instance: int

    @property
    def key(self) -> str:
        return f"{self.part}/{self.kind}/{self.instance}"


@dataclass(frozen=True)
class Outcome:
    """What was found in it: codes of warnings and errors and of notes, and what went wrong."""

    part: str
    kind: str
    instance: int
    codes: tuple[str, ...]
    notes: tuple[str, ...]
    seconds: float
    failed: str = ""


def trials() -> list[Trial]:
    """Return every instance that is scored."""
    planted = [Trial("fault", name, k) for name in FAULTS for k in range(FIRST, FIRST + FAULTY)]
    remedied = [Trial("remedied", name, k) for name in FAULTS for k in range(FIRST, FIRST + MENDED)]
    sound = [Trial("healthy", name, k) for name in HEALTHY for k in range(FIRST, FIRST + SOUND)]
    return planted + remedied + sound


def look(trial: Trial) -> Outcome:
    """Examine one instance in this process."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    draw = {
        "fault": lambda: FAULTS[trial.kind].draw,
        "remedied": lambda: FAULTS[trial.kind].remedied,
        "healthy": lambda: HEALTHY[trial.kind],
    }[trial.part]()
    try:
        found, failed = list(drawn(draw, trial.kind, trial.instance).findings()), ""
    except Exception as problem:  # one model that cannot be looked at is a result, not the end
        found, failed = [], f"{type(problem).__name__}: {problem}"
    seconds = time.perf_counter() - began
    codes, notes = (
        tuple(each.code for each in found if (each.severity is Severity.NOTE) is noted)
        for noted in (False, True)
    )
    return Outcome(*asdict(trial).values(), codes, notes, seconds, failed)


def interval(hits: int, of: int) -> str:
    """Return a share with Wilson's 95 % interval."""
    if not of:
        return "-"
    z, share = 1.96, hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return f"{share:.1%} ({max(middle - half, 0):.1%} to {min(middle + half, 1):.1%})"


def found(outcome: Outcome) -> bool:
    return bool(set(FAULTS[outcome.kind].codes) & set(outcome.codes))


def named(outcome: Outcome) -> bool:
    """Whether one of the kind's own rules speaks, be it in a note."""
    return bool(set(FAULTS[outcome.kind].codes) & {*outcome.codes, *outcome.notes})


def page(outcomes: list[Outcome]) -> str:
    """Return the page."""
    parts = {part: [o for o in outcomes if o.part == part] for part in PARTS}
    machine = describe()
    lines = [
        "# What the checks find, and what they do not",
        "",
        f"`python -m benchmarks.diagnose`, {datetime.now(UTC):%Y-%m-%d}: {machine['processor']}, "
        f"one thread, torch {machine['versions']['torch']}.",
        "",
        "A fault is found when a warning or an error of one of its own rules is raised. A false "
        "alarm is a healthy model, or a fault with its remedy applied, with any warning or error. "
        "Some rules only note: what they say may be as it should be. "
        "Thresholds were set on the first instances of each kind; the ones scored here are others.",
        "",
        *first_contact(),
        "## Every kind, after that",
        "",
        "| | kinds | instances | share (95 % interval) |",
        "|---|---:|---:|---:|",
        *summary("faults found", parts["fault"], found),
        *summary("faults found, notes included", parts["fault"], named),
        *summary("remedied: finding gone", parts["remedied"], lambda o: not found(o)),
        *summary("healthy with an alarm", parts["healthy"], lambda o: bool(o.codes)),
        *summary("remedied with another alarm", parts["remedied"], lambda o: bool(o.codes)),
        "",
        "## Faults",
        "",
        "| kind | rules | found | finding gone with the remedy | from |",
        "|---|---|---:|---:|---|",
    ]
    for name, fault in sorted(FAULTS.items(), key=lambda item: (item[1].codes, item[0])):
        own = [o for o in parts["fault"] if o.kind == name]
        cured = [o for o in parts["remedied"] if o.kind == name]
        lines.append(
            f"| {name}{' (held out)' if name in HELD_OUT else ''} | {', '.join(fault.codes)} | "
            f"{sum(map(found, own))} of {len(own)} | "
            f"{sum(not found(o) for o in cured)} of {len(cured)} | {fault.source or ''} |"
        )
    lines += ["", "## Healthy models", "", "| kind | alarms | which |", "|---|---:|---|"]
    for name in sorted(HEALTHY):
        own = [o for o in parts["healthy"] if o.kind == name]
        codes = sorted({code for o in own for code in o.codes})
        lines.append(
            f"| {name}{' (held out)' if name in HELD_OUT else ''} | "
            f"{sum(bool(o.codes) for o in own)} of {len(own)} | {', '.join(codes)} |"
        )
    lines += ["", *misses(parts["fault"])]
    return "\n".join(lines) + "\n"


PARTS = ("fault", "remedied", "healthy")


def first_contact() -> list[str]:
    """Return how each set went that was written by people who had not seen the checks."""
    files = ", ".join(f"`{begins}_*`" for begins in SETS)
    lines = [
        "## At first contact",
        "",
        f"Four sets of kinds ({files} in tests/faults) were written by people who had not seen "
        "the checks, and scored once with all thresholds as they were. What a set showed was "
        "mended afterwards.",
        "",
        "| set | faults found | healthy with an alarm |",
        "|---|---:|---:|",
        "| first | 62 of 84 | 6 of 70 |",
        "| second | 70 of 75 | 6 of 50 |",
        "| third | 19 of 25 (21 by rules that came after it was written) | 4 of 110 |",
    ]
    if not FIRST_CONTACT.exists():
        return [*lines, ""]
    record = json.loads(FIRST_CONTACT.read_text())
    every = [Outcome(**each) for each in record["outcomes"]]
    faults, cured, sound = ([o for o in every if o.part == part] for part in PARTS)
    wanted = record["wanted"]
    missed = [o for o in faults if not set(wanted[o.kind]) & set(o.codes)]
    noted = [o for o in missed if set(wanted[o.kind]) & set(o.notes)]
    alarmed = [o for o in sound if o.codes]
    other = [o for o in cured if o.codes]
    return [
        *lines,
        f"| {NEWEST} | {score(len(faults) - len(missed), len(faults))} | "
        f"{score(len(alarmed), len(sound))} |",
        "",
        f"The {NEWEST} set, met on {record['date']} by {record['code']}: "
        f"{len({o.kind for o in faults})} kinds of faults and {len({o.kind for o in sound})} of "
        f"healthy models. Notes included, {len(faults) - len(missed) + len(noted)} of "
        f"{len(faults)} faults were named. With the remedy applied, {len(other)} of {len(cured)} "
        "raised an alarm.",
        "",
        *(
            f"- missed: {o.kind}, instance {o.instance} ({', '.join(wanted[o.kind])}): "
            f"{o.failed or ', '.join([*o.codes, *o.notes]) or 'nothing'} said"
            for o in missed
        ),
        *(
            f"- false alarm: {o.kind}{', remedied' * (o.part == 'remedied')}, instance "
            f"{o.instance}: {', '.join(o.codes)}"
            for o in alarmed + other
        ),
        "",
    ]


def score(hits: int, of: int) -> str:
    return f"{hits} of {of}: {interval(hits, of)}"


def summary(title: str, outcomes: list[Outcome], hit: Any) -> Iterable[str]:
    sets = {told: [o for o in outcomes if HELD_OUT.get(o.kind) == told] for told in SETS.values()}
    for told, kept in {"all": outcomes, **sets}.items():
        kinds, of = {o.kind for o in kept}, "" if told == "all" else " set"
        share = interval(sum(map(hit, kept)), len(kept))
        yield f"| {title}, {told}{of} | {len(kinds)} | {len(kept)} | {share} |"


def misses(planted: list[Outcome]) -> list[str]:
    """Return what raised no alarm, and what could not be looked at."""
    lines = ["## Without an alarm of their own", ""]
    for o in planted:
        if not found(o):
            said = o.failed or f"alarms {', '.join(o.codes) or 'none'}"
            said += f"; noted {', '.join(o.notes)}" * named(o)
            lines.append(f"- {o.kind}, instance {o.instance}: {said}")
    return lines if len(lines) > 2 else []


def main(folder: Path, processes: int) -> None:
    """Score every kind and write the page."""
    (RESULTS / "diagnose.md").write_text(page(scored(trials(), folder, processes)))


def meet(folder: Path, processes: int) -> None:
    """Score the newest set, once, and keep what came of it."""
    if FIRST_CONTACT.exists():
        raise SystemExit(f"{FIRST_CONTACT} exists: a set is met for the first time once.")
    code = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
    ).stdout.strip()
    new = [trial for trial in trials() if HELD_OUT.get(trial.kind) == NEWEST]
    record = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "code": code,
        # Kinds get the codes of rules that come later, too; what counts here is what was asked.
        "wanted": {each.kind: FAULTS[each.kind].codes for each in new if each.part == "fault"},
        "outcomes": [asdict(each) for each in scored(new, folder, processes)],
    }
    FIRST_CONTACT.write_text(json.dumps(record, indent=1) + "\n")


def scored(wanted: list[Trial], folder: Path, processes: int) -> list[Outcome]:
    """Look at each trial, but for those that the folder has; return all outcomes."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "outcomes.jsonl"
    done = [Outcome(**json.loads(line)) for line in kept.open()] if kept.exists() else []
    keys = {Trial(o.part, o.kind, o.instance).key for o in done}
    left = [trial for trial in wanted if trial.key not in keys]
    with (
        ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool,
        kept.open("a") as file,
    ):
        for number, outcome in enumerate(pool.map(look, left), start=1):
            done.append(outcome)
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
            if outcome.failed or number % 50 == 0:
                told = f"{outcome.part}, {outcome.kind}: {outcome.failed}" * bool(outcome.failed)
                print(f"{number} of {len(left)} {told}", file=sys.stderr)
    # Read back as lists, written as tuples.
    return [replace(o, codes=tuple(o.codes), notes=tuple(o.notes)) for o in done]


if __name__ == "__main__":
    given = [each for each in sys.argv[1:] if each != "--first-contact"]
    act, place = (meet, "runs/first_contact") if given != sys.argv[1:] else (main, "runs/diagnose")
    act(
        Path(given[0]) if given else Path(place),
        int(given[1]) if len(given) > 1 else 2,
    )
