"""How far up to the ceiling a fit comes on simulated tickets; writes docs/results/simulator.md.

python -m benchmarks.simulator

The ceiling is the process itself (exact filter over all events so far). A second filter sees only
the last 19 events: where the two differ, the answer rests on lags of 20 events or more.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hiddenstate.job.events.demo import TICKETS, ceiling
from hiddenstate.job.fit import fit
from hiddenstate.job.model import Model
from hiddenstate.schema import EventLog
from hiddenstate.tasks import NextEvent, fit_floors, judge, score, simulator

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SEEDS = range(5)
FRESH_TICKETS = 600
LONG_TICKETS = 60
LARGE_TICKETS = 60_000
WINDOW = 19
# An event belongs to the long-memory part where forgetting what is older costs this much.
LONG_NATS = 0.1
# The hidden size that gives an Elman network as many parameters as the default GRU.
ELMAN_HIDDEN = 238


def log_p(model: Model, log: EventLog) -> NDArray[np.float64]:
    """Log probability of the truth at every event [N]."""
    task = NextEvent(model.artifact.spec.heads[0].classes)
    judged = judge(task, log)
    for rows, outputs in model.runtime.predict(log):
        judged.add(rows, outputs[0])
    return np.asarray(judged.result().log_probability, dtype=np.float64)


def floor_log_p(floors: Any, task: NextEvent, log: EventLog) -> NDArray[np.float64]:
    """Log probability of the truth by the n-gram [N]."""
    judged = floors.judge(log, task.targets(log))["ngram"]
    return np.asarray(judged.log_probability, dtype=np.float64)


def one(seed: int, cell: str, fresh: EventLog, long_rows: NDArray[Any], some: EventLog) -> Any:
    """Fit once on tickets of this seed; score on tickets that no fit has seen."""
    settings = {"cell": "elman", "hidden_size": ELMAN_HIDDEN} if cell == "elman" else {}
    began = time.perf_counter()
    model = fit(simulator.simulate(TICKETS, seed), seed=seed, threads=1, **settings)
    seconds = time.perf_counter() - began
    training = model.metrics["training"]
    return {
        "log_loss": -float(log_p(model, fresh).mean()),
        "long": -float(log_p(model, some)[long_rows].mean()),
        "ngram_demo": model.metrics["scores"]["floors"]["ngram"]["log_loss"],
        "parameters": training["parameters"],
        "training_s": training["seconds"],
        "seconds": seconds,
    }


def main() -> None:
    """Run and write the page."""
    torch.set_num_threads(1)
    fresh = simulator.simulate(FRESH_TICKETS, seed=1000)
    some = fresh.select(np.arange(LONG_TICKETS))
    task = NextEvent().fit(simulator.simulate(LARGE_TICKETS // 10, seed=1001))
    best = score(ceiling(fresh, task)).metrics["log_loss"].value
    full, window = (
        simulator.Oracle(memory=memory).judge(some, task.targets(some), task.classes)
        for memory in (None, WINDOW)
    )
    exact = np.exp(simulator.Oracle().log_probabilities(some, task.classes))
    near = np.exp(simulator.Oracle(memory=WINDOW).log_probabilities(some, task.classes))
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = np.nansum(np.where(exact > 0, exact * np.log(exact / near), 0.0), axis=1)
    long_rows = divergence > LONG_NATS
    large = simulator.simulate(LARGE_TICKETS, seed=1002)
    floors = fit_floors(task, large)
    ngram = -float(floor_log_p(floors, task, fresh).mean())
    ngram_long = -float(floor_log_p(floors, task, some)[long_rows].mean())
    fits = {
        cell: [one(seed, cell, fresh, long_rows, some) for seed in SEEDS]
        for cell in ("gru", "elman")
    }
    facts = {
        "ceiling": best,
        "ngram": ngram,
        "gap": ngram - best,
        "lags_of_20_or_more": float((full.log_probability - window.log_probability).mean()),
        "long_events": float(long_rows.mean()),
        "long_ceiling": -float(full.log_probability[long_rows].mean()),
        "long_window": -float(window.log_probability[long_rows].mean()),
        "long_ngram": ngram_long,
        "fits": fits,
    }
    (RESULTS / "simulator.json").write_text(json.dumps(facts, indent=1) + "\n")
    (RESULTS / "simulator.md").write_text(document(facts))


def spread(values: list[float], digits: int = 3) -> str:
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def document(facts: dict[str, Any]) -> str:
    """Return the page."""
    rows = []
    for cell, fits in facts["fits"].items():
        way = [(facts["ngram"] - fit["log_loss"]) / facts["gap"] for fit in fits]
        span = facts["long_ngram"] - facts["long_ceiling"]
        long_way = [(facts["long_ngram"] - fit["long"]) / span for fit in fits]
        rows.append(
            f"| {'GRU, the default' if cell == 'gru' else 'Elman, equal parameters'} | "
            f"{fits[0]['parameters']:,} | {spread([fit['log_loss'] for fit in fits])} | "
            f"{mean(way):.0%} (least {min(way):.0%}) | {spread([fit['long'] for fit in fits])} | "
            f"{mean(long_way):.0%} (least {min(long_way):.0%}) | "
            f"{mean(fit['training_s'] for fit in fits):.0f} |"
        )
    return "\n".join(
        [
            "# Up to the ceiling on simulated tickets",
            "",
            "Every figure comes from `python -m benchmarks.simulator`: five fits (seeds 0 to 4) of",
            f"{TICKETS:,} tickets with the default recipe, scored on {FRESH_TICKETS} tickets that",
            f"no fit has seen. The n-gram is the best order on {LARGE_TICKETS:,} tickets, fifteen",
            "times what the networks were given.",
            "",
            f"Machine: {platform.machine()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}, torch {torch.__version__}, one thread.",
            "",
            f"- ceiling: {facts['ceiling']:.3f} nats; best n-gram: {facts['ngram']:.3f} nats; gap "
            f"{facts['gap']:.3f} nats",
            f"- what lags of 20 events and more are worth: {facts['lags_of_20_or_more']:.3f} nats, "
            f"{facts['lags_of_20_or_more'] / facts['gap']:.0%} of the gap "
            f"({LONG_TICKETS} tickets, exact filter with {WINDOW} events against all)",
            f"- long-memory part: the {facts['long_events']:.0%} of the events at which forgetting "
            f"what is older costs over {LONG_NATS} nats; there the ceiling is "
            f"{facts['long_ceiling']:.3f}, the filter with {WINDOW} events "
            f"{facts['long_window']:.3f}, the n-gram {facts['long_ngram']:.3f} nats",
            "",
            "| network | parameters | log loss | way from n-gram to ceiling | log loss, "
            "long-memory part | way there | training s |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main()
