"""What a comparison of memories rests on: equal cost, paired tests, rows that survive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest

from hiddenstate.artifact import Artifact
from hiddenstate.errors import UsageError
from hiddenstate.job.problems.evaluate import test_cases as cases_of_test
from hiddenstate.runtime import Model as Runtime
from hiddenstate.study import Comparison, compare
from hiddenstate.study.measure import _order_control
from hiddenstate.study.page import page
from hiddenstate.study.plan import CELLS, Fit, Plan, planned
from hiddenstate.study.runs import rows_file
from hiddenstate.study.sizes import (
    Size,
    equal_sizes,
    parameters_of,
    path_steps,
    prepared_once,
    size_of,
    state_bytes,
    uneven,
)
from hiddenstate.study.statistics import _holm, costs, differences, scores
from hiddenstate.tasks.problems import Cases, Problem, parse_problem
from tests.unit.test_problem_job import TINY

SMALL = {name: value for name, value in TINY.items() if name not in ("threads", "hidden_size")}
PARITY = "problem:parity:length=1-6"


def a_plan(**changed: Any) -> Plan:
    given = {
        "source": PARITY,
        "cells": CELLS,
        "lengths": (6, 12),
        "seeds": 1,
        "equal": "parameters",
        "budget": 2000,
        "minutes": None,
        "settings": SMALL,
    }
    return planned(**{**given, **changed})


@pytest.mark.parametrize("equal", ["parameters", "flops"])
def test_no_other_size_comes_nearer_to_the_budget(equal: str) -> None:
    plan = a_plan(equal=equal, budget=4000, settings={**SMALL, "attention.model.layers": 2})
    prepared = prepared_once(plan)
    steps = float(prepared.feeds(plan.recipe("gru"))[0].lengths.mean())
    cost = {"parameters": lambda s: s.parameters, "flops": lambda s: s.flops}[equal]
    for cell, size in equal_sizes(plan, prepared).items():
        unit = 8 if cell == "attention" else 1
        for hidden in (size.hidden_size - unit, size.hidden_size + unit):
            if hidden < 1:
                continue
            recipe = plan.recipe(cell, **{"model.hidden_size": hidden})
            other = size_of(prepared.spec, recipe, steps)
            assert abs(cost(other) - 4000) >= abs(cost(size) - 4000)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": 2, "layer_norm": True, "embedding_size": 1},
        {"pool": "attention"},
        {"bidirectional": True, "layers": 2, "layer_norm": True},
    ],
)
def test_parameters_are_counted_without_building(cell: str, options: dict[str, Any]) -> None:
    named = {f"model.{name}": value for name, value in options.items()}
    plan = a_plan(settings={**SMALL, **named, "model.hidden_size": 8}, cells=(cell,))
    prepared = prepared_once(plan)
    built = prepared.build(plan.recipe(cell)).parameters()
    assert parameters_of(prepared.spec) == sum(weight.numel() for weight in built)


def test_uneven_costs_are_told() -> None:
    sizes = {"gru": Size(8, 1000, 2000), "attention": Size(8, 1090, 2600)}
    assert uneven(sizes, "parameters") == []
    (told,) = uneven(sizes, "flops")
    assert "attention has 30% more than gru" in told


def test_without_a_budget_the_first_cell_has_its_usual_size() -> None:
    plan = a_plan(cells=("lstm", "gru"), budget=None, settings={**SMALL, "model.hidden_size": 20})
    assert equal_sizes(plan, prepared_once(plan))["lstm"].hidden_size == 20


@pytest.mark.parametrize("cell", CELLS)
def test_what_is_kept_for_a_live_sequence_is_what_the_runtime_keeps(cell: str) -> None:
    plan = a_plan()
    prepared = prepared_once(plan)
    recipe = plan.recipe(cell, **{"model.hidden_size": 8, "model.layers": 2})
    prepared = type(prepared)(
        **{**vars(prepared), "spec": replace(prepared.spec, layers=layers(recipe, prepared))}
    )
    weights = {k: v.detach().numpy() for k, v in prepared.build(recipe).state_dict().items()}
    runtime = Runtime(Artifact(prepared.spec, weights, {}, {}, {}))
    _, state = runtime.run(np.zeros((1, 9, 1), np.int64), np.zeros((1, 9, 0), np.float32))
    kept = sum(array.nbytes for layer in state for array in flat(layer))
    assert state_bytes(prepared.spec.layers, 9) == kept
    assert path_steps(prepared.spec.layers, 9) == (2 if cell == "attention" else 10)


def layers(recipe: Any, prepared: Any) -> Any:
    from hiddenstate.job.layers import layers_of

    return layers_of(recipe, prepared.spec.input_size)


def flat(state: Any) -> list[np.ndarray]:
    """Return the arrays of a state; of a cache, what its steps fill and not its spare room."""
    if state is None:
        return []
    if hasattr(state, "keys") and not callable(state.keys):
        steps = int(np.max(state.steps))
        return [state.keys[:, :steps], state.values[:, :steps], np.asarray(state.steps)]
    if isinstance(state, np.ndarray):
        return [state]
    return [array for part in state for array in flat(part)]


class Knows:
    """Stands for a model that answers a problem from all that it sees."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def run_whole(self, codes: Any, _numbers: Any, lengths: Any) -> tuple[np.ndarray, ...]:
        rows = [row[:steps, 0] for row, steps in zip(codes, lengths)]
        answers = {
            "parity": lambda row: row.sum() % 2,
            "even_pairs": lambda row: int(row[0] != row[-1]),
        }[self.problem.name]
        return (np.eye(2)[[answers(row) for row in rows]],)

    def decode(self, outputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return tuple(np.log(np.maximum(o, 1e-30)) for o in outputs)


@pytest.mark.parametrize(("name", "kept"), [("parity", True), ("even_pairs", False)])
def test_shuffling_the_past_costs_only_what_rests_on_order(name: str, kept: bool) -> None:
    problem = parse_problem(f"{name}:length=12")
    cases: Cases = cases_of_test(problem, 12, 100)
    runtime: Any = Knows(problem)
    in_order, shuffled = _order_control(runtime, problem, cases)
    assert in_order == 1.0
    assert (shuffled == 1.0) == kept


def some_rows(gap: float, noise: float, seeds: int = 5) -> polars.DataFrame:
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.1, seeds)
    return polars.DataFrame(
        [
            {
                "cell": cell,
                "seed": seed,
                "length": 40,
                "beyond": False,
                "metric": "accuracy",
                "score": base[seed] + shift + noise * rng.normal(),
                "floor": 0.5,
                "ceiling": 1.0,
                "in_order": 0.5,
                "shuffled": 0.5,
                "marks": (shift + noise * rng.normal(size=200)).tolist(),
            }
            for seed in range(seeds)
            for cell, shift in (("lstm", gap), ("gru", 0.0))
        ]
    )


