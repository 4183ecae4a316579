"""`hiddenstate convert`: from file to file with proof, and every wrong input told in words."""

from __future__ import annotations

import io
import json
import re
import sys
import warnings
import zipfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from hiddenstate import runtime
from hiddenstate.artifact import Artifact, LayerSpec, ModelSpec, load, save
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.interop.runs import from_run
from tests.journeys.calling import Called, call, run

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NEEDS = {".keras": "keras", ".npz": "flax", ".onnx": "onnxruntime"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a state_dict of two recurrent parts, and a bad file of every kind."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"table": nn.Embedding(5, 3), "lstm": nn.LSTM(3, 4, 2, bidirectional=True)}
    )
    model["gru"] = nn.GRU(8, 4)
    save_file(model.state_dict(), tmp_path / "two.safetensors")
    save_file(model["lstm"].state_dict(), tmp_path / "lstm.safetensors")
    save_file(nn.LSTM(3, 4).state_dict(), tmp_path / "one.safetensors")
    torch.save({"epoch": 3, "model": model["gru"].state_dict()}, tmp_path / "gru.pt")
    save_file(nn.RNN(3, 4, nonlinearity="relu").state_dict(), tmp_path / "relu.safetensors")
    torch.save(model, tmp_path / "whole.pt")
    for name in ("bad.pt", "bad.safetensors", "bad.npz", "bad.keras", "bad.onnx", "model.h5"):
        (tmp_path / name).write_bytes(b"hello")
    np.savez(tmp_path / "objects.npz", **{"0.kernel": np.array([{}], dtype=object)})
    np.savez(tmp_path / "other.npz", weight=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "empty.keras", "w") as file:
        file.writestr("metadata.json", "{}")
    return tmp_path


