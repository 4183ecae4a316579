"""Two models on a real log, what is found in each, and what following the advice brings.

HIDDENSTATE_DATA=... python -m benchmarks.investigation

Writes docs/results/investigation.md; the results of every fit are kept in investigation.json beside
it, and what is there is not run again. Fits and diagnoses are commands of their own, one after the
other, with one thread.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.kernels.machine import describe

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SEEDS = range(5)
LOG = "{data}/ppm_chrono_80_20/sepsis_80.csv --test-file {data}/ppm_chrono_80_20/sepsis_20.csv"
# What somebody begins with who knows torch: its first weights, Adam at 1e-3, ten epochs, no noise.
BEGUN = (
    "--set model.init=uniform --learning-rate 1e-3 --epochs 10 --dropout 0 "
    "--set train.input_dropout=0 --set train.warmup=0 --set train.schedule=constant "
    "--set train.weight_decay=0 --set train.recency=0 --set train.finish_epochs=0"
)
LONGER = BEGUN.replace("--learning-rate 1e-3 --epochs 10", "--learning-rate 6e-3 --epochs 60")
LONG = 17


@dataclass(frozen=True)
class Step:
    """One fit of the investigation.

    advice: what it follows, of the findings in the step before
    """

    name: str
    cell: str
    settings: str
    advice: str = ""


STEPS = (
    Step("Elman, as begun", "elman", BEGUN),
    Step(
        "Elman, trained longer",
        "elman",
        LONGER,
        "HS511 and HS601 of the first Elman: more epochs, a larger learning rate",
    ),
    Step("LSTM, as begun", "lstm", BEGUN),
    Step(
        "LSTM, trained longer",
        "lstm",
        LONGER,
        "HS511 and HS605 of the first LSTM: more epochs, a larger learning rate; and HS203 of the "
        "second Elman: an LSTM in its place",
    ),
    Step("LSTM, default recipe", "lstm", "", "nothing: what this package does unasked"),
)


def command(text: str, data: Path) -> Any:
    """Run `hiddenstate` and return what `--json` printed."""
    done = subprocess.run(
        [sys.executable, "-m", "hiddenstate", *shlex.split(text.format(data=data)), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        raise SystemExit(f"{text}: {done.stderr}")
    return json.loads(done.stdout)


def run(step: Step, seed: int, data: Path) -> dict[str, Any]:
    """Fit and diagnose once; return scores and findings."""
    with tempfile.TemporaryDirectory() as folder:
        fitted = command(
            f"fit {LOG} --cell {step.cell} {step.settings} --seed {seed} --threads 1 --quiet "
            f"--out {folder}/run",
            data,
        )
        report = command(f"diagnose {folder}/run --quiet --fail-on never", data)
    scores = fitted["scores"]["tasks"]["next_event"]
    return {
        "seconds": fitted["training"]["seconds"],
        "parameters": fitted["training"]["parameters"],
        "model": _values(scores["model"]),
        "floors": {name: _values(each) for name, each in scores["floors"].items()},
        "verdicts": {
            metric: each["verdict"] for metric, each in scores["verdicts"]["ngram"].items()
        },
        "asked": len(report["passed"]) + len({each["code"] for each in report["findings"]}),
        "healthy": report["healthy"],
        "findings": [
            {name: each[name] for name in ("code", "name", "severity", "measured", "remedy")}
            for each in report["findings"]
        ],
    }


def _values(scores: dict[str, Any]) -> dict[str, float]:
    """Return log loss, accuracy and calibration error, and the log loss of long histories."""
    found = {name: scores["metrics"][name]["value"] for name in ("log_loss", "accuracy", "ece")}
    long = [each for each in scores["by_length"] if each["from"] >= LONG]
    events = sum(each["events"] for each in long)
    total = sum(each["events"] * each["metrics"]["log_loss"]["value"] for each in long)
    return {**found, "long": total / events, "long_events": events}


def fill(results: dict[str, Any], data: Path, save: Callable[[], None]) -> None:
    """Run what is missing."""
    for step in STEPS:
        known = results.setdefault(step.name, {})
        for seed in SEEDS:
            if str(seed) not in known:
                known[str(seed)] = run(step, seed, data)
                save()


def spread(fits: list[dict[str, Any]], metric: str) -> str:
    values = [fit["model"][metric] for fit in fits]
    return f"{mean(values):.3f} ± {stdev(values):.3f}"


def found(fits: list[dict[str, Any]]) -> str:
    """Return the findings of all seeds with their counts, worst first."""
    counts: dict[tuple[str, str, str], int] = {}
    for fit in fits:
        for each in {(e["severity"], e["code"], e["name"]) for e in fit["findings"]}:
            counts[each] = counts.get(each, 0) + 1
    told = [
        f"{severity} {code} {name} ({count} of {len(fits)})"
        for (severity, code, name), count in sorted(
            counts.items(), key=lambda item: ("error warning note".index(item[0][0]), item[0])
        )
    ]
    return "; ".join(told) or "nothing"


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    machine = describe()
    fits = {step.name: list(results[step.name].values()) for step in STEPS}
    floors = fits[STEPS[0].name][0]["floors"]
    long_events = fits[STEPS[0].name][0]["model"]["long_events"]
    lines = [
        "# An investigation: next event in the sepsis log",
        "",
        f"`python -m benchmarks.investigation`, {datetime.now(UTC):%Y-%m-%d}: "
        f"{machine['processor']}, one thread, torch {machine['versions']['torch']}. Pathways of "
        "patients through a hospital, activities alone, the chronological 80/20 split; five seeds "
        "each, mean and standard deviation. Every model was fitted by `hiddenstate fit` and looked "
        "at by `hiddenstate diagnose` on the test cases, with the same settings for all; nothing "
        "was chosen by the test cases. Log loss in nats; long histories are those of "
        f"{LONG} events and more ({long_events:,} of the scored events).",
        "",
        "| model | parameters | log loss | at long histories | accuracy | calibration error | log "
        "loss against the n-gram |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for name, values in floors.items():
        lines.append(
            f"| {name.replace('_', ' ')} (floor) | | {values['log_loss']:.3f} | "
            f"{values['long']:.3f} | {values['accuracy']:.3f} | {values['ece']:.3f} | |"
        )
    for name, each in fits.items():
        said = [fit["verdicts"]["log_loss"] for fit in each]
        counts = ", ".join(f"{w} {said.count(w)}" for w in ("better", "tie", "worse") if w in said)
        cells = (spread(each, metric) for metric in ("log_loss", "long", "accuracy", "ece"))
        size = f"{each[0]['parameters']:,}"
        lines.append(f"| {name} | {size} | {' | '.join(cells)} | {counts} |")
    lines += ["", "## What was found, and what was done about it", ""]
    for step in STEPS:
        each = fits[step.name]
        first = each[0]
        lines += [
            f"### {step.name}",
            "",
            f"`hiddenstate fit ... --cell {step.cell} {step.settings}`".replace(" `", "`"),
            "",
            *([f"Follows {step.advice}.", ""] if step.advice else []),
            f"Found, over the seeds: {found(each)}. With seed 0 "
            f"({'healthy' if first['healthy'] else 'not healthy'}, {first['asked']} rules asked):",
            "",
            *(
                f"- {e['severity']} **{e['code']} {e['name']}**: {e['measured']} *Try: "
                f"{e['remedy']}*"
                for e in first["findings"]
            ),
            *(["- nothing"] if not first["findings"] else []),
            "",
        ]
    return "\n".join([*lines, REMARKS])


REMARKS = """## What to make of it

