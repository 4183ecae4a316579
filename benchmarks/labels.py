"""Classify public texts and series by the command line, and write docs/results/labels.md.

HIDDENSTATE_DATA=... python -m benchmarks.labels [NAME ...]

Each fit is `hiddenstate fit` in a process of its own, one at a time, with one thread. The results
of every fit are kept in docs/results/labels.json; what is there is not run again. Names choose
experiments; without any, all are run.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

RESULTS = Path(__file__).parents[1] / "docs" / "results"
METRICS = ("accuracy", "macro_f1", "log_loss")


@dataclass(frozen=True)
class Experiment:
    """One row of the table.

    arguments: of `hiddenstate fit`, {data} standing for the data folder and {made} for a folder
               with the files that `prepare` made
    """

    name: str
    arguments: str
    seeds: int = 5
    prepare: Callable[[Path, Path], None] | None = None


def flatten_digits(data: Path, made: Path) -> None:
    """Write the digits pixel by pixel, as series of one channel and 784 steps."""
    with np.load(data / "mnist10k" / "mnist_train10k_test10k.npz") as digits:
        for part in ("train", "test"):
            x = digits[f"x_{part}"].reshape(-1, 784, 1).astype(np.float32) / 255
            np.savez(made / f"digits_{part}.npz", x=x, y=digits[f"y_{part}"])


REMARKS = """
## What to make of it

- **names**: which language a name is from stands in its letters, a few at a time, and a character
  n-gram for each language is a strong floor. Some names are in several languages; each name was
  kept once, with the language that has it most often, so the rare language of such names loses
  them, and no model is right about all. The recipe (weight decay, 15 epochs) was chosen by the loss
  on the validation part.
- **TREC**: words from scratch, no vectors from elsewhere. Reading words also by beginning, ending
  and capitals, pairs of words, and the mean over the steps in place of their maximum each raised
  the accuracy on held-back parts of the training file, by which they were chosen.
