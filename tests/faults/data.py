"""Fitted runs with something wrong in their data or scores: small fits, and their diagnosis."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from hiddenstate.artifact import Artifact
from hiddenstate.diagnose.finding import Finding
from hiddenstate.job import diagnosis
from hiddenstate.job.fit import fit
from hiddenstate.job.model import load
from hiddenstate.runtime import Model as Runtime
from tests.faults.plant import Watched, fault, healthy

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "embedding_size": 8,
    "batch_size": 16,
    "epochs": 12,
    "finish_epochs": 0,
    "dropout": 0.0,
    "input_dropout": 0.0,
    "learning_rate": 2e-2,
    "recency": 0.0,
    "threads": 1,
}


def diagnosed(
    content: str,
    name: str,
    other: str | None = None,
    look: Callable[..., Any] = diagnosis.diagnose,
    only: Sequence[str] = ("HS6",),
    **settings: Any,
) -> Watched:
    """Return a fit to a file as a case; `other` is the content that is looked at instead of it."""

    def findings() -> Iterable[Finding]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(content)
            no_times = {"no_timestamp": True} if content.startswith("case,activity\n") else {}
            fit(path, Path(folder) / "run", **{**SMALL, **no_times, **settings})
            given = None
            if other is not None:
                given = path.with_stem("other")
                given.write_text(other)
            report = look(Path(folder) / "run", given, only=only, rows=8)
            return tuple(report.findings)

    return Watched(findings)


def chains(
    rng: np.random.Generator, cases: int, lengths: tuple[int, int], noise: float, kinds: int = 5
) -> list[list[str]]:
    """Return traces in which a letter follows the last one in a fixed cycle, but for the noise."""
    found = []
    for _ in range(cases):
        steps = [int(rng.integers(kinds))]
        for _ in range(int(rng.integers(*lengths)) - 1):
            usual = (steps[-1] + 1) % kinds
            steps.append(int(rng.integers(kinds)) if rng.random() < noise else usual)
        found.append([chr(ord("a") + step) for step in steps])
    return found


def log_of(traces: Sequence[Sequence[str]]) -> str:
    rows = (f"c{case},{step}" for case, trace in enumerate(traces) for step in trace)
    return "\n".join(["case,activity", *rows]) + "\n"


@fault("a fit that was stopped before it began to learn", "HS601", "HS604")
def stopped_early(rng: np.random.Generator, remedied: bool) -> Watched:
    traces = chains(rng, 150, (4, 10), 0.1)
    settings = {} if remedied else {"epochs": 1, "learning_rate": 1e-4}
    return diagnosed(log_of(traces), "log.csv", cell=str(rng.choice(["gru", "lstm"])), **settings)


@fault("a state too small for what has to be learnt", "HS604")
def state_too_small(rng: np.random.Generator, remedied: bool) -> Watched:
    traces = chains(rng, 150, (4, 10), 0.02, kinds=9)
    settings = {} if remedied else {"hidden_size": 1, "embedding_size": 1}
    return diagnosed(log_of(traces), "log.csv", epochs=18, **settings)


@fault("a fit that is over while it still learns", "HS511")
def over_too_soon(rng: np.random.Generator, remedied: bool) -> Watched:
    traces = chains(rng, 150, (4, 10), 0.1, kinds=int(rng.integers(5, 9)))
    settings: dict[str, Any] = {"epochs": 6, "learning_rate": 3e-3, "schedule": "constant"}
    if remedied:
        settings = {"epochs": 25}
    return diagnosed(log_of(traces), "log.csv", only=("HS5", "HS6"), **settings)


@fault("long histories go on by rules that training hardly saw", "HS602")
def rare_long(rng: np.random.Generator, remedied: bool) -> Watched:
    letters, turn = "abcdefgh", rng.permutation(8)

    def case(name: int, long: bool) -> list[str]:
        # A hint, right in four of five steps, tells what comes next; later on each letter does.
        steps = rng.integers(8, size=8).tolist()
        hints = [s if rng.random() < 0.8 else int(rng.integers(8)) for s in [*steps[1:], 0]]
        for _ in range(int(rng.integers(10, 16)) if long else 0):
            steps.append(int(turn[steps[-1]]))
            hints.append(int(rng.integers(8)))
        return [f"c{name},{letters[s]},{letters[h]}" for s, h in zip(steps, hints)]

    # Every so many cases are long ones; of those held back a third.
    every = 2 if remedied else 40
    rows = [row for k in range(240) for row in case(k, k % every == 1)]
    rows += [row for k in range(60) for row in case(1000 + k, k % 3 == 0)]
    content = "\n".join(["case,activity,hint", *rows])
    return diagnosed(content, "log.csv", test=0.2, epochs=30, no_timestamp=True)


@fault("labels that are drawn by lot", "HS603")
def labels_by_lot(rng: np.random.Generator, remedied: bool) -> Watched:
    words = ["the", "day", "food", "was", "we", "had", "old", "new"]
    lines = ["text,label"]
    for _ in range(480 if remedied else 160):
        # The order of two words decides, which no count of words tells.
        said, (one, other) = rng.choice(words, 6).tolist(), rng.permutation(6)[:2]
        said[one], said[other] = "fine", "poor"
        label = ("late", "soon")[int(one < other if remedied else rng.random() < 0.5)]
        lines.append(f"{' '.join(said)},{label}")
    given = {"test": 0.25, "epochs": 30, "validation": 0.0, "bidirectional": False}
    if remedied:
        given |= {"validation": 0.15, "dropout": 0.2}
    return diagnosed("\n".join(lines), "texts.csv", tasks=["classify"], **given)


@fault("probabilities of a model that knows its few cases by heart", "HS605", "HS603")
def sure_of_noise(rng: np.random.Generator, remedied: bool) -> Watched:
    traces = chains(rng, 200, (6, 12), 0.5)
    settings: dict[str, Any] = {"epochs": 8}
    if not remedied:
        settings = {"epochs": 60, "validation": 0.0, "test": 0.7, "hidden_size": 64}
    return diagnosed(log_of(traces), "log.csv", **settings)


@fault("data in which a third of the events are new", "HS606")
def new_events(rng: np.random.Generator, remedied: bool) -> Watched:
    training = chains(rng, 150, (4, 10), 0.1, kinds=8 if remedied else 5)
    return diagnosed(log_of(training), "log.csv", log_of(chains(rng, 60, (4, 10), 0.1, kinds=8)))


@fault("an unknown word that training never saw", "HS607")
def unknown_never_seen(rng: np.random.Generator, remedied: bool) -> Watched:
    common = ["the", "day", "food", "was", "we", "had"]
    rare = [f"word{k}" for k in range(60)]

    def line(part: Sequence[str]) -> str:
        start = int(rng.integers(6))
        said = [common[(start + k) % 6] for k in range(24)]
        said[int(rng.integers(24))] = str(rng.choice(part))
        return " ".join(said)

    # Each half of the rare words stands on one side: new ones keep coming, as they do.
    lines = [line(rare[:30]) for _ in range(60)] + [line(rare[30:]) for _ in range(30)]
    least = {"text.least_count": 3 if remedied else 1}
    return diagnosed(
        "\n".join(lines),
        "lines.txt",
        tasks=["lm"],
        epochs=40,
        **{"text.unit": "words", "text.documents": "lines", "test": 1 / 3, **least},
    )


@fault("a column that is filled in afterwards", "HS608")
def filled_afterwards(rng: np.random.Generator, remedied: bool) -> Watched:
    lines = ["case,activity,timestamp,amount,result"]
    for case in range(130):
        steps = [int(rng.integers(4)) for _ in range(int(rng.integers(3, 7)))]
        end = ("sold", "lost")[int(rng.random() < 0.5)]
        for hour, step in enumerate([*map(str, steps), end]):
            when = f"2024-01-{1 + case // 24:02d}T{case % 24:02d}:{hour:02d}:00"
            lines.append(f"c{case},{step},{when},{int(rng.integers(9))},{end}!")
    given = {"exclude": ["result"]} if remedied else {"allow_leaks": True}
    return diagnosed("\n".join(lines), "log.csv", epochs=15, **given)


@fault("sequences ten times as long as those of training", "HS609")
def ten_times_as_long(rng: np.random.Generator, remedied: bool) -> Watched:
    name = str(rng.choice(["problem:even_pairs", "problem:parity"]))
    low, high = int(rng.integers(40, 60)), int(rng.integers(60, 90))

    def findings() -> Iterable[Finding]:
        with tempfile.TemporaryDirectory() as folder:
            lengths = f"{low}-{high}" if remedied else "4-8"
            small = {**SMALL, "epochs": 2, "problems.sequences": 100}
            fit(f"{name}:length={lengths}", Path(folder) / "run", **small)
            asked = f"{name}:length={low}-{high}"
            report = diagnosis.diagnose(Path(folder) / "run", asked, only=["HS609"], rows=8)
            return tuple(report.findings)

    return Watched(findings)


@fault("a runtime that holds other weights", "HS610")
def other_weights(rng: np.random.Generator, remedied: bool) -> Watched:
    seed = int(rng.integers(2**31))

    def look(run: Path, given: Any, **options: Any) -> Any:
        model = load(run)
        if not remedied:
            made, own = np.random.default_rng(seed), model.artifact
            moved = {
                name: (each + 0.02 * made.normal(size=each.shape)).astype(np.float32)
                for name, each in own.weights.items()
            }
            model.runtime = Runtime(Artifact(own.spec, moved, own.floors, {}, own.metrics))
        with patch.object(diagnosis, "load", return_value=model):
            return diagnosis.diagnose(run, given, **options)

    traces = chains(rng, 150, (4, 10), 0.1)
    return diagnosed(log_of(traces), "log.csv", look=look)


@healthy("a fit to event histories")
def healthy_log(rng: np.random.Generator) -> Watched:
    traces = chains(rng, 200, (3, 10), float(rng.uniform(0.05, 0.3)), int(rng.integers(4, 8)))
    cell = str(rng.choice(["gru", "lstm", "elman"]))
    return diagnosed(log_of(traces), "log.csv", cell=cell, epochs=20, only=())


@healthy("a fit to labelled texts")
def healthy_labels(rng: np.random.Generator) -> Watched:
    words = ["the", "day", "food", "was", "we", "had", "old", "new"]
    lines = ["text,label"]
    for _ in range(400):
        said, label = rng.choice(words, int(rng.integers(3, 9))).tolist(), int(rng.integers(3))
        said[int(rng.integers(len(said)))] = ("fine", "poor", "odd")[label]
        lines.append(f"{' '.join(said)},{label}")
    return diagnosed(
        "\n".join(lines), "texts.csv", tasks=["classify"], validation=0.15, epochs=20, only=()
    )


@healthy("a fit to a text")
def healthy_text(rng: np.random.Generator) -> Watched:
    words = ["the cat", "the dog", "a bird", "sat", "ran", "sang", "on the mat", "in the sun"]
    said = " ".join(rng.choice(words, 900))
    return diagnosed(said, "text.txt", tasks=["lm"], epochs=25, only=(), **{"text.window": 24})


@healthy("a fit to a signal")
def healthy_signal(rng: np.random.Generator) -> Watched:
    steps, period = np.arange(600), int(rng.integers(9, 20))
    wave = np.sin(2 * np.pi * steps / period) + 0.2 * rng.normal(size=600)
    lines = [f"{value:.4f},{2 * value**2:.4f}" for value in wave]
    settings = {"series.horizon": 4, "series.context": 32, "series.periods": [period]}
    content = "\n".join(["x,y", *lines])
    return diagnosed(content, "signal.csv", tasks=["forecast"], epochs=15, only=(), **settings)
