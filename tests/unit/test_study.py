"""What a comparison of memories rests on: equal cost, paired tests, rows that survive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars
import pytest
import torch

from hiddenstate.artifact import Artifact
from hiddenstate.errors import TrainingError, UsageError
from hiddenstate.job.families import family_of
from hiddenstate.models import Losses, Trainable
from hiddenstate.runtime import Model as Runtime
from hiddenstate.runtime.translator import Translator
from hiddenstate.study import Comparison, compare
from hiddenstate.study.measure import headline
from hiddenstate.study.order import order_control
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
from hiddenstate.train import read_recipe
from tests.journeys.test_translate import PAIRS
from tests.unit.family_sources import FAMILIES
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
    steps = float(prepared.feeds()[0].lengths.mean())
    cost = {"parameters": lambda s: s.parameters, "flops": lambda s: s.flops}[equal]
    for cell, size in equal_sizes(plan, prepared).items():
        unit = 8 if cell == "attention" else 1
        for hidden in (size.hidden_size - unit, size.hidden_size + unit):
            if hidden < 1:
                continue
            recipe = plan.recipe(cell, **{"model.hidden_size": hidden})
            other = size_of(prepared.with_recipe(recipe).spec, hidden, steps)
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
    built = prepared.build().parameters()
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
    recipe = plan.recipe(cell, **{"model.hidden_size": 8, "model.layers": 2})
    prepared = prepared_once(plan).with_recipe(recipe)
    spec = prepared.spec
    weights = {k: v.detach().numpy() for k, v in prepared.build().state_dict().items()}
    runtime = Runtime(Artifact(spec, weights, {}, {}, {}))
    _, state = runtime.run(np.zeros((1, 9, 1), np.int64), np.zeros((1, 9, 0), np.float32))
    kept = sum(array.nbytes for layer in state for array in flat(layer))
    assert state_bytes(spec, 9) == kept
    assert path_steps(spec, 9) == (2 if cell == "attention" else 10)


TRANSLATORS = [
    {"model.cell": "lstm", "pairs.context": "first_state", "model.bidirectional": False},
    {"model.cell": "gru", "pairs.context": "every_step", "model.layers": 2},
    {"model.cell": "gru", "pairs.context": "additive", "pairs.coverage": True},
    {"model.cell": "elman", "pairs.context": "dot", "pairs.input_feeding": True},
    {"model.cell": "lstm", "pairs.context": "general", "model.tied": False},
    {"model.cell": "attention"},
]


@pytest.mark.parametrize("options", TRANSLATORS, ids=lambda o: o.get("pairs.context", "cross"))
def test_a_translator_is_counted_and_kept_as_it_is_built(
    options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    settings = {"tasks": ["translate"], "pairs.unit": "words", "model.embedding_size": 6}
    plan = a_plan(source=str(tmp_path / "pairs.tsv"), settings=settings, lengths=None)
    recipe = read_recipe(None, {**settings, "model.hidden_size": 8, **options})
    prepared = prepared_once(plan).with_recipe(recipe)
    weights = {k: v.detach().numpy() for k, v in prepared.build().state_dict().items()}
    assert parameters_of(prepared.spec) == sum(value.size for value in weights.values())
    runtime = Translator(Artifact(prepared.spec, weights, {}, {}, {}))
    codes = np.zeros((1, 9), np.int64)
    *_, place = runtime.run(codes, runtime.read(codes, np.array([9])))
    known = {id(array): array for part in place for array in flat(part)}
    assert state_bytes(prepared.spec, 9) == sum(array.nbytes for array in known.values())
    near = prepared.spec.attends or recipe.model.cell == "attention"
    assert (path_steps(prepared.spec, 9) < 9) == near


def flat(state: Any) -> list[np.ndarray]:
    """Return the arrays of a state; of a cache, what its steps fill and not its spare room."""
    if state is None:
        return []
    if hasattr(state, "keys") and not callable(state.keys):
        steps = int(np.max(state.steps))
        own = [state.keys[:, :steps], state.values[:, :steps], np.asarray(state.steps)]
        return own + flat(state.memory)
    if isinstance(state, np.ndarray):
        return [state]
    return [array for part in state for array in flat(part)]


class Knows(Trainable):
    """Stands for a model that answers a problem from all that it sees; a wrong answer costs 1."""

    kernels = ()

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def losses(self, batch: Any, label_smoothing: float = 0.0) -> Losses:  # noqa: ARG002
        rows = [row[:steps, 0] for row, steps in zip(batch.codes, batch.lengths.tolist())]
        answers = {
            "parity": lambda row: row.sum() % 2,
            "even_pairs": lambda row: row[0] != row[-1],
        }[self.name]
        told = torch.tensor([int(answers(row)) for row in rows])
        wrong = (told != batch.targets[0]) & batch.masks[0]
        return Losses(wrong.sum()[None], batch.masks[0].sum()[None])


@pytest.mark.parametrize(("name", "kept"), [("parity", True), ("even_pairs", False)])
def test_shuffling_the_past_costs_only_what_rests_on_order(
    name: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = a_plan(source=f"problem:{name}:length=12")
    prepared = prepared_once(plan)
    monkeypatch.setattr(type(prepared), "build", lambda *_: Knows(name))
    in_order, shuffled = order_control(prepared, {})
    assert in_order == 0.0
    assert (shuffled == 0.0) == kept


def test_a_past_of_one_step_has_no_order() -> None:
    plan = a_plan(source="problem:parity:length=2", lengths=(2,), cells=("gru",))
    prepared = prepared_once(plan)
    weights = {k: v.numpy() for k, v in prepared.build().state_dict().items()}
    assert np.isnan(order_control(prepared, weights)).all()


def test_the_headline_is_the_metric_that_is_compared_and_its_best_floor() -> None:
    def floor(**metrics: float) -> dict[str, Any]:
        return {"metrics": {name: {"value": value} for name, value in metrics.items()}}

    floors = {"ngram": floor(nats=2.0, bleu=3.0), "linear": floor(nats=1.5, bleu=2.0)}
    for metric, best in (("nats", "linear"), ("bleu", "ngram")):
        task = {"verdicts": {"ngram": {metric: {}, "other": {}}}, "floors": floors}
        assert headline(task) == (metric, best)


def some_rows(gap: float, noise: float, seeds: int = 5) -> polars.DataFrame:
    rng = np.random.default_rng(0)
    base = rng.normal(0.5, 0.1, seeds)
    return polars.DataFrame(
        [
            {
                "cell": cell,
                "seed": seed,
                "length": 40,
                "group": "40",
                "by": "steps",
                "beyond": False,
                "metric": "accuracy",
                "score": base[seed] + shift + noise * rng.normal(),
                "low": 0.4,
                "high": 0.6,
                "floor": 0.5,
                "floor_name": "guess",
                "ceiling": 1.0,
                "in_order": 0.5,
                "shuffled": 0.5,
            }
            for seed in range(seeds)
            for cell, shift in (("lstm", gap), ("gru", 0.0))
        ]
    )


def test_a_difference_larger_than_its_spread_is_found_and_no_other() -> None:
    found = differences(some_rows(0.1, 0.01), ["lstm", "gru"]).row(0, named=True)
    assert found["better"] == "lstm"
    assert found["pairs"] == 5
    assert found["difference"] == pytest.approx(0.1, abs=0.02)
    assert differences(some_rows(0.0, 0.05), ["lstm", "gru"])["better"].to_list() == [None]
    assert differences(some_rows(0.0, 0.0), ["lstm", "gru"])["p"].to_list() == [None]
    # The same difference at every seed but for rounding, 0.8 - 0.7 and 0.6 - 0.5, is no evidence.
    rounded = some_rows(0.1, 0.0).with_columns(score=polars.col("score") + polars.col("seed") / 10)
    assert differences(rounded, ["lstm", "gru"])["p"].to_list() == [None]


def test_all_lengths_together_are_corrected_apart() -> None:
    single = some_rows(0.02, 0.01)
    lengths = [single.with_columns(length=polars.lit(n, polars.Int64)) for n in (None, 40, 80, 120)]
    found = differences(polars.concat(lengths), ["lstm", "gru"])
    alone = differences(single, ["lstm", "gru"])["p"][0]
    assert found["p"].to_list() == pytest.approx([alone, 3 * alone, 3 * alone, 3 * alone])


def test_one_seed_tells_no_difference() -> None:
    found = differences(some_rows(0.1, 0.1, seeds=1), ["gru", "lstm"]).row(0, named=True)
    assert (found["pairs"], found["p"], found["better"]) == (1, None, None)


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
    fit = Fit("problem:parity", "gru", 0, 8, (4, 8), {"train": {"epochs": 2}}, {"digest": "a"})
    changes: list[dict[str, Any]] = [
        {"source": "problem:adding"},
        {"cell": "lstm"},
        {"seed": 1},
        {"hidden_size": 9},
        {"lengths": (4,)},
        {"settings": {"train": {"epochs": 3}}},
        {"data": {"digest": "b"}},
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
    # The guesser's score on the same sequences of each length.
    assert found.rows["floor"].n_unique() == 2
    assert found.rows["floor"].is_between(0.2, 0.8).all()
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
    same = ["cell", "seed", "length", "score", "in_order", "shuffled", "fingerprint"]
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
    assert not any(rows_file(tmp_path, Fit(PARITY, "gru", 0, 1, (6,), {}, {})).parent.glob("*"))


def test_equal_time_ends_every_fit_by_the_clock(tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SMALL, "cells": ("elman", "gru"), "lengths": (6,)}
    minutes = 0.01
    found = compare(
        PARITY, tmp_path, seeds=1, equal="time", minutes=minutes, budget=1500, **settings
    )
    for row in found.rows.iter_rows(named=True):
        assert row["epochs"] > SMALL["epochs"]
        assert 60 * minutes <= row["train_s"] < 60 * minutes + 5


@pytest.mark.parametrize("task", FAMILIES)
def test_every_family_is_compared_by_the_lengths_of_its_scores(task: str, tmp_path: Path) -> None:
    name, content, metric, own = FAMILIES[task]
    (tmp_path / name).write_text(content)
    settings = {"tasks": [task], "train.epochs": 1, "model.embedding_size": 4, **own}
    found = compare(
        tmp_path / name,
        tmp_path / "out",
        cells=("gru", "attention"),
        seeds=1,
        budget=6000,
        **settings,
    )
    assert not found.failed
    assert set(found.rows["metric"]) == {metric}
    groups = found.rows.filter(cell="gru")["group"].to_list()
    assert groups[0] == "all"
    assert len(groups) > 1
    assert groups == found.rows.filter(cell="attention")["group"].to_list()
    assert found.rows["floor"].null_count() == 0
    assert found.rows["in_order"].is_finite().all()
    assert (found.rows["in_order"] != found.rows["shuffled"]).all()
    at = found.rows.filter(polars.col("length").is_not_null())
    assert (at["infer_us_per_step"] > 0).all()
    assert (at["path_steps"] > 0).all()
    for cell in found.plan.cells:
        recipe = found.plan.recipe(cell, **{"model.hidden_size": found.sizes[cell].hidden_size})
        built = family_of([task]).prepare(tmp_path / name, recipe, lambda _: None).build()
        count = sum(weight.numel() for weight in built.parameters())
        assert found.sizes[cell].parameters == count
    # Whatever reads a sequence as a whole keeps nothing from step to step.
    assert at["state_bytes"].is_null().all() == (task == "classify")


def test_lengths_choose_groups_and_others_are_refused(tmp_path: Path) -> None:
    name, content, _, own = FAMILIES["translate"]
    (tmp_path / name).write_text(content)
    settings = {"tasks": ["translate"], "train.epochs": 1, "model.embedding_size": 4, **own}
    fits: dict[str, Any] = {"cells": ("gru",), "seeds": 1, "budget": 6000, **settings}
    found = compare(tmp_path / name, tmp_path / "some", lengths=(2, 50), **fits)
    assert found.rows["group"].to_list() == ["all", "1-5"]
    with pytest.raises(TrainingError, match="Nothing was scored at the lengths 50"):
        compare(tmp_path / name, tmp_path / "none", lengths=(50,), **fits)
