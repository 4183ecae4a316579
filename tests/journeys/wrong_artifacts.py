"""Folders that are no model, or no longer the one that was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from hiddenstate.artifact.files import sha256_of
from tests.journeys.wrong import Wrong

EVALUATE = "evaluate run log.csv"


def _spoil(
    name: str, damage: Callable[[Path], object], *words: str, command: str = EVALUATE
) -> Wrong:
    return Wrong(name, command, words, damage=lambda folder: damage(folder / "run"))


def _edit(file: str, **changes: object) -> Callable[[Path], object]:
    """Change a JSON file and leave the manifest as it is."""

    def damage(run: Path) -> None:
        value = json.loads((run / file).read_text())
        (run / file).write_text(json.dumps({**value, **changes}))

    return damage


def _sign(run: Path, name: str) -> None:
    """Write the checksum of a changed file into the manifest, as a careful meddler would."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["files"][name] = sha256_of(run / name)
    (run / "manifest.json").write_text(json.dumps(manifest))


def _edit_and_sign(file: str, **changes: object) -> Callable[[Path], object]:
    def damage(run: Path) -> None:
        _edit(file, **changes)(run)
        _sign(run, file)

    return damage


def _cut(name: str) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-40])


def _cut_and_sign(run: Path) -> None:
    _cut("weights.safetensors")(run)
    _sign(run, "weights.safetensors")


def _nan(run: Path) -> None:
    weights = load_file(run / "weights.safetensors")
    weights["heads.0.bias"][0] = np.nan
    save_file(weights, run / "weights.safetensors")
    _sign(run, "weights.safetensors")


def _unfinish(run: Path) -> None:
    (run / "manifest.json").unlink()
    (run / "checkpoint").mkdir(exist_ok=True)


ARTIFACTS = (
    Wrong("the model does not exist", "evaluate nowhere log.csv", ("nowhere", "does not exist")),
    Wrong("a file in place of a model", "evaluate log.csv log.csv", ("log.csv", "is a file")),
    Wrong("a folder that is no model", "evaluate . log.csv", ("manifest.json", "fit")),
    _spoil("a run that has not finished", _unfinish, "not finished", "--resume"),
    _spoil("a model of another format", _edit("manifest.json", format="x"), "format", "'x'"),
    _spoil("a model of a later version", _edit("manifest.json", version=9), "version", "9"),
    _spoil("a manifest that is not JSON", _cut("manifest.json"), "manifest.json", "JSON"),
    _spoil(
        "a model without its weights",
        lambda run: (run / "weights.safetensors").unlink(),
        "weights.safetensors",
    ),
    _spoil("weights cut off", _cut("weights.safetensors"), "weights.safetensors", "damaged"),
    _spoil("weights cut off, checksum mended", _cut_and_sign, "weights.safetensors", "safetensors"),
    _spoil("weights that are no numbers", _nan, "heads.0.bias", "NaN"),
    _spoil("a specification edited by hand", _edit("spec.json", embeddings=[7]), "spec.json"),
    _spoil(
        "a specification edited, checksum mended",
        _edit_and_sign("spec.json", embeddings=[7, 4]),
        "fingerprint",
    ),
    _spoil(
        "a specification without layers, checksum mended",
        _edit_and_sign("spec.json", layers=[]),
        "layers",
    ),
    _spoil(
        "floors that are gone, checksum mended",
        _edit_and_sign("floors.json", next_event=None),
        "floors.json",
    ),
    _spoil(
        "predicting with a damaged model",
        _cut("floors.safetensors"),
        "floors.safetensors",
        command="predict run log.csv",
    ),
)
