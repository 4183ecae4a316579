"""Model the characters of tinyshakespeare by the command line; record docs/results/sequences.md.

HIDDENSTATE_DATA=... python -m benchmarks.language [NAME ...]

Each fit is `hiddenstate fit` in a process of its own with one thread, on the first 90 % of the
text; its time is that of the whole process, reading, floors and the final score included. What is
in docs/results/language.json is not run again. Names choose among the fits: ten, thirty.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recorded import record

KEPT = Path("docs/results/language.json")
THREADS = 1
LAGS = "1,2,5,10,20,50,100,200"


@dataclass(frozen=True)
class Experiment:
    """Arguments of `hiddenstate fit input.txt --task lm`, and how the table calls the fit.

    minutes: that the whole process may take
    """

    title: str
    arguments: str
    minutes: float


# A fit ends by the clock and its learning rate falls by it, so nothing is held back to choose the
# epoch: the text just before the test part is of the same play, and worth .1 nats to train on.
EXPERIMENTS = {
    "ten": Experiment(
        "GRU 512, dropout 0.3, 10 minutes",
        "--validation 0 --epochs 40 --minutes 9 --dropout 0.3",
        10,
    ),
    "thirty": Experiment(
        "GRU 768, dropout 0.4, 30 minutes",
        "--validation 0 --epochs 100 --minutes 28 --hidden-size 768 --dropout 0.4",
        30,
    ),
}


def run(experiment: Experiment, text: Path) -> dict[str, Any]:
    """Fit once; return the scores, the truncation error of the fitted model, and a sample."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/run"
        fit = (
            f"fit {text} --task lm --out {out} --threads {THREADS} --seed 0 {experiment.arguments}"
        )
        began = time.perf_counter()
        printed = json.loads(hiddenstate(f"{fit} --json --quiet"))
        seconds = time.perf_counter() - began
        if seconds > 60 * experiment.minutes:
            print(f"{experiment.title}: {seconds:.0f} s are more than was allowed", file=sys.stderr)
        lags = f"truncation {out} {text} --lags {LAGS} --steps 256 --sequences 8 --json --quiet"
        truncation = json.loads(hiddenstate(lags))
        sample = hiddenstate(f"generate {out} --prompt ROMEO: --length 300 --temperature 0.8")
    scores = printed["scores"]
    task = scores["tasks"]["lm"]
    return {
        "arguments": experiment.arguments,
        "seconds": seconds,
        "training": printed["training"],
        "symbols": scores["events"],
        "model": task["model"]["metrics"],
        "floors": {name: floor["metrics"] for name, floor in task["floors"].items()},
        "verdicts": task["verdicts"],
        "truncation": truncation,
        "sample": sample,
    }


def hiddenstate(arguments: str) -> str:
    command = [sys.executable, "-m", "hiddenstate", *arguments.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{arguments}: {done.stderr}")
    return done.stdout


def write(results: dict[str, Any]) -> None:
    """Write the section of the page, and that of the truncation error."""
    rows = []
    for name, found in results.items():
        nats = found["model"]["nats"]
        rows.append(
            [
                EXPERIMENTS[name].title,
                f"**{nats['value']:.4f}** ({nats['low']:.3f}-{nats['high']:.3f})",
                f"{found['model']['bits']['value']:.3f}",
                f"{found['model']['accuracy']['value']:.3f}",
                f"{found['training']['parameters']:,}",
                f"{found['seconds']:.0f}",
            ]
        )
    floors = next(iter(results.values()))["floors"]
    for name, title in (("ngram", "5-gram, Witten-Bell"), ("most_frequent", "most frequent")):
        values = [floors[name][metric]["value"] for metric in ("nats", "bits", "accuracy")]
        rows.append([title, f"{values[0]:.4f}", f"{values[1]:.3f}", f"{values[2]:.3f}", "", ""])
    rows.append(["nanoGPT, published, on a GPU", "1.4697", f"{1.4697 / 0.693147:.3f}", "", "", ""])
    cosines = [
        "Gradient through windows of k steps against the whole one (256 steps, cosine and relative "
        f"error), {EXPERIMENTS[name].title}: "
        + "; ".join(
            f"k = {each['steps']}: {each['cosine']:.3f}, {each['relative_error']:.3f}"
            for each in found["truncation"]["lags"]
        )
        + "."
        for name, found in results.items()
    ]
    record(
        "language",
        "Language: characters of tinyshakespeare, the last 10 %",
        "python -m benchmarks.language",
        ["model", "nats per character", "bits", "accuracy", "parameters", "seconds"],
        rows,
        [
            "The state is carried over the whole held-back text; every character counts once. "
            "Brackets hold the 95 % interval of a bootstrap over blocks of 1,000 characters.",
            f"{THREADS} threads; seconds are those of the whole process.",
            "nanoGPT's figure is the validation loss that its README gives for the character "
            "model on one A100; it is a mean over random blocks of 256 characters.",
            *cosines,
        ],
        results,
    )


def main() -> None:
    text = Path(os.environ["HIDDENSTATE_DATA"]).resolve() / "tinyshakespeare" / "input.txt"
    results: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in sys.argv[1:] or EXPERIMENTS:
        if name not in results:
            results[name] = run(EXPERIMENTS[name], text)
            print(f"{name}: {results[name]['model']['nats']['value']:.4f}", flush=True)
            KEPT.write_text(json.dumps(results, indent=1) + "\n")
    write({name: results[name] for name in EXPERIMENTS if name in results})


if __name__ == "__main__":
    main()
