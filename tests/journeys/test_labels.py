"""Labelled sequences by the command line: fitted, scored, predicted, followed step by step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hiddenstate
from hiddenstate.data.read_labelled import read_labelled
from hiddenstate.errors import DataError, SpecError
from hiddenstate.job.labels.encode import cut
from tests.journeys import labels
from tests.journeys.calling import Called, call, run

QUICK = (
    "--epochs 6 --threads 1 --hidden-size 16 --batch-size 8 --dropout 0.1 "
    "--set train.input_dropout=0 --set train.finish_epochs=1"
)
CAUSAL = "--set model.bidirectional=false --set model.pool=last"
FILES = {
    "reviews.csv": labels.reviews(),
    "more.csv": labels.reviews(30, seed=1),
    "tags.conll": labels.tagged(),
    "more.conll": labels.tagged(20, seed=1),
    "waves.ts": labels.waves(gaps=True),
    "more.ts": labels.waves(20, seed=1),
}
RUNS = {
    "reviews": "reviews.csv --task classify",
    "causal": f"reviews.csv --task classify {CAUSAL} --epochs 1",
    "characters": f"reviews.csv --task classify {CAUSAL} --set labels.unit=characters --epochs 1",
    "symbols": f"reviews.csv --task classify {CAUSAL} --set labels.unit=characters "
    "--set labels.pairs=false --epochs 1",
    "tags": f"tags.conll --task label {CAUSAL}",
    "waves": f"waves.ts --task classify {CAUSAL}",
    "attention": "waves.ts --task classify --cell attention --set model.pool=mean --epochs 1",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files and a model of each kind."""
    folder = tmp_path_factory.mktemp("labels")
    for name, content in FILES.items():
        (folder / name).write_text(content)
    for name, command in RUNS.items():
        done = call(f"fit --out {name} {QUICK} --quiet {command}", folder)
        assert done.code == 0, done.err
    return folder


def scores(done: Called) -> dict[str, float]:
    assert done.code == 0, done.err
    task = next(iter(json.loads(done.out)["tasks"].values()))
    return {
        "model": task["model"]["metrics"]["accuracy"]["value"],
        **{name: f["metrics"]["accuracy"]["value"] for name, f in task["floors"].items()},
    }


@pytest.mark.parametrize(
    ("name", "file"), [("reviews", "more.csv"), ("tags", "more.conll"), ("waves", "more.ts")]
)
def test_a_model_learns_and_is_scored_beside_its_floors(name: str, file: str, folder: Path) -> None:
    found = scores(call(f"evaluate {name} {file} --json --quiet", folder))
    assert found["model"] > 0.85
    assert found["model"] > found["most_frequent"] + 0.2
    card = (folder / name / "MODEL_CARD.md").read_text()
    assert "labels" in card
    assert (folder / name / "split.csv").read_text().startswith("case,part")


def test_predictions_are_a_table_with_every_label(folder: Path) -> None:
    done = call("predict reviews more.csv --out told.csv --overwrite", folder)
    assert done.code == 0, done.err
    table = pl.read_csv(folder / "told.csv")
    assert table.columns == ["id", "label", "probability", "p(bad)", "p(good)"]
    assert table.height == 30
    assert np.allclose(table["p(bad)"] + table["p(good)"], 1)
    truth = pl.read_csv(folder / "more.csv")["label"]
    assert (table["label"] == truth).mean() > 0.85
    bare = pl.read_csv(folder / "more.csv").drop("label")
    assert hiddenstate.load(folder / "reviews").predict(bare)["label"].equals(table["label"])
    shown = call("predict reviews more.csv", folder)
    assert shown.code == 0
    assert "probability" in shown.out


def test_labels_of_steps_are_a_row_for_each_step(folder: Path) -> None:
    (folder / "new.conll").write_text("Zoe\nis\nin\nRome\n\nAnn\n")
    done = call("predict tags new.conll --json --quiet", folder)
    rows = json.loads(done.out)["predictions"]
    assert [(row["id"], row["step"], row["token"]) for row in rows] == [
        ("1", 1, "Zoe"), ("1", 2, "is"), ("1", 3, "in"), ("1", 4, "Rome"), ("6", 1, "Ann"),
    ]  # fmt: skip
    assert [row["label"] for row in rows[1:4]] == ["O", "O", "PLACE"]


