"""Files of labelled sequences that cannot be learnt from."""

from __future__ import annotations

from tests.journeys import labels
from tests.journeys.wrong import QUICK, Wrong

REVIEWS = labels.reviews(20)
TAGGED = labels.tagged(20)
WAVES = labels.waves(20)
MACHINES = labels.machines(20)


def _fit(file: str, flags: str = "", task: str = "classify") -> str:
    return f"fit {file} --task {task} --out out {QUICK} {flags}".strip()


LABELS = (
    Wrong(
        "labelled texts in another encoding",
        _fit("a.csv"),
        ("row 3", "--encoding latin-1"),
        {"a.csv": b"text,label\na,x\ncaf\xe9,y\n"},
    ),
    Wrong("an empty file of labelled texts", _fit("a.csv"), ("empty", "a.csv"), {"a.csv": ""}),
    Wrong("labelled lines that are all blank", _fit("a.txt"), ("blank",), {"a.txt": "\n\n"}),
    Wrong("no column with labels", _fit("a.csv"), ("labels.label",), {"a.csv": "text,b\nc,d\n"}),
    Wrong(
        "a column of texts that is not there",
        _fit("a.csv", "--set labels.text=txt"),
        ("'txt'", "text"),
        {"a.csv": REVIEWS},
    ),
    Wrong(
        "texts whose every step shall be labelled",
        _fit("a.csv", task="label"),
        ("texts", "--task classify"),
        {"a.csv": REVIEWS},
    ),
    Wrong(
        "labels of steps taken for labels of sequences",
        _fit("a.conll"),
        ("--task label",),
        {"a.conll": TAGGED},
    ),
    Wrong(
        "a token without its label",
        _fit("a.conll", task="label"),
        ("row 1 has 1 field",),
        {"a.conll": TAGGED.replace(" PERSON", "", 1)},
    ),
    Wrong(
        "more tokens than labels",
        _fit("a.jsonl", task="label"),
        ("row 1", "2 tokens", "1 labels"),
        {"a.jsonl": '{"tokens": ["a", "b"], "labels": ["x"]}\n'},
    ),
    Wrong(
        "a sequence with two labels",
        _fit("a.csv"),
        ("'x'", "'y'"),
        {"a.csv": "id,step,load,label\n1,1,2.0,x\n1,2,3.0,y\n2,1,1.0,x\n"},
    ),
    Wrong(
        "a series with a channel too few",
        _fit("a.ts"),
        ("row 8", "1 channels", "2 channels"),
        {"a.ts": "\n".join([*WAVES.splitlines()[:7], "1,2,3:up", ""])},
    ),
    Wrong(
        "a word among the numbers of a series",
        _fit("a.ts"),
        ("row 8", "channel 2"),
        {"a.ts": "\n".join([*WAVES.splitlines()[:7], "1,2:3,four:up", ""])},
    ),
    Wrong(
        "an archive of series that is none",
        _fit("a.npz"),
        ("archive",),
        {"a.npz": b"PK no archive"},
    ),
    Wrong(
        "one label only",
        _fit("a.csv"),
        ("1 labels", "good"),
        {"a.csv": REVIEWS.replace(",bad\n", ",good\n")},
    ),
    Wrong(
        "too few sequences", _fit("a.csv"), ("sequences",), {"a.csv": "text,label\na,x\nb,y\nc,x\n"}
    ),
    Wrong(
        "text in the place of numbers",
        _fit("a.csv", task="regress"),
        ("'good'", "row 2", "labels.label", "--task classify"),
        {"a.csv": REVIEWS},
    ),
    Wrong(
        "numbers without end",
        _fit("a.csv", "--set labels.sequence=machine_id", task="regress_steps"),
        ("'inf'", "finite"),
        {"a.csv": MACHINES.replace(",NaN", ",inf", 1)},
    ),
    Wrong(
        "numbers that are all the same",
        _fit("a.csv", "--set labels.label=same --set labels.sequence=machine_id", task="regress"),
        ("two different numbers", "all 7"),
        {"a.csv": MACHINES.replace("\n", ",7\n").replace(",y,7", ",y,same", 1)},
    ),
    Wrong(
        "no number at all",
        _fit("a.csv", task="regress"),
        ("0 numbers",),
        {"a.csv": REVIEWS.replace(",good\n", ",NaN\n").replace(",bad\n", ",?\n")},
    ),
    Wrong(
        "a number of each step taken for one of the sequence",
        _fit("a.csv", "--set labels.sequence=machine_id", task="regress"),
        ("more than one label", "regress_steps"),
        {"a.csv": labels.machines(20, every_step=True)},
    ),
    Wrong(
        "an output of numbers that is not there",
        _fit("a.csv", "--set labels.output=mean", task="regress"),
        ("labels.output", "gaussian"),
        {"a.csv": REVIEWS},
        code=2,
    ),
    Wrong(
        "a strict split of labelled sequences",
        _fit("a.csv", "--strict"),
        ("split.strict",),
        {"a.csv": REVIEWS},
        code=2,
    ),
    Wrong(
        "two tasks of labels",
        _fit("a.csv", "--task label"),
        ("together",),
        {"a.csv": REVIEWS},
        code=2,
    ),
    Wrong(
        "a pool that is not there",
        _fit("a.csv", "--set model.pool=sum"),
        ("model.pool", "attention"),
        {"a.csv": REVIEWS},
        code=2,
    ),
    Wrong(
        "a unit of text that is not there",
        _fit("a.csv", "--set labels.unit=lines"),
        ("labels.unit", "words"),
        {"a.csv": REVIEWS},
        code=2,
    ),
)
