"""The main job on small data, as it is done on the command line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from tests.journeys import logs
from tests.journeys.calling import call, run
from tests.journeys.wrong import GOOD, QUICK

COMMANDS = ("", "fit", "evaluate", "predict", "demo", "data", "data check", "data simulate")
TASKS = ("next_event", "remaining_time", "time_to_next", "occurs:survey", "outcome:column=verdict")


@pytest.fixture
def folder(good: Path) -> Path:
    """Return a folder with log.csv and a model in `run`; what a test adds has names of its own."""
    return good


def fingerprint(run_folder: Path) -> str:
    return str(json.loads((run_folder / "manifest.json").read_text())["fingerprint"])


def test_the_job_from_file_to_predictions_in_processes(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(logs.csv())
    fitted = run(GOOD, tmp_path)
    assert fitted.code == 0, fitted.err
    assert "n-gram" in fitted.out
    assert "Model card: run/MODEL_CARD.md" in fitted.err
    assert "MODEL_CARD" not in fitted.out
    scored = run("evaluate run log.csv --json", tmp_path)
    assert (scored.code, scored.err) == (0, "")
    scores = json.loads(scored.out)
    for metric in ("accuracy", "log_loss"):
        low, high = scores[f"{metric}_interval"]
        assert low <= scores[metric] <= high
        assert set(scores["floors"]) == {"most_frequent", "last_activity", "ngram"}
        assert all(floor[metric] >= 0 for floor in scores["floors"].values())
    assert scores["fingerprint"] == fingerprint(tmp_path / "run")
    predicted = run("predict run log.csv --out predictions.csv", tmp_path)
    assert (predicted.code, predicted.out) == (0, "")
    assert predicted.err == "120 predictions are in predictions.csv\n"


def test_the_saved_recipe_and_the_seed_give_the_same_weights(folder: Path) -> None:
    again = call("fit log.csv --out again --recipe run/recipe.toml", folder)
    assert again.code == 0, again.err
    weights, before = (
        load_file(folder / name / "weights.safetensors") for name in ("again", "run")
    )
    assert all(np.array_equal(weights[name], before[name]) for name in before)
    assert (folder / "again/recipe.toml").read_text() == (folder / "run/recipe.toml").read_text()
    other = call(f"fit log.csv --out other --seed 1 {QUICK}", folder)
    assert other.code == 0
    assert fingerprint(folder / "other") != fingerprint(folder / "run")


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_predictions_are_a_table_of_probabilities(ending: str, folder: Path) -> None:
    readers: dict[str, Any] = {
        ".parquet": pl.read_parquet,
        ".csv": pl.read_csv,
        ".jsonl": pl.read_ndjson,
    }
    assert call(f"predict run log.csv --out p{ending}", folder).code == 0
    table = readers[ending](folder / f"p{ending}")
    assert table.columns[:4] == ["case", "events", "activity", "time"]
    assert set(table["activity"]) == {"close"}
    chances = table.select([name for name in table.columns if name.startswith("p(")])
    np.testing.assert_allclose(chances.sum_horizontal().to_numpy(), 1, atol=1e-9)
    np.testing.assert_allclose(
        chances.max_horizontal().to_numpy(), table["next_event_probability"].to_numpy()
    )
    assert list(folder.glob("*.partial")) == []


def test_predictions_at_every_step(folder: Path) -> None:
    every = call("predict run log.csv --every-step --json", folder)
    last = call("predict run log.csv --json", folder)
    rows = json.loads(every.out)["predictions"]
    assert len(rows) == len(list(logs.rows()))
    assert [row for row in rows if row["activity"] == "close"] == json.loads(last.out)[
        "predictions"
    ]


def test_what_was_never_seen_is_told(folder: Path) -> None:
    text = logs.csv(5).replace("triage", "dance").replace("phone", "fax")
    (folder / "new.csv").write_text(text)
    told = call("predict run new.csv", folder)
    assert told.code == 0
    assert "value of activity that the model never saw" in told.err
    assert "'dance'" in told.err
    assert "'fax'" in told.err
    assert call("predict run new.csv --quiet", folder).err == ""


def test_one_event_of_one_open_case_is_enough(folder: Path) -> None:
    """A column that is empty, or the same everywhere, is still an input of the model."""
    (folder / "one.csv").write_text(
        "case,activity,timestamp,amount,channel\nx,open,2024-01-01,,mail\n"
    )
    told = call("predict run one.csv --json", folder)
    assert (told.code, told.err) == (0, "")
    (row,) = json.loads(told.out)["predictions"]
    assert (row["case"], row["events"]) == ("x", 1)


def test_existing_files_stay_unless_told(folder: Path) -> None:
    first = call("predict run log.csv --out kept.csv", folder)
    kept = (folder / "kept.csv").read_bytes()
    (folder / "kept.csv").write_text("mine\n")
    assert call("predict run log.csv --out kept.csv", folder).code == 2
    assert (folder / "kept.csv").read_text() == "mine\n"
    assert call("predict run log.csv --out kept.csv --overwrite", folder).code == first.code == 0
    assert (folder / "kept.csv").read_bytes() == kept


def test_a_run_is_replaced_when_told(folder: Path) -> None:
    command = f"fit log.csv --out twice {QUICK} --hidden-size"
    assert call(f"{command} 8", folder).code == 0
    (folder / "twice" / "old.txt").write_text("of the first fit")
    before = fingerprint(folder / "twice")
    assert call(f"{command} 9", folder).code == 2
    assert fingerprint(folder / "twice") == before
    assert call(f"{command} 9 --overwrite", folder).code == 0
    assert fingerprint(folder / "twice") != before
    assert not (folder / "twice" / "old.txt").exists()


def test_several_tasks_at_once(tmp_path: Path) -> None:
    lines = logs.csv().splitlines()
    # Half of the verdicts come with the close, so that they give nothing away before it.
    (tmp_path / "log.csv").write_text(
        f"{lines[0]},verdict\n"
        + "".join(
            f"{line},{('kept', 'paid')[number % 2] if ',close,' in line else ''}\n"
            for number, line in enumerate(lines[1:])
        )
    )
    flags = " ".join(f"--task {task}" for task in TASKS)
    fitted = call(f"fit log.csv --out run {QUICK} {flags} --json", tmp_path)
    assert fitted.code == 0, fitted.err
    assert set(json.loads(fitted.out)["scores"]["tasks"]) == set(TASKS)
    scores = json.loads(call("evaluate run log.csv --json", tmp_path).out)
    assert scores["tasks"]["remaining_time"]["model"]["metrics"]["mae_days"]["value"] >= 0
    # Open cases have no verdict yet, and no such column.
    (tmp_path / "open.csv").write_text(logs.csv(7))
    rows = json.loads(call("predict run open.csv --json", tmp_path).out)["predictions"]
    assert len(rows) == 7
    for row in rows:
        assert row["remaining_time_days"] >= 0
        assert row["time_to_next_days"] >= 0
        assert row["occurs:survey"] in ("no", "yes")
        assert row["outcome:column=verdict"] in ("kept", "paid")
    assert call("evaluate run open.csv", tmp_path).code == 1


def test_the_form_of_the_file_changes_nothing(folder: Path) -> None:
    text = logs.csv()
    (folder / "zipped.csv.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "semicolons.csv").write_text(logs.csv(delimiter=";"))
    (folder / "lines.jsonl").write_text(logs.json_lines())
    pl.read_csv(folder / "log.csv", try_parse_dates=True).write_parquet(folder / "table.parquet")
    (folder / "windows.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    for name in (
        "zipped.csv.gz",
        "semicolons.csv",
        "lines.jsonl",
        "table.parquet",
        "windows.csv",
    ):
        done = call(f"fit {name} --out of_{name} {QUICK}", folder)
        assert done.code == 0, done.err
        assert fingerprint(folder / f"of_{name}") == fingerprint(folder / "run"), name


@pytest.mark.parametrize(
    "command",
    [
        f"fit log.csv --out json {QUICK}",
        "evaluate run log.csv",
        "predict run log.csv",
        "predict run log.csv --out json.csv",
        "data check log.csv",
        "data simulate --tickets 20 --out json_tickets.csv",
    ],
)
def test_json_is_one_object_on_stdout_and_quiet_is_quiet(command: str, folder: Path) -> None:
    done = call(f"{command} --json --quiet", folder)
    assert (done.code, done.err) == (0, "")
    assert isinstance(json.loads(done.out), dict)


def test_a_check_names_what_is_wrong(folder: Path) -> None:
    fine = call("data check log.csv", folder)
    assert fine.code == 0
    assert "triage" in fine.out
    (folder / "single.csv").write_text("case,activity,timestamp\na,x,2024-01-01\na,x,2024-01-02\n")
    bad = call("data check single.csv", folder)
    assert bad.code == 1
    assert "one-activity" in bad.out
    assert "--activity" in bad.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, tmp_path: Path) -> None:
    told = call(f"{command} --help", tmp_path)
    assert (told.code, told.err) == (0, "")
    assert "Usage: hiddenstate" in told.out
    shown = "Example:  hiddenstate " + command
    assert command in ("", "data") or shown in told.out
    for short in told.out.splitlines():
        assert len(short) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_flags_are_wrong_use(command: str, tmp_path: Path) -> None:
    assert call(f"{command} --sing", tmp_path).code == 2
    assert list(tmp_path.iterdir()) == []


def test_fit_without_a_split_scores_what_it_has(folder: Path) -> None:
    done = call(f"fit log.csv --out all --test 0 --validation 0 --json {QUICK}", folder)
    assert done.code == 0, done.err
    assert json.loads(done.out)["scores"]["part"] == "training"


def test_a_given_test_file_and_a_split_column(folder: Path) -> None:
    head, *lines = logs.csv().splitlines()
    late = [line for line in lines if int(line[1 : line.index(",")]) >= 100]
    early = [line for line in lines if line not in late]
    for name, part in (("early.csv", early), ("late.csv", late)):
        (folder / name).write_text("\n".join([head, *part]) + "\n")
    done = call(f"fit early.csv --test-file late.csv --out given --json {QUICK}", folder)
    assert json.loads(done.out)["scores"]["cases"] == 20, done.err
    parts = [f"{head},part"]
    parts += [f"{line},{'test' if line in late else 'train'}" for line in lines]
    (folder / "parts.csv").write_text("\n".join(parts) + "\n")
    done = call(f"fit parts.csv --split-column part --out parted --json {QUICK}", folder)
    assert json.loads(done.out)["scores"]["cases"] == 20, done.err
    recorded = (folder / "parted" / "split.csv").read_text().splitlines()
    assert recorded.count('"c100",test') == 1
    spec = (folder / "parted" / "spec.json").read_text()
    assert '"part"' not in spec


def test_tensorboard_is_written(folder: Path) -> None:
    pytest.importorskip("tensorboard")
    flags = "--epochs 1 --threads 1 --set train.finish_epochs=1 --hidden-size 4 --tensorboard"
    assert call(f"fit log.csv --out board {flags}", folder).code == 0
    assert list((folder / "board" / "tensorboard").glob("events.*"))