"""

VOWELS = "{data}/japanese_vowels/JapaneseVowels"
LINES = "--format lines --encoding latin-1 --set 'labels.separator=\" \"' --set labels.label_ends=:"
EXPERIMENTS = (
    Experiment("JapaneseVowels", f"{VOWELS}_TRAIN.ts --test-file {VOWELS}_TEST.ts"),
    Experiment(
        "TREC, six labels",
        "{data}/trec/TREC.train --test-file {data}/trec/TREC.test --batch-size 64 --epochs 12 "
        f"--set labels.drop_duplicates=true {LINES}",
    ),
    Experiment(
        "names, each once",
        "{data}/names --exclude PROVENANCE --set labels.drop_duplicates=true --epochs 15 "
        "--set train.weight_decay=0.1",
        seeds=3,
    ),
    Experiment(
        "digits pixel by pixel",
        "{made}/digits_train.npz --test-file {made}/digits_test.npz --epochs 12 --batch-size 64 "
        "--set train.batch_events=65536 --set model.bidirectional=false --set model.pool=last "
        "--set model.init=chrono --dropout 0.1 --set train.input_dropout=0",
        seeds=1,
        prepare=flatten_digits,
    ),
)


def run(experiment: Experiment, seed: int, data: Path, made: Path) -> dict[str, Any]:
    """Fit once and return scores, with the seconds of the whole process."""
    arguments = shlex.split(experiment.arguments.format(data=data, made=made))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "hiddenstate", "fit", *arguments, "--task", "classify"]
        command += ["--seed", str(seed), "--out", f"{folder}/run", "--json", "--quiet"]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--threads", "1"], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{experiment.name}, seed {seed}: {done.stderr}")
    printed = json.loads(done.stdout)
    task = printed["scores"]["tasks"]["classify"]

    def values(scores: dict[str, Any]) -> dict[str, float]:
        return {metric: scores["metrics"][metric]["value"] for metric in METRICS}

    return {
        "seconds": seconds,
        "parameters": printed["training"]["parameters"],
        "cases": printed["scores"]["cases"],
        "model": values(task["model"]),
        "by_length": {
            f"{bucket['from']}-{bucket['to'] or ''}": (
                bucket["events"], bucket["metrics"]["accuracy"]["value"],
            )
            for bucket in task["model"]["by_length"]
        },
        "floors": {name: values(floor) for name, floor in task["floors"].items()},
        "floors_description": task["floors_description"],
        "verdicts": {
            floor: by_metric["accuracy"]["verdict"] for floor, by_metric in task["verdicts"].items()
        },
    }  # fmt: skip


def fill(
    results: dict[str, Any], chosen: list[Experiment], data: Path, save: Callable[[], None]
) -> None:
    """Run what is missing from the results."""
    for experiment in chosen:
        known = results.setdefault(experiment.name, {})
        missing = [seed for seed in range(experiment.seeds) if str(seed) not in known]
        with tempfile.TemporaryDirectory() as folder:
            if missing and experiment.prepare is not None:
                experiment.prepare(data, Path(folder))
            for seed in missing:
                known[str(seed)] = run(experiment, seed, data, Path(folder))
                save()


def spread(values: list[float]) -> str:
    """Return the mean and, of several, the standard deviation."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def document(results: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# Whole sequences classified",
        "",
        "Every figure comes from `python -m benchmarks.labels`, which runs `hiddenstate fit --task",
        "classify`; mean and standard deviation over the seeds. The floors are computed by the",
        "same command on the same split: the strongest of naive Bayes over words, pairs of words",
        "and a character n-gram for each label (chosen on the validation part), or the nearest",
        "training series by mean and deviation of its channels. JapaneseVowels, TREC and the",
        "digits have a test file of their own; of the names, a fifth is held back at random.",
        "",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, torch {torch.__version__}; one fit at a time, one thread, on"
        " a machine shared with other work.",
        "",
        "| data | test sequences | metric | model | best floor | most frequent | seeds | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    said = []
    for experiment in EXPERIMENTS:
        fits = list(results.get(experiment.name, {}).values())
        if not fits:
            continue
        names = list(fits[0]["floors"])
        for metric in METRICS:
            floors = [
                spread([fit["floors"][name][metric] for fit in fits]).removesuffix(" ± 0.000")
                for name in (names[-1], names[0])
            ]
            lines.append(
                f"| {experiment.name} | {fits[0]['cases']:,} | {metric.replace('_', ' ')} | "
                f"{spread([fit['model'][metric] for fit in fits])} | {floors[0]} | {floors[1]} | "
                f"{len(fits)} | {mean(fit['seconds'] for fit in fits):.0f} |"
            )
        verdicts = [verdict for fit in fits for verdict in fit["verdicts"].values()]
        counts = ", ".join(f"{word} {verdicts.count(word)}" for word in dict.fromkeys(verdicts))
        said += [
            "",
            f"**{experiment.name}**: {fits[0]['parameters']:,} parameters; best floor: "
            f"{fits[0]['floors_description']}; in accuracy the model is: {counts}. Accuracy by "
            "steps: "
            + ", ".join(
                f"{steps} {mean(fit['by_length'][steps][1] for fit in fits):.3f} ({count:,})"
                for steps, (count, _) in fits[0]["by_length"].items()
            )
            + ".",
            "",
            "    hiddenstate fit " + " ".join(experiment.arguments.split()),
        ]
    return "\n".join([*lines, *said, REMARKS])


def main() -> None:
    data = os.environ.get("HIDDENSTATE_DATA")
    if not data:
        raise SystemExit("HIDDENSTATE_DATA must name the folder with the public data.")
    known = {experiment.name: experiment for experiment in EXPERIMENTS}
    wrong = [name for name in sys.argv[1:] if name not in known]
    if wrong:
        raise SystemExit(f"There is no {wrong[0]!r}; there are {', '.join(known)}.")
    path = RESULTS / "labels.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def save() -> None:
        path.write_text(json.dumps(results, indent=1) + "\n")
        (RESULTS / "labels.md").write_text(document(results))

    fill(results, [known[name] for name in sys.argv[1:]] or list(EXPERIMENTS), Path(data), save)
    save()


if __name__ == "__main__":
    main()