def converted(command: str, folder: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the layers in words, and what is told of the source and of the target."""
    done = call(f"convert {command} --json", folder)
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    for model in answer["models"]:
        assert model["proof"]["output"] < 1e-5
        assert len(model["proof"]["cases"]) >= 3
    return answer["layers"], answer["models"]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("lstm", "to.pt"),
        ("lstm", "to.keras"),
        ("lstm", "to.onnx"),
        ("one", "to.npz --to flax"),
    ],
)
def test_a_file_goes_to_every_system_and_back(source: str, target: str, folder: Path) -> None:
    target, *flags = target.split(maxsplit=1)
    needed = NEEDS.get(Path(target).suffix)
    if needed and not find_spec(needed):
        pytest.skip(f"{needed} is not installed")
    _, (first, second) = converted(f"{source}.safetensors {target} {' '.join(flags)}", folder)
    assert (first["system"], second["path"]) == ("torch", target)
    _, (third, _) = converted(f"{target} back.safetensors", folder)
    assert third["system"] == second["system"]
    before, after = (load_file(folder / f"{each}.safetensors") for each in (source, "back"))
    assert before.keys() == after.keys()
    for name, array in before.items():
        if "weight" in name:
            assert torch.equal(array, after[name])
        else:
            other = name.replace("_ih_", "_??_").replace("_hh_", "_ih_").replace("_??_", "_hh_")
            torch.testing.assert_close(array + before[other], after[name] + after[other])


def test_both_differences_are_printed_as_tables(folder: Path) -> None:
    done = call("convert gru.pt haste.npz --to haste --part model", folder)
    assert done.code == 0, done.err
    for words in (
        "layer 0: gru (reset after the recurrent product",
        "gru.pt (torch): largest differences from hiddenstate, float32",
        "haste.npz (haste): largest differences from hiddenstate, float32",
        "one step, given states",
        "haste.npz is written: both compute the same.",
    ):
        assert words in done.out
    assert call("convert haste.npz", folder).out.count("largest differences") == 1
    assert not list(folder.glob("*partial*"))


def test_parts_and_activations_are_chosen(folder: Path) -> None:
    _, (source,) = converted("two.safetensors --part lstm", folder)
    assert "5 other arrays" in source["notes"][0]
    layers, _ = converted("relu.safetensors --activation relu", folder)
    assert layers == ["layer 0: elman (relu, biases=2), D=3 H=4, forwards"]


def test_a_run_is_converted(good: Path, tmp_path: Path) -> None:
    target = tmp_path / "run.safetensors"
    _, (source, _) = converted(f"{good / 'run'} {target}", tmp_path)
    assert source["system"] == "hiddenstate"
    assert "embeddings, scalers and heads are left behind" in source["notes"][0]
    spec = load(good / "run").spec
    assert isinstance(spec, ModelSpec)
    first = spec.layers[0]
    assert isinstance(first, LayerSpec)
    assert load_file(target)["weight_ih_l0"].shape[1] == first.cell["input_size"]


@pytest.mark.skipif(not find_spec("onnxruntime"), reason="onnxruntime is not installed")
def test_a_run_becomes_an_onnx_file_with_its_heads(good: Path, tmp_path: Path) -> None:
    import onnx

    _, (whole,) = converted(f"{good / 'run'} {tmp_path / 'run.onnx'}", tmp_path)
    assert whole["system"] == "onnx"
    outputs = {each.name for each in onnx.load(tmp_path / "run.onnx").graph.output}
    assert any(name.startswith("next_event") for name in outputs)


def exported(folder: Path, module: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Write module as g.onnx; return codes [2, 7] and what it says of them."""
    codes = torch.randint(9, (2, 7))
    axes = {name: {0: "batch", 1: "time"} for name in ("codes", "said")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (codes,),
            str(folder / "g.onnx"),
            dynamo=False,
            input_names=["codes"],
            output_names=["said"],
            dynamic_axes=axes,
        )
    return codes, module(codes)


class Tagger(nn.Module):
    """Codes [B, T] to probabilities [B, T, 4]."""

    def __init__(self, *, wide: bool = False) -> None:
        super().__init__()
        self.table, self.lstm = nn.Embedding(9, 3), nn.LSTM(3, 5, 2, batch_first=True)
        self.head, self.wide = nn.Linear(5, 4), wide

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        h = self.lstm(self.table(codes))[0]
        return torch.softmax(self.head(h.relu() if self.wide else h), -1)


@pytest.mark.skipif(not find_spec("onnxruntime"), reason="onnxruntime is not installed")
def test_an_onnx_graph_becomes_a_model_that_streams(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, said = exported(folder, Tagger())
    _, (source,) = converted("g.onnx served", folder)
    assert (source["path"], source["system"]) == ("g.onnx", "onnx")
    model = runtime.Model(load(folder / "served"))
    state, none = model.initial_state(2), np.zeros((2, 0), np.float32)
    for step in range(7):
        outputs, state = model.step_many(codes[:, step, None].numpy(), none, state)
        found = np.exp(model.decode(outputs)[0])
        np.testing.assert_allclose(found, said[:, step].detach().numpy(), atol=1e-6)
    told(call("evaluate served two.safetensors", folder), "is no task")
    page = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text()
    block = re.findall(r"```python\n(.*?)```", page, re.S)[1]
    (folder / "served").rename(folder / "theirs")
    printed: list[tuple[int, ...]] = []
    monkeypatch.chdir(folder)
    exec(block, {"print": printed.append})
    assert printed == [(2, 4)]
    told(call("convert g.onnx theirs --overwrite", folder), "theirs is a folder")


@pytest.mark.skipif(not find_spec("onnxruntime"), reason="onnxruntime is not installed")
def test_a_graph_with_more_than_a_model_is_refused_and_its_layers_are_served(folder: Path) -> None:
    exported(folder, Tagger(wide=True))
    told(call("convert g.onnx served", folder), "g.onnx is more than a model here")
    assert not (folder / "served").exists()
    node = re.search(r"are written: ([^ ,;.]+)", call("convert g.onnx served", folder).err)
    assert node
    converted(f"g.onnx served --part {node[1]}", folder)
    assert (folder / "served" / "manifest.json").exists()


@pytest.mark.parametrize("source", ["one", "lstm"])
def test_layers_alone_are_served(source: str, folder: Path) -> None:
    _, (_, served) = converted(f"{source}.safetensors served", folder)
    assert served["system"] == "hiddenstate.runtime"
    sizes: Any = (3, 4) if source == "one" else (3, 4, 2, True, True, 0.0, True)
    layer = nn.LSTM(*sizes)
    layer.load_state_dict(load_file(folder / f"{source}.safetensors"))
    x = torch.randn(6, 2, 3)
    truth = layer(x if not layer.batch_first else x.transpose(0, 1))[0].detach()
    truth = truth if layer.batch_first else truth.transpose(0, 1)
    model = runtime.Model(load(folder / "served"))
    rows = x.transpose(0, 1).contiguous().numpy()
    (found,) = model.run_whole(np.zeros((2, 6, 0), np.int64), rows)
    np.testing.assert_allclose(found, truth.numpy(), atol=1e-6)


@pytest.mark.parametrize("change", ["residual", "zoneout", "layer_norm"])
def test_what_acts_beside_the_cells_of_a_run_is_refused(change: str, good: Path) -> None:
    artifact = load(good / "run")
    spec = artifact.spec
    assert isinstance(spec, ModelSpec)
    (layer,) = spec.layers
    assert isinstance(layer, LayerSpec)
    width = layer.cell["hidden_size"]
    upper = LayerSpec({**layer.cell, "input_size": width}, 0.3 if change == "zoneout" else 0.0)
    rng = np.random.default_rng(0)
    weights = dict(artifact.weights)
    for name, array in artifact.weights.items():
        if name.startswith("stack.layers.0."):
            shape = (len(array), width) if name.endswith("w_x") else array.shape
            weights[name.replace(".0.", ".1.")] = rng.normal(size=shape).astype(np.float32)
    weights |= (
        {"stack.norms.0.weight": np.ones(width, np.float32)} if change == "layer_norm" else {}
    )
    weights |= {"stack.norms.0.bias": np.ones(width, np.float32)} if change == "layer_norm" else {}
    changed = replace(
        spec,
        layers=(layer, upper),
        residual=change == "residual",
        layer_norm=change == "layer_norm",
    )
    names = {"residual": "residuals", "layer_norm": "layer norm between layers"}
    with pytest.raises(ConversionRefusal, match=names.get(change, change)) as raised:
        from_run(replace(artifact, spec=changed, weights=weights))
    assert raised.value.measured_error > 1e-3


WRONG = {
    "nothing.pt": "does not exist",
    "two.safetensors": "2 recurrent modules: 'gru', 'lstm'",
    "two.safetensors --part table": "'table' is not one of them",
    "whole.pt": "pickled Python objects are never loaded",
    "bad.pt": "holds other objects than tensors, or is damaged",
    "bad.safetensors": "holds other objects than tensors, or is damaged",
    "bad.npz": "pickled objects are never loaded",
    "objects.npz": "pickled objects are never loaded",
    "bad.keras": "no zip archive",
    "empty.keras": "is no model that can be read",
    "bad.onnx": "bad.onnx",
    "other.npz": "are no cell's: weight",
    "model.h5": "has the ending '.h5'",
    "lstm.safetensors lstm.txt": "has the ending '.txt'",
    "lstm.safetensors x.npz": "Say which with --to",
    "lstm.safetensors x.npz --to keras": "--to is keras",
    "lstm.safetensors x.npz --to cntk": "--to is 'cntk'",
    "lstm.safetensors x.pt --activation gelu": "--activation is 'gelu'",
    "lstm.safetensors gru.pt": "gru.pt exists",
    "lstm.safetensors ./lstm.safetensors --overwrite": "is the source",
    "lstm.safetensors no/such.pt": "is not a folder",
    "lstm.safetensors x.npz --to haste": "Layer 0 runs backwards",
    "relu.safetensors x.npz --to haste --activation relu": "Layer 0 is the cell elman",
    "relu.safetensors/x": "does not exist",
    ".": "manifest.json",
}


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_input_is_told_and_leaves_nothing(command: str, folder: Path) -> None:
    source = Path(command.split()[0])
    needed = NEEDS.get(source.suffix)
    if needed and not find_spec(needed):
        pytest.skip(f"{needed} is not installed")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = call(f"convert {command}", folder)
    told(done, WRONG[command])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def told(done: Called, words: str) -> None:
    assert done.code in (1, 2), done
    assert words in done.err
    lines = done.err.strip().splitlines()
    assert len(lines) == 3, done.err
    assert lines[0].startswith("Error: ")
    assert done.out == ""


def test_a_refused_conversion_leaves_the_old_target(folder: Path) -> None:
    if not find_spec("keras"):
        pytest.skip("keras is not installed")
    from hiddenstate.interop.keras import keras

    layer = keras.layers.GRU(3, reset_after=False)
    keras.Sequential([keras.Input((None, 2)), layer]).save(folder / "before.keras")
    (folder / "old.pt").write_bytes(b"old")
    done = call("convert before.keras old.pt --overwrite", folder)
    told(done, "reset before the recurrent product")
    assert "would move the state by" in done.err
    assert (folder / "old.pt").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("package", "command"),
    [("keras", "lstm.safetensors x.keras"), ("flax", "lstm.safetensors x.npz --to flax")],
)
def test_a_missing_extra_is_named(
    package: str, command: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in list(sys.modules):
        if module == f"hiddenstate.interop.{package}" or module.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delattr(f"hiddenstate.interop.{package}", raising=False)
    done = call(f"convert {command}", folder)
    told(done, "is not installed")
    assert "pip install 'hiddenstate[interop]'" in done.err


def test_a_keras_backend_that_is_not_there_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not find_spec("keras") or find_spec("tensorflow"):
        pytest.skip("keras is not installed, or all of its backends are")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    done = run("convert lstm.safetensors x.keras", folder)
    told(done, "Keras is set to compute with tensorflow, which is not installed")


def test_nothing_pickled_is_ever_executed(folder: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return Path.touch, (folder / "executed",)

    torch.save({"weight_ih_l0": Touch()}, folder / "evil.pt")
    np.savez(folder / "evil.npz", **{"0.kernel": np.array([Touch()], dtype=object)})
    buffer = io.BytesIO()
    np.save(buffer, np.array([Touch()], dtype=object), allow_pickle=True)
    (folder / "plain.npz").write_bytes(buffer.getvalue())
    for name in ("evil.pt", "evil.npz", "plain.npz"):
        assert call(f"convert {name}", folder).code == 1
    assert not (folder / "executed").exists()


@pytest.mark.skipif(not find_spec("keras"), reason="keras is not installed")
def test_a_keras_model_with_code_in_it_is_refused(folder: Path) -> None:
    from hiddenstate.interop.keras import keras

    layers = keras.layers
    model = keras.Sequential([keras.Input((None, 2)), layers.LSTM(3, return_sequences=True)])
    model.add(layers.Lambda(lambda x: 2 * x))
    model.save(folder / "code.keras")
    told(call("convert code.keras", folder), "is no model that can be read")


def test_a_damaged_run_is_told(good: Path, tmp_path: Path) -> None:
    artifact: Artifact = load(good / "run")
    save(artifact, tmp_path / "run")
    (tmp_path / "run" / "spec.json").write_text("{}")
    told(call("convert run x.pt", tmp_path), "was changed or damaged")
