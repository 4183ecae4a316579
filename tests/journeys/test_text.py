"""Language models as a user meets them: fit, evaluate, score, generate, truncation."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

import hiddenstate
from tests.journeys.calling import Called, call
from tests.journeys.test_start_up import loaded
from tests.journeys.wrong_text import TEXT

SMALL = "--hidden-size 16 --epochs 2 --threads 1 --set text.window=16 --set train.batch_size=4"
LINES = "\n".join(["anna", "hanna", "ana", "nan", "annan", "hannah"] * 8) + "\n"


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with text.txt and `run`, a model of its characters."""
    folder = tmp_path_factory.mktemp("language")
    (folder / "text.txt").write_text(TEXT)
    done = call(f"fit text.txt --task lm --out run {SMALL}", folder)
    assert done.code == 0, done.err
    return folder


def ask(command: str, folder: Path) -> Called:
    done = call(command, folder)
    assert done.code == 0, done.err
    return done


def test_a_fit_is_told_beside_its_floors(language: Path) -> None:
    metrics = json.loads((language / "run" / "metrics.json").read_text())
    scores = metrics["scores"]
    model = scores["tasks"]["lm"]["model"]["metrics"]
    assert scores["part"] == "test"
    assert scores["units"] == ["blocks of text", "symbols"]
    assert scores["cases"] == 20
    assert model["perplexity"]["value"] == pytest.approx(math.exp(model["nats"]["value"]))
    assert set(scores["floors"]) == {"most_frequent", "ngram"}
    card = (language / "run" / "MODEL_CARD.md").read_text()
    for word in ("bits per symbol", "n-gram", "characters", "16 steps", "one unknown symbol"):
        assert word in card


def test_generated_text_goes_on_from_the_prompt(language: Path) -> None:
    command = "generate run --prompt 'She said ' --length 30 --seed 3"
    told = ask(command, language)
    assert told.out.startswith("She said ")
    assert len(told.out) == len("She said ") + 30 + 1
    assert told == ask(command, language)
    assert told.out != ask(command.replace("3", "4", 1), language).out
    as_json = json.loads(ask(f"{command} --json", language).out)
    assert as_json["prompt"] + as_json["text"] + "\n" == told.out
    model = hiddenstate.load(language / "run")
    pieces = list(model.generate("She said ", length=30, seed=3))
    assert len(pieces) == 30
    assert "".join(pieces) == as_json["text"]


def test_the_most_probable_text_needs_no_chance(language: Path) -> None:
    greedy = ask("generate run --length 20 --temperature 0", language).out
    for flags in ("--top-k 1 --seed 5", "--top-p 0.0001 --seed 6", "--beam 1"):
        assert ask(f"generate run --length 20 {flags}", language).out == greedy
    best = [
        each["best"] for each in json.loads(ask("score run text.txt --json", language).out)["each"]
    ]
    assert greedy[0] == best[0]
    wide = json.loads(ask("generate run --length 8 --beam 4 --json", language).out)["text"]
    assert len(wide) == 8


def test_unknown_symbols_of_a_prompt_are_told_and_never_written(language: Path) -> None:
    told = ask("generate run --prompt 'Zoë ' --length 60 --temperature 3", language)
    assert "2 symbols that the model does not know: 'Z' (1), 'ë' (1)." in told.err
    written = told.out.removeprefix("Zoë ")
    assert set(written.strip("\n")) <= set(TEXT)
    assert "\ufffd" not in written
    assert ask("generate run --prompt Zoë --length 2 --quiet", language).err == ""


def test_an_empty_prompt_begins_a_document(language: Path) -> None:
    assert (
        ask("generate run --length 5 --prompt ''", language).out
        == ask("generate run --length 5", language).out
    )


def test_a_score_adds_up(language: Path) -> None:
    (language / "new.txt").write_text("the cat said Zoo")
    report = json.loads(ask("score run new.txt --json", language).out)
    totals, each = report["totals"], report["each"]
    known = [s["log_probability"] for s in each if s["log_probability"] is not None]
    assert "".join(s["symbol"] for s in each) == "the cat said Zoo"
    assert (totals["symbols"], totals["unknown"], len(known)) == (16, 1, 15)
    assert totals["log_probability"] == pytest.approx(sum(known))
    assert totals["bits"] == pytest.approx(-sum(known) / 15 / math.log(2))
    assert all(s["rank"] >= 1 for s in each if s["log_probability"] is not None)
    evaluated = json.loads(ask("evaluate run new.txt --json", language).out)
    assert evaluated["nats"] == pytest.approx(totals["nats"], rel=1e-5)
    lines = ask("score run new.txt --lines", language).out.splitlines()
    assert [json.loads(line) for line in lines[:-1]] == each
    assert json.loads(lines[-1])["totals"] == totals
    ask("score run new.txt --out new.parquet --overwrite", language)
    assert pl.read_parquet(language / "new.parquet").to_dicts() == each
    shown = ask("score run new.txt", language)
    assert "unknown" in shown.out
    assert "perplexity" in shown.out
    assert "'Z' (1)" in shown.err


