"""Flags and recipes that ask for what is not there or cannot be."""

from __future__ import annotations

from pathlib import Path

from tests.journeys import logs
from tests.journeys.wrong import FIT, GOOD, LOG, Wrong, change

RECIPE = f"{FIT} --recipe recipe.toml"


def _recipe(name: str, text: str, *words: str) -> Wrong:
    return Wrong(name, RECIPE, words, {"recipe.toml": text}, code=2)


def _own_folder(folder: Path) -> None:
    (folder / "photos").mkdir()
    (folder / "photos" / "cat.jpg").write_bytes(b"cat")


SETTINGS = (
    Wrong("a flag nobody knows", f"{FIT} --epoch 3", ("--epoch", "--epochs"), code=2),
    Wrong("a command nobody knows", "train log.csv", ("train",), code=2),
    Wrong("no --out", "fit log.csv", ("--out",), code=2),
    Wrong(
        "a flag with text for a number",
        f"{FIT} --batch-size big",
        ("--batch-size", "integer"),
        code=2,
    ),
    Wrong("no epochs", "fit log.csv --out out --epochs 0", ("epochs", "0"), code=2),
    Wrong("a learning rate below zero", f"{FIT} --learning-rate -1", ("learning_rate",), code=2),
    Wrong(
        "tied weights where no symbols are written",
        f"{FIT} --set model.tied=true",
        ("model.tied", "next_event"),
        code=2,
    ),
    Wrong("a state of no width", f"{FIT} --hidden-size 0", ("hidden_size",), code=2),
    Wrong("a cell nobody knows", f"{FIT} --cell gruu", ("gruu", "gru"), code=2),
    Wrong("a kernel nobody knows", f"{FIT} --kernel fastest", ("fastest", "reference")),
    Wrong(
        "a variant that the cell has not",
        f"{FIT} --cell gru --set model.cell_options.peephole=true",
        ("peephole", "reset"),
    ),
    Wrong("a task nobody knows", f"{FIT} --task next_evnt", ("next_evnt", "next_event"), code=2),
    Wrong("an outcome without its column", f"{FIT} --task outcome", ("column",), code=2),
    Wrong("the same task twice", f"{FIT} -t next_event -t next_event", ("next_event",), code=2),
    Wrong(
        "an outcome column that is not there",
        f"{FIT} --task outcome:column=amont",
        ("amont", "amount"),
    ),
    Wrong("an activity that never occurs", f"{FIT} --task occurs:clse", ("clse", "close")),
    Wrong(
        "an activity that always occurs",
        f"{FIT} --task occurs:close",
        ("occurs:close", "two classes"),
    ),
    Wrong(
        "a time to learn in a log without times",
        f"{FIT} --no-timestamp --task remaining_time",
        ("remaining_time", "time"),
    ),
    Wrong("an attribute that is not there", f"{FIT} --attributes amont", ("amont", "amount")),
    Wrong("leaving out what is not there", f"{FIT} --exclude chanel", ("chanel", "channel")),
    Wrong(
        "shares that leave nothing", f"{FIT} --test 0.6 --validation 0.5", ("0.6", "0.5"), code=2
    ),
    Wrong("a share of more than one", f"{FIT} --test 1.5", ("test", "1.5"), code=2),
    Wrong("a split column that is not there", f"{FIT} --split-column fold", ("fold", "channel")),
    Wrong("a split column with other values", f"{FIT} --split-column channel", ("phone", "train")),
    Wrong("a strict split without times", f"{FIT} --strict --no-timestamp", ("strict",), code=2),
    Wrong(
        "held-back cases that are in the log as well",
        f"{FIT} --test-file log.csv",
        ("c0", "more than one file"),
    ),
    Wrong("the recipe does not exist", RECIPE, ("recipe.toml", "--recipe"), code=2),
    _recipe("a recipe that is not TOML", "train: 3\n", "TOML", "line 1"),
    _recipe("a recipe with a key nobody knows", "[train]\nepoch = 3\n", "epoch", "epochs"),
    _recipe("a recipe with a section nobody knows", "[training]\n", "training", "train"),
    _recipe("a recipe with text for a number", '[train]\npatience = "much"\n', "patience", "much"),
    _recipe("a recipe with a number for a section", "split = 3\n", "split", "[split]"),
    Wrong("a setting without a value", f"{FIT} --set train.epochs", ("KEY=VALUE",), code=2),
    Wrong("a setting nobody knows", f"{FIT} --set train.epoch=3", ("epoch", "epochs"), code=2),
    Wrong("--out exists", "fit log.csv --out run", ("run", "--overwrite"), code=2),
    Wrong("--out is a file", "fit log.csv --out log.csv", ("log.csv", "file"), code=2),
    Wrong("--out inside a file", "fit log.csv --out log.csv/run", ("log.csv/run", "irectory")),
    Wrong(
        "--overwrite of a folder that is no run",
        "fit log.csv --out photos --overwrite",
        ("photos", "recipe.toml"),
        damage=_own_folder,
        code=2,
    ),
    Wrong("nothing to resume", f"{FIT} --resume", ("out", "resume"), code=2),
    Wrong(
        "--resume with other settings",
        f"{GOOD} --resume --seed 5",
        ("seed = 5", "run/recipe.toml", "--overwrite"),
        code=2,
    ),
    Wrong(
        "--resume with another file",
        f"{GOOD} --resume".replace("log.csv", "other.csv"),
        ("run", "other data", "--overwrite"),
        {"other.csv": change(lambda row, f: [f[0], "open" if row == 9 else f[1], *f[2:]])},
        code=2,
    ),
    Wrong(
        "predictions into an unknown kind of file",
        "predict run log.csv --out predictions.xlsx",
        (".xlsx", ".parquet"),
        code=2,
    ),
    Wrong(
        "predictions into a file that exists",
        "predict run log.csv --out old.csv",
        ("old.csv", "--overwrite"),
        {"old.csv": "kept\n"},
        code=2,
    ),
    Wrong(
        "an input column missing at prediction",
        "predict run narrow.csv",
        ("narrow.csv", "amount", "channel", "fitted"),
        {"narrow.csv": "".join(",".join(row[:3]) + "\n" for row in (logs.NAMES, *logs.rows()))},
    ),
    Wrong(
        "no times at prediction",
        "predict run untimed.csv",
        ("--timestamp", "case, activity"),
        {"untimed.csv": "".join(f"{row[0]},{row[1]}\n" for row in (logs.NAMES, *logs.rows()))},
    ),
    Wrong("scoring without a file", "evaluate run", ("FILE",), code=2),
    Wrong("simulated tickets onto a log", "data simulate --out log.csv", ("log.csv",), code=2),
    Wrong("kernels of a cell nobody knows", "kernels --cell lstn", ("lstn", "lstm"), code=2),
    Wrong("kernels for a type nobody runs", "kernels --dtype float16", ("float16",), code=2),
    Wrong("kernels over no step", "kernels --time 0", ("--time",), code=2),
    Wrong(
        "kernels over more than a machine holds",
        "kernels --batch 1000000 --time 1000000",
        ("--batch 1000000", "134,217,728"),
        code=2,
    ),
    Wrong(
        "a check of what is no log",
        "data check notes.txt",
        ("monday", "--case"),
        {"notes.txt": "monday,rain\ntuesday,sun\n"},
    ),
    Wrong(
        "a remark above the header",
        FIT,
        ("# exported by hand",),
        {"log.csv": "# exported by hand\n\n" + LOG},
    ),
)
