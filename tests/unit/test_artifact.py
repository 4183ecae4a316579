"""The artifact: what is written comes back, what was changed is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hiddenstate import artifact as artifacts
from hiddenstate.artifact import Artifact, ModelSpec, fingerprint
from hiddenstate.artifact.folder import FILES
from hiddenstate.errors import ArtifactError, HiddenstateError
from hiddenstate.job.fit import fit
from tests.unit.small_fits import SMALL, small_log


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    tasks = ["next_event", "occurs:b"]
    return fit(small_log(), tasks=tasks, layers=2, layer_norm=True, **SMALL).artifact


def test_an_artifact_comes_back_whole(artifact: Artifact, tmp_path: Path) -> None:
    artifacts.save(artifact, tmp_path / "deep" / "run")
    back = artifacts.load(tmp_path / "deep" / "run")
    assert back.spec == artifact.spec
    assert back.fingerprint == artifact.fingerprint
    for arrays, before in (
        (back.weights, artifact.weights),
        (back.floor_arrays, artifact.floor_arrays),
    ):
        assert set(arrays) == set(before)
        assert all(np.array_equal(arrays[name], before[name]) for name in before)
    assert back.floors == artifact.floors
    assert back.metrics == json.loads(json.dumps(artifact.metrics))
    assert back.card == artifact.card
    assert {path.name for path in (tmp_path / "deep" / "run").iterdir()} == {
        *FILES,
        "manifest.json",
    }


def test_arrays_come_back_however_they_lie(artifact: Artifact, tmp_path: Path) -> None:
    turned = {name: array.T.copy().T for name, array in artifact.weights.items()}
    artifacts.save(replace(artifact, weights=turned), tmp_path)
    back = artifacts.load(tmp_path).weights
    assert all(np.array_equal(back[name], artifact.weights[name]) for name in turned)


def test_the_specification_comes_back_from_json(artifact: Artifact) -> None:
    value = json.loads(json.dumps(artifact.spec.to_json()))
    assert ModelSpec.from_json(value) == artifact.spec


def test_the_fingerprint_is_of_every_weight_and_the_specification(artifact: Artifact) -> None:
    for name, array in artifact.weights.items():
        changed = array.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
        assert fingerprint(artifact.spec, {**artifact.weights, name: changed}) != (
            artifact.fingerprint
        )
    spec = replace(artifact.spec, residual=not artifact.spec.residual)
    assert fingerprint(spec, artifact.weights) != artifact.fingerprint
    renamed = {f"{name}_": array for name, array in artifact.weights.items()}
    assert fingerprint(artifact.spec, renamed) != artifact.fingerprint


def test_the_fingerprint_is_not_of_the_order_or_layout(artifact: Artifact) -> None:
    turned = {name: np.asfortranarray(artifact.weights[name]) for name in [*artifact.weights][::-1]}
    assert fingerprint(artifact.spec, turned) == artifact.fingerprint


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("damage", ["gone", "cut", "changed", "empty"])
def test_a_damaged_folder_is_refused(
    name: str, damage: str, artifact: Artifact, tmp_path: Path
) -> None:
    artifacts.save(artifact, tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = bytes([content[middle] ^ 1])
        path.write_bytes(
            {
                "cut": content[:-9],
                "changed": content[:middle] + flipped + content[middle + 1 :],
                "empty": b"",
            }[damage]
        )
    with pytest.raises(ArtifactError) as caught:
        artifacts.load(tmp_path)
    assert str(tmp_path) in caught.value.wrong


@pytest.mark.parametrize("key", ["schema", "embeddings", "layers", "heads", "residual"])
@pytest.mark.parametrize("value", [None, [], "text", 3, [None], {}])
def test_a_specification_of_something_else_is_refused(
    key: str, value: object, artifact: Artifact
) -> None:
    spec = json.loads(json.dumps(artifact.spec.to_json()))
    if key == "residual":
        del spec[key]
    else:
        spec[key] = value
    with pytest.raises(HiddenstateError):
        ModelSpec.from_json(spec)


def test_a_folder_being_written_is_no_artifact(artifact: Artifact, tmp_path: Path) -> None:
    """The manifest goes first and comes last, so that a crash between leaves no false model."""
    artifacts.save(artifact, tmp_path)
    (tmp_path / "weights.safetensors").unlink()
    (tmp_path / "weights.safetensors").mkdir()  # Writing the weights will fail.
    with pytest.raises(OSError, match="weights"):
        artifacts.save(artifact, tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        artifacts.load(tmp_path)


def test_a_large_or_odd_json_file_is_refused(
    artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts.save(artifact, tmp_path)
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(ArtifactError, match="holds a list"):
        artifacts.load(tmp_path)
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(ArtifactError, match="JSON"):
        artifacts.load(tmp_path)
    monkeypatch.setattr("hiddenstate.artifact.files.JSON_LIMIT_BYTES", 10)
    with pytest.raises(ArtifactError, match="At most 10 bytes"):
        artifacts.load(tmp_path)
