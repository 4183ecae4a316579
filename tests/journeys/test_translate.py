"""Translation and the rest of cases, as a user runs them, with what may go wrong."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.journeys import logs
from tests.journeys.calling import call, run
from tests.journeys.wrong import Wrong

QUICK = "--task translate --epochs 1 --threads 1 --hidden-size 8 --set pairs.unit=words"
FIT = f"fit pairs.tsv --out out {QUICK}"
WORDS = ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun")
NUMBERS = [f"{k:02d}" for k in range(80)]
SOURCES = [" ".join(number) for number in NUMBERS]
TARGETS = [" ".join(WORDS[int(digit)] for digit in number) for number in NUMBERS]
PAIRS = "".join(f"{one}\t{other}\n" for one, other in zip(SOURCES, TARGETS))


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pairs.tsv and `run`, a translator of it."""
    folder = tmp_path_factory.mktemp("translator")
    (folder / "pairs.tsv").write_text(PAIRS)
    done = call(FIT.replace("--out out", "--out run"), folder)
    assert done.code == 0, done.err
    for word in ("BLEU", "chrF", "nearest source", "word by word", "source words"):
        assert word in done.out
    card = (folder / "run" / "MODEL_CARD.md").read_text()
    assert "context general" in card
    assert "keep the training targets" in card
    return folder