@pytest.mark.parametrize("name", ["causal", "characters", "symbols", "tags", "waves"])
def test_followed_step_by_step_it_says_what_it_says_of_the_whole(name: str, folder: Path) -> None:
    model = hiddenstate.load(folder / name)
    file = RUNS[name].split()[0]
    of_steps = name == "tags"
    source = folder / file
    table = model.predict(source)
    found, _ = read_labelled(source, every_step=of_steps)
    told = table.select([f"p({label})" for label in model.labels]).to_numpy()
    for case in range(10):
        start, end = found.offsets[case : case + 2]
        if found.texts is not None:
            one = found.select(np.array([case]))
            steps = cut(one, "words")[0] if name == "causal" else list(found.texts[case])
        else:
            steps = (found.values if found.tokens is None else found.tokens)[start:end]
        said = [each.probabilities for each in model.follow(steps)]
        expected = told[start:end] if of_steps else told[case]
        assert np.allclose(said if of_steps else said[-1], expected, atol=1e-5)


def test_only_a_model_of_one_direction_can_be_followed(folder: Path) -> None:
    with pytest.raises(SpecError, match="both directions"):
        next(hiddenstate.load(folder / "reviews").follow(["a"]))
    for name in ("characters", "symbols"):
        with pytest.raises(DataError, match="2 characters"):
            next(hiddenstate.load(folder / name).follow(["ab"]))
    with pytest.raises(DataError, match="2 channels"):
        next(hiddenstate.load(folder / "waves").follow([[1.0]]))


def test_labels_unseen_in_training_count_as_errors_and_are_told(folder: Path) -> None:
    text = FILES["more.csv"].replace(",good\n", ",great\n")
    (folder / "other.csv").write_text(text)
    done = call("evaluate reviews other.csv --json", folder)
    found = scores(done)
    whole = scores(call("evaluate reviews more.csv --json --quiet", folder))
    assert found["model"] <= 0.5 < whole["model"]
    assert "15 labels are not known from training and count as errors: 'great'" in done.err
    unknown = json.loads(done.out)["tasks"]["classify"]["model"]["unknown"]
    assert unknown == 15


def test_a_test_file_is_scored_and_repeats_in_it_are_told(folder: Path) -> None:
    again = FILES["more.csv"] + FILES["reviews.csv"].splitlines()[1] + "\n"
    (folder / "again.csv").write_text(again)
    done = call(
        f"fit reviews.csv --test-file again.csv --task classify --out tested {QUICK}", folder
    )
    assert done.code == 0, done.err
    assert "of the test file are also in the training file" in done.err
    metrics = json.loads((folder / "tested" / "metrics.json").read_text())
    assert metrics["scores"]["cases"] == 31


def test_a_fit_killed_and_resumed_refuses_other_data(folder: Path) -> None:
    (folder / "changing.csv").write_text(FILES["reviews.csv"])
    command = f"fit changing.csv --task classify --out changing {QUICK} --quiet"
    assert call(command, folder).code == 0
    (folder / "changing" / "metrics.json").unlink()
    (folder / "changing.csv").write_text(FILES["more.csv"])
    done = call(f"{command} --resume", folder)
    assert done.code == 2
    assert "begun with other" in done.err


def test_predicting_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys, hiddenstate\n"
        "model = hiddenstate.load('reviews')\n"
        "model.predict('more.csv'); model.evaluate('more.csv')\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=False)
    assert done.returncode == 0


WRONG = {
    "another kind of sequence": ("evaluate reviews waves.ts", ("series", "texts")),
    "channels missing": ("predict waves fewer.ts", ("channel 2", "lacks 1")),
    "no label to score": ("evaluate reviews unlabelled.csv", ("None", "label")),
    "flags of event logs": ("predict reviews more.csv --case id", ("--case", "labelled")),
    "every step of whole labels": ("predict reviews more.csv --every-step", ("--every-step",)),
    "the order of events": ("evaluate reviews more.csv --shuffle", ("--shuffle",)),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_input_to_a_model_is_told(name: str, folder: Path) -> None:
    (folder / "fewer.ts").write_text("@classLabel true up down\n@data\n1,2:up\n")
    (folder / "unlabelled.csv").write_text("id,text,label\n1,fine,\n2,poor,\n")
    command, words = WRONG[name]
    code, out, err = call(command, folder)
    assert code in (1, 2), err
    assert out == ""
    for word in words:
        assert word in err
    assert "Traceback" not in err
    told = err.splitlines()[-3:]
    assert told[0].startswith("Error: ")
    assert all(part.endswith((".", "?")) for part in told)


def test_a_process_says_the_same(folder: Path) -> None:
    command, _ = WRONG["another kind of sequence"]
    assert run(command, folder) == call(command, folder)