- **The first fits** look like memories that cannot do better than counting. The report says
  otherwise: nothing is wrong with gates, gradients or padding, and the loss was still falling when
  training ended. More epochs at a larger rate are worth 0.15 nats to the Elman and 0.18 to the
  LSTM, and all ten of the second fits beat the n-gram.
- **HS605 with its sides**: the first LSTM is right more often than it says, so the cure is more
  training, not less. The usual advice for a bad calibration, to regularise, would have been wrong.
- **HS203, the end of the memory**, is a note and no warning, and rightly so: the LSTM in the
  Elman's place (of the same width, and so with more parameters) is 0.04 nats better over all
  lengths, and no more than by chance better at long histories, where a memory that ends after 18
  steps should have cost most. What the last steps say is nearly all there is to know here.
- **What the report did not say**: that the second Elman could still gain from another cell was
  told in four of five seeds, and how much it would gain in none: no rule knows what a better model
  would reach. The default recipe (regularised, chrono start) is a little better still, and steadier
  over the seeds; nothing in the reports of the second LSTMs pointed to it.
- HS511 was written after a first run of this investigation, in which two of the ten first fits had
  been called healthy. It was tuned on seed 0 of this log and on small made-up logs.
"""


def main() -> None:
    data = os.environ.get("HIDDENSTATE_DATA")
    if not data:
        raise SystemExit("Set HIDDENSTATE_DATA to the folder with the public logs.")
    store = RESULTS / "investigation.json"
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}

    def save() -> None:
        store.write_text(json.dumps(results, indent=1) + "\n")

    fill(results, Path(data), save)
    (RESULTS / "investigation.md").write_text(page(results))


if __name__ == "__main__":
    main()