def test_a_difference_larger_than_its_spread_is_found_and_no_other() -> None:
    found = differences(some_rows(0.1, 0.01), ["lstm", "gru"]).row(0, named=True)
    assert found["better"] == "lstm"
    assert (found["over"], found["pairs"]) == ("seeds", 5)
    assert found["difference"] == pytest.approx(0.1, abs=0.02)
    assert differences(some_rows(0.0, 0.05), ["lstm", "gru"])["better"].to_list() == [None]
    assert differences(some_rows(0.0, 0.0), ["lstm", "gru"])["p"].to_list() == [None]


def test_with_one_seed_the_cases_are_paired() -> None:
    found = differences(some_rows(0.1, 0.1, seeds=1), ["gru", "lstm"]).row(0, named=True)
    assert (found["over"], found["pairs"], found["better"]) == ("cases", 200, "lstm")


def test_less_is_better_for_errors() -> None:
    rows = some_rows(0.1, 0.01).with_columns(metric=polars.lit("squared_error"))
    assert differences(rows, ["lstm", "gru"])["better"].to_list() == ["gru"]


def test_holm_by_hand() -> None:
    # Holm 1979: sorted .01 .02 .04 times 3, 2, 1; later ones at least as large as earlier ones.
    assert _holm([0.04, 0.01, float("nan"), 0.02])[[0, 1, 3]] == pytest.approx([0.04, 0.03, 0.04])


def test_the_spread_is_over_the_seeds() -> None:
    rows = some_rows(0.1, 0.01)
    own = scores(rows).filter(cell="lstm").row(0, named=True)
    values = rows.filter(cell="lstm")["score"].to_numpy()
    assert own["mean"] == pytest.approx(values.mean())
    assert own["sd"] == pytest.approx(values.std(ddof=1))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"cells": ("gru", "lstn")}, "lstm"),
        ({"cells": ("gru", "gru")}, "each cell once"),
        ({"cells": ()}, "none"),
        ({"lengths": ()}, "none"),
        ({"seeds": 0}, "0 seeds"),
        ({"equal": "size"}, "parameters, flops, time"),
        ({"equal": "time"}, "--minutes"),
        ({"minutes": 1.0}, "--minutes"),
        ({"equal": "time", "minutes": 1.0, "settings": {"problems.grow": 0.5}}, "grow"),
        ({"source": "x.txt", "settings": {"tasks": ["lm"]}}, "compared by length"),
        ({"source": "problem:partiy"}, "parity"),
        ({"budget": 3}, "narrowest"),
        ({"settings": {"train.epoch": 3}}, "epochs"),
        ({"settings": {"gru.train.epoch": 3}}, "epochs"),
    ],
)
def test_wrong_plans_are_refused(changed: dict[str, Any], said: str) -> None:
    def make() -> None:
        plan = a_plan(**changed)
        equal_sizes(plan, prepared_once(plan))

    with pytest.raises(UsageError, match=said):
        make()


