"""How a language model is prepared: parts, symbols, what is told, what a resumed fit must find."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import hiddenstate
from hiddenstate.errors import UsageError
from hiddenstate.job.fit import fit
from hiddenstate.job.text.prepare import prepare
from hiddenstate.train import read_recipe

TEXT = "the cat sat on the mat, and the dog sat on the cat. " * 30
SMALL = {"tasks": ["lm"], "hidden_size": 6, "epochs": 2, "window": 8, "threads": 1}


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "text.txt"
    path.write_text(text)
    return path


def test_the_floors_count_training_and_validation_and_the_symbols_training_alone(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, TEXT + "Q" * 80 + "Z" * 190)
    told: list[str] = []
    shares = {"validation": 0.053, "test": 0.1}
    ready = prepare(path, read_recipe(None, {**SMALL, **shares}), told.append)
    assert "Q" not in ready.symbols.names
    assert any(said.startswith("The validation part has") and "'Q'" in said for said in told)
    assert any(said.startswith("The test part has") and "'Z'" in said for said in told)
    assert ready.codes[3].steps == ready.codes[0].steps + ready.codes[1].steps
    assert ready.split.endswith("test")


def test_documents_of_a_frame_and_a_test_file(tmp_path: Path) -> None:
    frame = pl.DataFrame({"id": range(20), "body": [f"document {n} of some" for n in range(20)]})
    settings = {**SMALL, "documents": "lines", "text_column": None}
    ready = prepare(frame, read_recipe(None, settings), lambda _: None)
    assert [len(part.documents) for part in ready.parts] == [17, 1, 2]
    assert ready.parts[2].ends
    held = tmp_path / "held.txt"
    held.write_text("a line\nand another\n")
    lines = write(tmp_path, "\n".join(frame["body"]))
    settings = {**SMALL, "documents": "lines", "test_file": str(held)}
    ready = prepare(lines, read_recipe(None, settings), lambda _: None)
    assert [len(part.documents) for part in ready.parts] == [19, 1, 2]
    assert "held.txt tests" in ready.split


def test_the_same_recipe_gives_the_same_model_and_a_resumed_fit_too(tmp_path: Path) -> None:
    path = write(tmp_path)
    once = fit(path, **SMALL)
    again = fit(path, **SMALL)
    assert once.artifact.fingerprint == again.artifact.fingerprint
    other = fit(path, **SMALL, seed=1)
    assert other.artifact.fingerprint != once.artifact.fingerprint
    run = tmp_path / "run"
    fit(path, run, **SMALL)
    (run / "manifest.json").unlink()
    resumed = fit(path, run, resume=True, **SMALL)
    assert resumed.artifact.fingerprint == once.artifact.fingerprint
    write(tmp_path, TEXT + "more")
    with pytest.raises(UsageError, match="other data"):
        fit(path, run, resume=True, **SMALL)


def test_a_saved_model_says_the_same(tmp_path: Path) -> None:
    model = fit(write(tmp_path), **SMALL, unit="words", least_count=1)
    model.save(tmp_path / "saved")
    loaded = hiddenstate.load(tmp_path / "saved")
    assert loaded.evaluate(tmp_path / "text.txt") == model.evaluate(tmp_path / "text.txt")
    told = "".join(loaded.generate("the cat", length=5, seed=1))
    assert told == "".join(model.generate("the cat", length=5, seed=1))
    assert told.startswith((" ", ",", ".", ""))


def test_training_learns(tmp_path: Path) -> None:
    """A text that repeats is learnt better than its symbols' frequencies."""
    settings = {**SMALL, "hidden_size": 16, "epochs": 8, "batch_size": 2, "learning_rate": 0.03}
    scores = fit(write(tmp_path), **settings).metrics["scores"]
    assert scores["nats"] < 0.5 * scores["floors"]["most_frequent"]["nats"]
