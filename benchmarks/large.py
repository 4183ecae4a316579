"""Fit ten million events and measure memory; writes docs/results/large.md.

python -m benchmarks.large

A CSV of a million interleaved cases with two attributes is made, and `hiddenstate fit` runs one
epoch over it in a process of its own. The figure is the process's largest resident set.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars
import torch

PAGE = Path(__file__).parents[1] / "docs" / "results" / "large.md"
EVENTS, CASES, BLOCK = 10_000_000, 1_000_000, 500_000
ACTIVITIES, TIERS = 20, ("gold", "silver", "bronze", "")
# How far events of one case lie apart in the file, in events.
SPREAD = 20_000
LIMIT_GIB = 4


def write_log(path: Path) -> None:
    """Write the log; the next activity follows from the last one half of the time."""
    rng = np.random.default_rng(0)
    case = np.repeat(np.arange(CASES), EVENTS // CASES)
    moved = np.argsort(np.arange(EVENTS) + rng.uniform(0, SPREAD, EVENTS), kind="stable")
    step = np.where(rng.random(EVENTS) < 0.5, 1, rng.integers(0, ACTIVITIES, EVENTS))
    activity = np.cumsum(step) % ACTIVITIES
    names = np.array([f"activity {k}" for k in range(ACTIVITIES)])
    start = np.datetime64("2024-01-01", "ms")
    with path.open("wb") as file:
        for first in range(0, EVENTS, BLOCK):
            rows = moved[first : first + BLOCK]
            # A case's times rise with its own events, wherever they stand in the file.
            times = start + (rows * 3000).astype("timedelta64[ms]")
            polars.DataFrame(
                {
                    "case": case[rows],
                    "activity": names[activity[rows]],
                    "timestamp": polars.Series(times).dt.strftime("%Y-%m-%d %H:%M:%S%.3f"),
                    "tier": np.array(TIERS)[rng.integers(0, len(TIERS), len(rows))],
                    "amount": np.round(rng.lognormal(3, 1, len(rows)), 2),
                }
            ).write_csv(file, include_header=first == 0)


def main() -> None:
    """Make the log, fit it, write the page."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "large.csv"
        subprocess.run(
            [sys.executable, "-m", "benchmarks.large", str(log)],
            check=True,
        )
        megabytes = log.stat().st_size / 1e6
        began = time.perf_counter()
        command = [sys.executable, "-m", "hiddenstate", "fit", str(log)]
        command += ["--out", str(folder / "run"), "--epochs", "1", "--hidden-size", "64"]
        command += ["--batch-size", "256", "--set", "train.finish_epochs=0", "--json", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - began
        # The largest of all children; making the log takes less than fitting it.
        gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    printed = json.loads(done.stdout)
    PAGE.write_text(
        f"""# Ten million events

From `python -m benchmarks.large` on {platform.machine()}, {os.cpu_count()} cores, Python
{platform.python_version()}, torch {torch.__version__}.

`hiddenstate fit` of a CSV of {megabytes:.0f} MB: {printed["events"]:,} events of
{printed["cases"]:,} cases that stand up to {SPREAD:,} rows apart, two attributes, one epoch, 64
hidden units. Reading, checking for leaks, splitting, floors, training and scoring with intervals
together:

| | |
|---|---|
| seconds | {seconds:.0f} |
| largest resident set | {gib:.2f} GiB (limit {LIMIT_GIB}) |
| accuracy, model and n-gram | {printed["scores"]["accuracy"]:.3f} and \
{printed["scores"]["floors"]["ngram"]["accuracy"]:.3f} |
"""
    )
    if gib > LIMIT_GIB:
        raise SystemExit(f"{gib:.2f} GiB is over the limit of {LIMIT_GIB} GiB.")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        write_log(Path(sys.argv[1]))
    else:
        main()