def test_a_setting_of_one_cell_is_that_cells() -> None:
    plan = a_plan(settings={"train.epochs": 3, "gru.train.epochs": 5})
    assert plan.recipe("gru").train.epochs == 5
    assert plan.recipe("lstm").train.epochs == 3


def test_the_key_knows_all_that_rows_depend_on() -> None:
    fit = Fit("problem:parity", "gru", 0, 8, (4, 8), {"train": {"epochs": 2}})
    changes: list[dict[str, Any]] = [
        {"source": "problem:adding"},
        {"cell": "lstm"},
        {"seed": 1},
        {"hidden_size": 9},
        {"lengths": (4,)},
        {"settings": {"train": {"epochs": 3}}},
    ]
    keys = {replace(fit, **change).key for change in changes}
    assert len(keys | {fit.key}) == len(changes) + 1
    assert replace(fit).key == fit.key


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    out = tmp_path_factory.mktemp("compared")
    settings: dict[str, Any] = {**SMALL, "cells": ("gru", "attention"), "lengths": (6, 12)}
    return compare(PARITY, out, seeds=2, budget=1500, **settings), out


def test_a_comparison_has_a_row_for_each_fit_and_length(
    compared: tuple[Comparison, Path],
) -> None:
    found, out = compared
    assert found.rows.height == 2 * 2 * 2
    assert found.rows.filter(beyond=True)["length"].unique().to_list() == [12]
    assert found.rows["floor"].unique().to_list() == [0.5]
    assert polars.read_parquet(out / "results.parquet").equals(found.rows)
    kept = found.costs().rows_by_key("cell", named=True, unique=True)
    assert kept["attention"]["state_bytes"] > kept["gru"]["state_bytes"]
    assert kept["attention"]["path_steps"] == 1
    assert kept["gru"]["path_steps"] == 12
    assert costs(found.rows).height == 2


def test_the_page_needs_no_network(compared: tuple[Comparison, Path]) -> None:
    text = (compared[1] / "page.html").read_text()
    assert text == page(compared[0])
    assert "<script src" not in text
    assert "<link" not in text
    for cell in ("gru", "attention"):
        assert cell in text


def test_what_is_there_is_not_made_again(
    compared: tuple[Comparison, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out = compared
    made: list[Fit] = []
    from hiddenstate.study import runs

    real = runs.fitted_rows
    monkeypatch.setattr(runs, "fitted_rows", lambda fit: made.append(fit) or real(fit))
    files = sorted((out / "fits").iterdir())
    files[0].unlink()
    settings: dict[str, Any] = {**SMALL, "cells": ("gru", "attention"), "lengths": (6, 12)}
    again = compare(PARITY, out, seeds=2, budget=1500, **settings)
    assert len(made) == 1
    # The same seed gives the same scores; only the clock differs.
    same = ["cell", "seed", "length", "score", "marks", "fingerprint"]
    order = ["cell", "seed", "length"]
    assert again.rows.select(same).sort(order).equals(found.rows.select(same).sort(order))


def test_a_fit_that_fails_is_told_and_the_others_are_made(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SMALL, "cells": ("gru", "attention"), "lengths": (6,)}
    settings["gru.train.kernel"] = "no such kernel"
    found = compare(PARITY, tmp_path, seeds=1, budget=1500, **settings)
    assert found.rows["cell"].to_list() == ["attention"]
    (key,) = found.failed
    assert "no such kernel" in found.failed[key]
    assert "no such kernel" in (tmp_path / "page.html").read_text()


def test_another_comparison_in_the_folder_is_refused(
    compared: tuple[Comparison, Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="is about problem:parity"):
        compare("problem:even_pairs", compared[1], lengths=(6,), seeds=1, budget=1500, **SMALL)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is no comparison"):
        compare(PARITY, tmp_path, lengths=(6,), seeds=1, budget=1500, **SMALL)
    assert not any(rows_file(tmp_path, Fit(PARITY, "gru", 0, 1, (6,), {})).parent.glob("*"))


def test_equal_time_ends_every_fit_by_the_clock(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SMALL, "cells": ("elman", "gru"), "lengths": (6,)}
    minutes = 0.01
    found = compare(
        PARITY, tmp_path, seeds=1, equal="time", minutes=minutes, budget=1500, **settings
    )
    for row in found.rows.iter_rows(named=True):
        assert row["epochs"] > SMALL["epochs"]
        assert 60 * minutes <= row["train_s"] < 60 * minutes + 5