def test_lines_go_through_a_process_one_for_one(translator: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hiddenstate", "translate", "run"],
        cwd=translator,
        input="1 2\n\nx y\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split("\n")) == 4
    assert done.stdout.split("\n")[1] == ""
    assert "Empty lines: 1" in done.stderr
    assert "takes as unknown: 2" in done.stderr


def test_translating_loads_neither_torch_nor_tables(translator: Path) -> None:
    script = (
        "import sys, hiddenstate; hiddenstate.load('run').translate(['1 2']); "
        "print([name for name in ('torch', 'polars', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=translator,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_file_gives_a_file_json_and_where_the_model_looked(
    translator: Path, tmp_path: Path
) -> None:
    shutil.copytree(translator / "run", tmp_path / "run")
    (tmp_path / "in.txt").write_text("1 2 3\n4\n")
    done = call(
        "translate run in.txt --beam 2 --length-penalty 0.5 --out out.txt --json "
        "--alignment a.html",
        tmp_path,
    )
    assert done.code == 0, done.err
    rows = json.loads(done.out)["translations"]
    assert [row["source"] for row in rows] == ["1 2 3", "4"]
    assert (tmp_path / "out.txt").read_text() == "".join(f"{row['target']}\n" for row in rows)
    page = (tmp_path / "a.html").read_text()
    assert "Where the model looked" in page
    assert 'src="http' not in page
    for name in ("a.json", "a.svg"):
        looked = call(f"translate run in.txt --alignment {name} --target 'eins zwei'", tmp_path)
        assert looked.code == 0, looked.err
    drawn = ElementTree.parse(tmp_path / "a.svg").getroot()
    cells = [each.text or "" for each in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert len(cells) == 9
    assert cells[3].startswith("zwei looks at 1: 0.")
    alignment = json.loads((tmp_path / "a.json").read_text())
    assert alignment["target"] == ["eins", "zwei", "<end>"]
    assert [len(row) for row in alignment["weights"]] == [3, 3, 3]


def test_two_aligned_files_and_files_for_the_parts(tmp_path: Path) -> None:
    for name, rows in (("train", slice(0, 60)), ("valid", slice(60, 70)), ("test", slice(70, 80))):
        (tmp_path / f"{name}.de.gz").write_bytes(gzip.compress("\n".join(SOURCES[rows]).encode()))
        (tmp_path / f"{name}.en").write_text("\n".join(TARGETS[rows]) + "\n")
    done = call(
        f"fit train.de.gz --out out {QUICK} --set pairs.target=train.en --test-file test.de.gz "
        "--set pairs.test_target=test.en --set pairs.validation_file=valid.de.gz "
        "--set pairs.validation_target=valid.en --set pairs.context=every_step --cell lstm --json",
        tmp_path,
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["split"]["cases"] == [60, 10, 10]
    assert result["scores"]["part"] == "test"
    signature = result["scores"]["tasks"]["translate"]["signatures"]["bleu"]
    assert "tok:13a" in signature
    (tmp_path / "more.tsv").write_text(PAIRS)
    judged = call("evaluate out more.tsv --json", tmp_path)
    assert judged.code == 0, judged.err
    assert json.loads(judged.out)["cases"] == 80


def test_a_transformer_translates(tmp_path: Path) -> None:
    (tmp_path / "pairs.tsv").write_text(PAIRS)
    done = call(f"{FIT} --cell attention", tmp_path)
    assert done.code == 0, done.err
    (tmp_path / "in.txt").write_text("1 2\n")
    looked = call("translate out in.txt --alignment a.json --target 'eins zwei'", tmp_path)
    assert looked.code == 0, looked.err
    other = call("translate out in.txt --alignment b.json --target 'eins zwei' --head 2", tmp_path)
    assert other.code == 0, other.err
    weights = [
        json.loads((tmp_path / name).read_text())["weights"] for name in ("a.json", "b.json")
    ]
    for rows in weights:
        assert [len(row) for row in rows] == [2, 2, 2]
        assert [sum(row) for row in rows] == pytest.approx([1, 1, 1], abs=1e-3)
    assert weights[0] != weights[1]
    refused = call("translate out in.txt --alignment c.json --head 99", tmp_path)
    assert refused.code == 2
    assert "with 4, counted from 1" in refused.err


WRONG = (
    Wrong("unequal files", f"fit a --out out {QUICK} --set pairs.target=b",
          ("a has 80 lines", "b has 79", "Line 80 of a"),
          {"a": "\n".join(SOURCES), "b": "\n".join(TARGETS[:79])}),
    Wrong("an empty line", FIT, ("line 3 has 1 column",),
          {"pairs.tsv": PAIRS.replace(f"{SOURCES[2]}\t{TARGETS[2]}", "")}),
    Wrong("an empty side", FIT, ("1 line without text", "line 3"),
          {"pairs.tsv": PAIRS.replace(f"{SOURCES[2]}\t", "\t")}),
    Wrong("three columns", FIT, ("line 1 has 3 columns", "80 lines", "cut -f1,2"),
          {"pairs.tsv": PAIRS.replace("\n", "\tx\n")}),
    Wrong("an encoding", FIT, ("not UTF-8", "row 6"), {"pairs.tsv": PAIRS.encode("latin-1")}),
    Wrong("no pairs", FIT, ("empty",), {"pairs.tsv": ""}),
    Wrong("few pairs", FIT, ("left to train on",), {"pairs.tsv": "a\tb\nc\td\ne\tf\n"}),
    Wrong("a context nobody knows", f"{FIT} --set pairs.context=global",
          ("pairs.context", "general"), {"pairs.tsv": PAIRS}, code=2),
    Wrong("coverage of a dot product", f"{FIT} --set pairs.context=dot --set pairs.coverage=true",
          ("additive",), {"pairs.tsv": PAIRS}),
    Wrong("cross with a gru", f"{FIT} --set pairs.context=cross", ("transformer",),
          {"pairs.tsv": PAIRS}),
    Wrong("residuals", f"{FIT} --set model.residual=true", ("model.residual",),
          {"pairs.tsv": PAIRS}, code=2),
    Wrong("a column of event logs", f"{FIT} --case who", ("input.case",), {"pairs.tsv": PAIRS},
          code=2),
    Wrong("a shuffle of pairs", "evaluate translator pairs.tsv --shuffle", ("shuffle",),
          {"pairs.tsv": PAIRS}, code=2),
    Wrong("every step of pairs", "predict translator in.txt --every-step", ("every_step",),
          {"in.txt": "1\n"}, code=2),
    Wrong("two tasks", f"{FIT} --task next_event", ("together",), {"pairs.tsv": PAIRS}, code=2),
    Wrong("nothing to translate", "translate translator in.txt", ("in.txt holds no text",),
          {"in.txt": "\n \n"}),
    Wrong("an ending", "translate translator in.txt --alignment a.png", (".svg or .json",),
          {"in.txt": "1\n"}, code=2),
    Wrong("a target without an alignment", "translate translator in.txt --target eins",
          ("--target", "--alignment"), {"in.txt": "1\n"}, code=2),
    Wrong("a file that is there", "translate translator in.txt --out in.txt", ("in.txt exists",),
          {"in.txt": "1\n"}, code=2),
    Wrong("a model of event logs", "translate run in.txt", ("next_event",), {"in.txt": "1\n"},
          code=2),
    Wrong("pairs to evaluate that are none", "evaluate translator in.txt", ("1 column",),
          {"in.txt": "1\n"}),
    Wrong("the rest by a model with times", "rest run log.csv", ("future events",), code=2),
    Wrong("the rest by a translator", "rest translator log.csv", ("translate",), code=2),
    Wrong("the rest scored into a table", "rest run log.csv --score --out a.csv",
          ("given together",), code=2),
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_input_is_told_and_nothing_is_written(
    wrong: Wrong, good: Path, translator: Path, tmp_path: Path
) -> None:
    shutil.copytree(good / "run", tmp_path / "run")
    shutil.copytree(translator / "run", tmp_path / "translator")
    wrong.prepare(tmp_path)
    before = {str(path): path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    code, out, err = call(wrong.command, tmp_path)
    assert code == wrong.code, err
    assert out == ""
    for word in wrong.words:
        assert word in err
    assert "Traceback" not in err
    wrong_part, expected, remedy = err.splitlines()[-3:]
    assert wrong_part.startswith("Error: ")
    assert all(part.endswith((".", "?")) for part in (wrong_part, expected, remedy))
    assert {str(path): path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before


def test_the_rest_of_open_cases(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(logs.csv())
    fitted = call(
        "fit log.csv --out run --epochs 1 --threads 1 --attributes none --no-timestamp "
        "--set train.finish_epochs=0",
        tmp_path,
    )
    assert fitted.code == 0, fitted.err
    done = run("rest run log.csv --out rest.jsonl --beam 2", tmp_path)
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in (tmp_path / "rest.jsonl").read_text().splitlines()]
    assert len(rows) == 120
    assert set(rows[0]) == {"case", "events", "left", "rest"}
    assert all(len(row["rest"].split(" > ")) == max(row["left"], 1) for row in rows)
    scored = call("rest run log.csv --score", tmp_path)
    assert scored.code == 0, scored.err
    for word in ("edit similarity", "n-gram", "by last event"):
        assert word in scored.out
