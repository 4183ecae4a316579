"""Translate Multi30k, German to English, by the command line; record docs/results/sequences.md.

HIDDENSTATE_DATA=... python -m benchmarks.translation [NAME ...]

Each fit is `hiddenstate fit` in a process of its own with one thread, on the 29,000 training
pairs, with the 1,014 validation pairs deciding when to stop; its time is that of the whole process,
reading, floors and the final score included. What is in docs/results/translation.json is not run
again. Names choose among the fits: fixed, attention, transformer.
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

KEPT = Path("docs/results/translation.json")
THREADS = 1
LIMIT_S = 30 * 60
# Training ends by the clock; the rest of the half hour is for reading, floors and the score.
COMMON = "--epochs 14 --minutes 25 --seed 0"


NAMES = tuple(
    f"{part}.{side}" for part in ("train", "val", "test_2016_flickr") for side in ("de", "en")
)


@dataclass(frozen=True)
class Experiment:
    """Arguments of `hiddenstate fit`, and how the table calls the fit."""

    title: str
    arguments: str


# The sizes are chosen so that all have the same number of parameters, to one part in a hundred.
EXPERIMENTS = {
    "fixed": Experiment(
        "GRU, one vector at every step (Cho)",
        "--hidden-size 462 --learning-rate 0.002 --set pairs.context=every_step",
    ),
    "attention": Experiment(
        "GRU, general attention (Luong)", "--hidden-size 512 --learning-rate 0.002"
    ),
    "transformer": Experiment(
        "transformer, 4 blocks",
        "--cell attention --hidden-size 176 --layers 4 --set model.embedding_size=176 "
        "--learning-rate 0.001",
    ),
}


def run(experiment: Experiment, data: Path) -> dict[str, Any]:
    """Fit once and return what was printed, and the seconds of the whole process."""
    files = {name: str(data / f"{name}.gz") for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        arguments = (
            f"fit {files['train.de']} --task translate --set pairs.target={files['train.en']} "
            f"--set pairs.validation_file={files['val.de']} "
            f"--set pairs.validation_target={files['val.en']} "
            f"--test-file {files['test_2016_flickr.de']} "
            f"--set pairs.test_target={files['test_2016_flickr.en']} "
            f"--out {folder}/run --threads {THREADS} {COMMON} {experiment.arguments} --json --quiet"
        )
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "hiddenstate", *arguments.split()],
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{experiment.title}: {done.stderr}")
    if seconds > LIMIT_S:
        print(f"{experiment.title}: {seconds:.0f} s are more than was allowed", file=sys.stderr)
    printed = json.loads(done.stdout)
    return {
        "seconds": seconds,
        "arguments": experiment.arguments,
        "training": printed["training"],
        "scores": printed["scores"],
    }


def table(kept: dict[str, Any]) -> None:
    """Record the section: a row for each fit, then one for each floor."""
    fits = {name: kept[name] for name in EXPERIMENTS if name in kept}
    tasks = {name: fit["scores"]["tasks"]["translate"] for name, fit in fits.items()}
    first = next(iter(tasks.values()))
    lengths = [_range(bucket) for bucket in first["model"]["by_length"]]
    rows = [
        [
            EXPERIMENTS[name].title,
            f"{fits[name]['training']['parameters']:,}",
            *_cells(tasks[name]["model"]),
            f"{fits[name]['seconds'] / 60:.0f}",
        ]
        for name in fits
    ]
    rows += [
        [floor.replace("_", " "), "", *_cells(each), ""] for floor, each in first["floors"].items()
    ]
    signatures = first["signatures"]
    beam, penalty = (
        next(iter(fits.values()))["scores"]["decoding"][k] for k in ("beam", "length_penalty")
    )
    record(
        "translation",
        "Multi30k, German to English, test 2016",
        "python -m benchmarks.translation",
        [
            "",
            "parameters",
            "BLEU (95 %)",
            "chrF",
            *(f"BLEU, {each} words" for each in lengths),
            "minutes",
        ],
        rows,
        [
            f"BLEU {signatures['bleu']}; chrF {signatures['chrf']}; on the text as it is, cased.",
            f"Beam {beam}, length penalty {penalty}. Columns of words go by the source's length.",
            "One vector has to hold a source of any length; attention looks at all of its states.",
            *(sentence for task in tasks.values() for sentence in _sentences(task)[:1]),
        ],
        {
            name: {k: fit[k] for k in ("seconds", "arguments", "training")}
            for name, fit in fits.items()
        },
    )


def _cells(scores: dict[str, Any]) -> list[str]:
    bleu, chrf = (scores["metrics"][metric] for metric in ("bleu", "chrf"))
    return [
        f"{bleu['value']:.1f} ({bleu['low']:.1f}-{bleu['high']:.1f})",
        f"{chrf['value']:.1f}",
        *(f"{bucket['metrics']['bleu']['value']:.1f}" for bucket in scores["by_length"]),
    ]


def _range(bucket: dict[str, Any]) -> str:
    return f"{bucket['from']}+" if bucket["to"] is None else f"{bucket['from']}-{bucket['to']}"


def _sentences(task: dict[str, Any]) -> list[str]:
    return [verdict["bleu"]["sentence"] for verdict in task["verdicts"].values()]


def main() -> None:
    data = Path(os.environ["HIDDENSTATE_DATA"]) / "multi30k"
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in sys.argv[1:] or EXPERIMENTS:
        if name not in kept:
            found = run(EXPERIMENTS[name], data)
            # Read again: another process may have kept one meanwhile.
            kept = {**(json.loads(KEPT.read_text()) if KEPT.exists() else {}), name: found}
            KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    table(kept)


if __name__ == "__main__":
    main()