def test_the_next_symbols_are_predicted(language: Path) -> None:
    table = hiddenstate.load(language / "run").predict(language / "text.txt")
    assert table["rank"].to_list() == [1, 2, 3, 4, 5]
    assert table["probability"].sum() <= 1
    ask("predict run text.txt", language)


def test_documents_begin_and_end(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text(LINES)
    ask(
        f"fit names.txt --task lm --out run {SMALL} --epochs 30 --learning-rate 0.02 "
        "--set text.documents=lines",
        tmp_path,
    )
    model = hiddenstate.load(tmp_path / "run")
    names = ["".join(model.generate(length=50, seed=seed)) for seed in range(20)]
    assert all(len(name) < 50 for name in names)
    assert len(set(names) & set(LINES.split())) >= 2
    each = list(model.score(tmp_path / "names.txt"))
    assert [s.symbol for s in each[:5]] == ["a", "n", "n", "a", "<boundary>"]
    assert each[-1].document == 48
    assert "".join(model.generate(beam=3, length=20)) in LINES.split()


@pytest.mark.parametrize(
    "flags",
    [
        "--set text.unit=bytes --cell lstm --set model.tied=true --set train.dropconnect=0.2",
        "--set text.unit=words --layers 2 --set train.variational=true --set text.stride=4",
        "--set text.unit=bpe --set text.vocabulary=300 --set text.lowercase=true --cell elman",
        "--cell attention --set model.tied=true --set train.zoneout=0.0",
    ],
)
def test_every_unit_and_noise_can_be_fitted_and_asked(flags: str, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    ask(f"fit text.txt --task lm --out run {SMALL} --epochs 1 {flags}", tmp_path)
    model = hiddenstate.load(tmp_path / "run")
    written = "".join(model.generate("the cat", length=12, seed=1))
    assert written
    (tmp_path / "new.txt").write_text("the old cat said so")
    totals = json.loads(ask("score run new.txt --json", tmp_path).out)["totals"]
    assert totals["nats"] > 0
    assert totals["unknown"] == 0


def test_writing_needs_no_torch(language: Path) -> None:
    code = "import hiddenstate; list(hiddenstate.load('run').generate('She', length=3))"
    assert not loaded(code, language) & {"torch", "pydantic"}


def test_ctrl_c_ends_the_text(language: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "hiddenstate", "generate", "run", "--length", "100000000"],
        cwd=language,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    first = writer.stdout.read(20)
    time.sleep(0.2)
    writer.send_signal(signal.SIGINT)
    rest, err = writer.communicate(timeout=60)
    assert len(first) == 20
    assert rest.endswith("\n")
    assert writer.returncode == 130
    assert err == ""


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("generate run --top-p 1.5", "top_p 1.5"),
        ("generate run --beam 3 --temperature 0.5", "A beam"),
        ("score run none.txt", "none.txt"),
        ("score run text.txt --out table.txt", ".parquet"),
        ("evaluate run text.txt --case a", "--case"),
        ("truncation run text.txt --lags 0", "at least 1"),
    ],
)
def test_wrong_questions_are_told_and_nothing_is_printed(
    command: str, words: str, language: Path
) -> None:
    code, out, err = call(command, language)
    assert code in (1, 2)
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_the_error_of_truncation_is_shown(language: Path) -> None:
    told = ask("truncation run text.txt --lags 1,8,64 --steps 64 --sequences 2", language)
    assert "cosine of W_h" in told.out
    report = json.loads(
        ask("truncation run text.txt --lags 1,64 --steps 64 --sequences 2 --json", language).out
    )
    assert [each["steps"] for each in report["lags"]] == [1, 64]
    assert report["lags"][1]["relative_error"] == pytest.approx(0, abs=1e-9)
