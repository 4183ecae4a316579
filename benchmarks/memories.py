"""Which memory solves which problem with a known answer; writes docs/results/memories.md.

python -m benchmarks.memories [FOLDER] [PROCESSES] [SEEDS]

Every cell has about as many parameters, sees the same sequences in the same order, and is scored
on the same ones. FOLDER keeps what is done (runs/memories unless given), so that a run
that was stopped goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kernels.machine import describe
from hiddenstate.study import Comparison, compare
from hiddenstate.study.page import number
from hiddenstate.tasks.compare import HIGHER_IS_BETTER
from hiddenstate.tasks.problems import parse_problem

RESULTS = Path(__file__).parents[1] / "docs" / "results"
SEEDS = 3
SOLVED = 0.005
RIGHT = 0.99

TWO_BLOCKS = {"attention.model.layers": 2, "attention.model.attention_heads": 2}
LANGUAGES = {
    "train.learning_rate": 3e-3,
    "train.epochs": 50,
    "problems.grow": 0.6,
    **TWO_BLOCKS,
}


@dataclass(frozen=True)
class Trial:
    """One problem, the cells that are to learn it and what they must show."""

    problem: str
    cells: tuple[str, ...]
    lengths: tuple[int, ...]
    judged_at: int
    budget: int
    shows: str
    settings: Mapping[str, Any] = field(default_factory=dict)


TRIALS = (
    Trial(
        "problem:adding:length=20-600",
        ("elman", "lstm", "gru"),
        (100, 200, 400, 600),
        600,
        17_000,
        f"solved (mean squared error below {SOLVED}) at 600 by LSTM and GRU, not by tanh Elman",
        {
            "train.batch_size": 32,
            "train.learning_rate": 1e-2,
            # Without gates a network does not bear so high a rate.
            "elman.train.learning_rate": 1e-3,
            "problems.sequences": 1600,
            "problems.grow": 0.7,
            "problems.validation_sequences": 64,
        },
    ),
    *(
        Trial(
            f"problem:{name}",
            ("elman", "lstm", "gru", "attention"),
            (20, 40, 100, 200, 400),
            400,
            19_800,
            "learnt at 40 and right at 400 by a recurrent cell, not by the transformer",
            LANGUAGES,
        )
        for name in ("parity", "even_pairs", "cycle_navigation")
    ),
    Trial(
        "problem:mqar:vocabulary=64",
        ("elman", "lstm", "gru", "attention"),
        (64, 128),
        64,
        21_000,
        "learnt by the transformer, not by a recurrent cell",
        {"train.learning_rate": 3e-3, **TWO_BLOCKS},
    ),
)


def main() -> None:
    """Run and write the page."""
    given = sys.argv[1:]
    folder = Path(given[0] if given else "runs/memories")
    processes = int(given[1]) if len(given) > 1 else 2
    seeds = int(given[2]) if len(given) > 2 else SEEDS
    sections, facts = [], {}
    for trial in TRIALS:
        name = parse_problem(trial.problem).name
        found = compare(
            trial.problem,
            folder / name,
            cells=trial.cells,
            lengths=trial.lengths,
            seeds=seeds,
            budget=trial.budget,
            processes=processes,
            observer=print,
            **trial.settings,
        )
        facts[name] = {
            "scores": found.scores().to_dicts(),
            "costs": json.loads(found.costs().write_json()),
            "differences": found.differences().to_dicts(),
        }
        sections += section(trial, found)
    RESULTS.mkdir(parents=True, exist_ok=True)
    told = json.dumps({"machine": describe(), "problems": facts}, indent=1)
    (RESULTS / "memories.json").write_text(told + "\n")
    (RESULTS / "memories.md").write_text("\n".join([*head(seeds), *sections]))


def head(seeds: int) -> list[str]:
    """Return what stands above the sections."""
    machine = describe()
    return [
        "# Memories on problems with known answers",
        "",
        f"Every figure comes from `python -m benchmarks.memories`: {seeds} fits (seeds 0 to "
        f"{seeds - 1}) of every cell at",
        "about equal parameters, on the same sequences in the same order; mean ± standard "
        "deviation over the fits.",
        "Lengths with * lie beyond all that was trained on.",
        "",
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}, torch "
        f"{machine['versions']['torch']}; one thread a fit.",
        "",
    ]


def section(trial: Trial, found: Comparison) -> list[str]:
    """Return one problem's table, costs and verdict."""
    problem = parse_problem(trial.problem)
    scores = found.scores()
    lines = [
        f"## {problem.name.replace('_', ' ')}",
        "",
        f"`{trial.problem}`. To be shown: {trial.shows}. "
        f"Score: {problem.metric.replace('_', ' ')}.",
        "",
        "| length | " + " | ".join(trial.cells) + " | floor | ceiling |",
        "|---" * (len(trial.cells) + 3) + "|",
    ]
    for (length,), part in scores.group_by("length", maintain_order=True):
        own = {row["cell"]: row for row in part.iter_rows(named=True)}
        cells = [f"{number(own[c]['mean'])} ± {number(own[c]['sd'])}" for c in trial.cells]
        first = part.row(0, named=True)
        told = [*cells, number(first["floor"]), number(first["ceiling"])]
        lines.append(f"| {length}{'*' * first['beyond']} | " + " | ".join(told) + " |")
    lines += ["", *costs(found), ""]
    lines += [f"- {sentence}" for sentence in reached(trial, found)]
    lines += [f"- {why} ({key})" for key, why in found.failed.items()]
    lines += [
        f"- Published, {figure.cell}: {figure.score:g} ({figure.setting}; {figure.source})."
        for figure in problem.published
    ]
    return [*lines, ""]


def costs(found: Comparison) -> list[str]:
    """Return the table of costs."""
    lines = [
        "| cell | hidden size | parameters | training s | µs a step | bytes kept | path (steps) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found.costs().iter_rows(named=True):
        lines.append(
            f"| {row['cell']} | {row['hidden_size']} | {row['parameters']:,} | "
            f"{row['train_s']:.0f} | {number(row['infer_us_per_step'])} | "
            f"{row['state_bytes']:,} | {row['path_steps']:,} |"
        )
    return lines


def reached(trial: Trial, found: Comparison) -> list[str]:
    """Return for each cell how many of its fits solved the problem."""
    sentences = []
    for cell in trial.cells:
        part = found.rows.filter(cell=cell, length=trial.judged_at)
        if not part.height:
            continue
        better = max if part["metric"][0] in HIGHER_IS_BETTER else min
        scores = part["score"].to_list()
        right = [s >= RIGHT if better is max else s < SOLVED for s in scores]
        sentences.append(
            f"{cell}: {sum(right)} of {len(right)} fits right at {trial.judged_at}, "
            f"best "
            f"{number(better(scores))}."
        )
    return sentences


if __name__ == "__main__":
    main()
