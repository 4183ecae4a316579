"""Laws of writing ONNX: every cell, layer and head says in ONNX Runtime what it says here."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

import onnx as onnx_package
import onnxruntime as ort

from hiddenstate.artifact import Artifact, ModelSpec
from hiddenstate.cells import CELLS, GRU, LSTM, Cell, Elman, build
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import HiddenstateError, SpecError
from hiddenstate.interop import Way, Weights
from hiddenstate.interop.onnx import Exported, export, exporting, imported, layers, to_onnx
from hiddenstate.runtime import Model
from tests.laws import test_runtime, test_runtime_heads, test_translator
from tests.laws.cell_cases import every_variant, families, hold, label, params_of
from tests.laws.test_cells_throwaway import Blend
from tests.laws.test_runtime import DEEP, model_of, padded, some_log

OPERATORS = {"elman": "RNN", "gru": "GRU", "lstm": "LSTM"}


def way_of(cell: Cell, *, reverse: bool = False, seed: int = 0) -> Way:
    params = {name: array.astype(np.float32) for name, array in params_of(cell, seed).items()}
    return Way(cell, params, reverse)


def stacked(cell: Cell) -> Weights:
    """Two layers of a cell, forward."""
    above = replace(cell, input_size=cell.output_size)
    return Weights(((way_of(cell),), (way_of(above, seed=1),)))


def both_ways(cell: Cell) -> Weights:
    """A layer in both directions below one that reads backwards alone."""
    above = replace(cell, input_size=2 * cell.output_size)
    return Weights(
        (
            (way_of(cell), way_of(cell, reverse=True, seed=1)),
            (way_of(above, reverse=True, seed=2),),
        )
    )


def session_of(exported: Exported) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(exported.content, options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [each.name for each in session.get_inputs()]
    found = session.run(None, {name: feeds[name] for name in names})
    return dict(zip([each.name for each in session.get_outputs()], found, strict=True))


def kinds_in(exported: Exported) -> list[str]:
    graph = onnx_package.load_model_from_string(exported.content).graph
    return [node.op_type for node in graph.node if node.op_type in ("RNN", "GRU", "LSTM", "Scan")]


# --- stacks of cells


@pytest.mark.parametrize("cells", families(), ids=label)
def test_every_cell_is_exported(cells: list[Cell]) -> None:
    """By ONNX's operator where it has one, else as a Scan; forward with its states, and back."""

    def exported(cell: Cell) -> None:
        reasons = layers.refusals([way_of(cell)])
        operator = OPERATORS[cell.name]
        for make in (stacked, both_ways):
            found = to_onnx(make(cell))
            assert set(kinds_in(found)) == ({"Scan"} if reasons else {operator})
            assert found.proof.output < 1e-2
            assert (found.proof.state is None) is (make is both_ways)
            assert all(reason in " ".join(found.notes) for reason in reasons)
        wants = isinstance(cell, LSTM) and (cell.projection is not None or cell.layer_norm)
        assert bool(reasons) is bool(wants)

    hold(exported, cells)


def test_a_cell_that_is_registered_tomorrow_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own lines are run on values of the graph; nothing is written for it."""
    monkeypatch.setitem(CELLS, "blend", Blend)
    for fixed in (False, True):
        found = to_onnx(stacked(build("blend", 3, 4, fixed=fixed)))
        assert kinds_in(found) == ["Scan", "Scan"]
        assert "ONNX has no operator for the cell blend" in found.notes[0]


@pytest.mark.parametrize(
    "cells", [cells for cells in families() if not layers.refusals([way_of(cells[0])])], ids=label
)
def test_what_was_written_is_read_again(cells: list[Cell]) -> None:
    """The same function to the rounding of float64, in whatever convention the file has it."""

    def again(cell: Cell) -> None:
        weights = both_ways(cell) if cell.biases == 1 else stacked(cell)
        back = imported(to_onnx(weights).content).weights
        x = np.random.default_rng(3).normal(size=(3, 9, cell.input_size))
        ours, theirs = (each.astype(np.float64).run(x) for each in (weights, back))
        np.testing.assert_allclose(theirs.output, ours.output, rtol=1e-9, atol=1e-9)

    hold(again, cells)


def test_two_directions_that_differ_are_two_nodes() -> None:
    ways = way_of(Elman(3, 4)), way_of(Elman(3, 2, activation="relu"), reverse=True)
    assert kinds_in(to_onnx(Weights((ways,)))) == ["RNN", "RNN"]
    assert kinds_in(to_onnx(both_ways(Elman(3, 4)))) == ["RNN", "RNN"]


def test_pytorch_189225_the_reset_gate_stays_where_it_is() -> None:
    for reset, placed in (("before", 0), ("after", 1)):
        content = to_onnx(stacked(GRU(3, 4, 2, reset=reset))).content
        for node in onnx_package.load_model_from_string(content).graph.node:
            if node.op_type == "GRU":
                told = {each.name: each for each in node.attribute}
                assert told["linear_before_reset"].i == placed


def test_float64_weights_are_said_to_become_float32() -> None:
    found = to_onnx(stacked(GRU(3, 4)).astype(np.float64))
    assert "float64" in found.notes[0]
    assert "float64" not in " ".join(to_onnx(stacked(GRU(3, 4))).notes)


@pytest.mark.parametrize("break_it", ["order", "bias", "lengths"])
def test_a_wrong_file_is_not_written(
    break_it: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Swapped gates, a lost bias, a row without steps that forgets: each is caught by the run."""
    from hiddenstate.interop.onnx import graph, operators

    if break_it == "order":
        monkeypatch.setitem(operators.ROWS, "GRU", ("r", "z", "n"))  # type: ignore[index]
    elif break_it == "bias":
        kept = operators.arrays_of

        def without_a_bias(way: Way) -> dict[str, np.ndarray]:
            arrays = kept(way)
            arrays["B"][-1] = 0
            return arrays

        monkeypatch.setattr(operators, "arrays_of", without_a_bias)
    else:
        node = graph.Graph.node

        def forgetful(self: Any, kind: str, inputs: Any, **attributes: Any) -> Any:
            if kind == "Where" and inputs[1].name.startswith("Squeeze"):
                return inputs[1]
            return node(self, kind, inputs, **attributes)

        monkeypatch.setattr(graph.Graph, "node", forgetful)
    path = tmp_path / "wrong.onnx"
    with pytest.raises(ConversionRefusal, match="differ"):
        export(stacked(GRU(3, 4, 2)), path)
    assert list(tmp_path.iterdir()) == []


# --- whole artifacts


def artifact_of(spec: ModelSpec) -> Artifact:
    return test_runtime_heads.model_of(spec)[1]


HEADS = [(n, spec) for n, spec in test_runtime_heads.CASES if not n.startswith("transformer")]
TRANSFORMERS = [spec for n, spec in test_runtime_heads.CASES if n.startswith("transformer")]


@pytest.mark.parametrize("spec", [spec for _, spec in HEADS], ids=[name for name, _ in HEADS])
def test_every_head_is_exported(spec: ModelSpec) -> None:
    """With every pool; `prove_model` holds o, states, chunks and meanings beside our runtime."""
    found = to_onnx(artifact_of(spec))
    cases = {case.name for case in found.proof.cases}
    assert {"random", "saturated", "ragged", "no steps", "what the outputs mean"} <= cases
    streamed = not spec.refusals("streaming")
    assert ({"random, in chunks", "ragged, given states, in chunks"} <= cases) is streamed
    assert (found.proof.state is not None) is streamed


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [case for case in test_runtime.CASES if case[2] is not DEEP]
    + [case for case in test_runtime.CASES if case[2] is DEEP][::4],
    ids=str,
)
def test_every_shape_of_stack_is_exported(
    name: str, options: dict[str, object], shape: dict[str, Any]
) -> None:
    """Residuals, layer norm between layers, zoneout, both directions; a log's codes and numbers."""
    _, artifact, _ = model_of(build(name, 3, 6, **options), **shape)
    found = to_onnx(artifact)
    if shape.get("zoneout"):
        assert "no zoneout" in found.notes[0]


def test_a_log_is_encoded_by_what_stands_in_the_file() -> None:
    """Vocabularies and scalers come with it; events stream through it one by one."""
    _, artifact, log = model_of(build("lstm", 3, 6), layers=2, residual=True, norm=True)
    session = session_of(to_onnx(artifact))
    told = session.get_modelmeta().custom_metadata_map
    assert told["hiddenstate.fingerprint"] == artifact.fingerprint
    spec = ModelSpec.from_json(json.loads(told["hiddenstate.spec"]))
    assert spec == artifact.spec
    described = {each["name"]: each for each in json.loads(told["hiddenstate.tensors"])}
    given = {each.name for each in (*session.get_inputs(), *session.get_outputs())}
    unnamed = {name for name in given if "state." not in name and name != "lengths"}
    assert unnamed == set(described)
    inputs = spec.schema.encode(log)
    (wanted,) = (each for each in [next(iter(Model(artifact).predict(log)))])
    by_row = dict(zip(wanted.rows.tolist(), zip(*wanted.outputs)))
    case, length = 3, int(log.lengths[3])
    state = {
        each.name: np.zeros((1, each.shape[1]), np.float32)
        for each in session.get_inputs()
        if each.name.startswith("state.")
    }
    for t in range(length):
        row = int(log.offsets[case]) + t
        feeds = {"codes": inputs.codes[None, row : row + 1], "lengths": np.ones(1, np.int64)}
        feeds["numbers"] = inputs.numbers[None, row : row + 1]
        found = run(session, {**feeds, **state})
        state = {name: found[f"next_{name}"] for name in state}
        log_p, days = by_row[row]
        np.testing.assert_allclose(
            found["next_event.probabilities"][0, 0], np.exp(log_p), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(found["remaining_time.value"][0, 0], days, rtol=1e-4, atol=1e-6)


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, artifact, log = model_of(build("lstm", 3, 6), layers=2)
    export(artifact, tmp_path / "tickets.onnx")
    monkeypatch.chdir(tmp_path)
    case = int(np.argmax(log.lengths))
    part = log.select([case])
    events = [
        {
            "activity": part.categorical["activity"].names()[t],
            "group": part.categorical["group"].names()[t],
            "amount": part.numeric["amount"][t],
            "timestamp": int(part.time_us[t]),
        }
        for t in range(int(log.lengths[case]))
    ]
    page = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text()
    block = re.findall(r"```python\n(.*?)```", page, re.S)[0]
    known: dict[str, Any] = {"events": events, "print": lambda _: None}
    exec(block, known)
    ((*_, last),) = (each.outputs[0] for each in Model(artifact).predict(part))
    theirs = known["told"]["next_event.probabilities"][0, 0]
    np.testing.assert_allclose(theirs, np.exp(last), rtol=1e-4, atol=1e-6)
    for name in ("state.K.NAME", "next_state.K.NAME", "lengths", "codes", "numbers"):
        assert f"`{name}`" in page


def test_rows_without_steps_keep_their_state() -> None:
    """ONNX Runtime's own operators would give them zeros."""
    _, artifact, log = model_of(build("gru", 3, 6))
    session = session_of(to_onnx(artifact))
    codes, numbers, _ = padded(artifact, log)
    state = np.random.default_rng(0).normal(size=(len(codes), 6)).astype(np.float32)
    lengths = np.array([0, 3, 0, 1, 2, 0])
    found = run(
        session, {"codes": codes, "numbers": numbers, "lengths": lengths, "state.0.h": state}
    )
    kept = found["next_state.0.h"] == state
    assert kept[lengths == 0].all()
    assert not kept[lengths > 0].any()


def test_two_heads_of_one_name_are_told_apart() -> None:
    head = test_runtime_heads.head
    spec = test_runtime_heads.spec_of(
        test_runtime_heads.CHANNELS,
        (head("classes"), head("gaussian", "mean")),
        test_runtime_heads.recurrent(2),
    )
    session = session_of(to_onnx(artifact_of(spec)))
    names = [each.name for each in session.get_outputs()]
    assert names == ["t.0.logits", "t.0.probabilities", "t.1.raw", "t.1.mean", "t.1.deviation"]


def test_the_file_is_one_that_older_runtimes_read(tmp_path: Path) -> None:
    """Opset 17 and the IR of its time; the proof stands in it, and its size is that of weights."""
    artifact = artifact_of(HEADS[0][1])
    proof = export(artifact, tmp_path / "model.onnx")
    model = onnx_package.load(tmp_path / "model.onnx")
    onnx_package.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert model.ir_version == 8
    told = {each.key: each.value for each in model.metadata_props}
    assert json.loads(told["hiddenstate.proof"]) == json.loads(json.dumps(proof.to_json()))
    assert "next_state.K.NAME" in model.doc_string
    for value in (*model.graph.input, *model.graph.output):
        dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert dims[0] == "batch"
        assert "time" not in dims or dims[1] == "time"


# --- what is refused


def refused(subject: Any, path: Path, named: str) -> None:
    with pytest.raises(HiddenstateError) as told:
        export(subject, path)
    assert named in str(told.value)
    assert told.value.remedy
    assert list(path.parent.iterdir()) == []


def test_transformers_and_translators_are_refused(tmp_path: Path) -> None:
    for spec in TRANSFORMERS:
        refused(artifact_of(spec), tmp_path / "model.onnx", "is a transformer")
    spec = test_translator.spec_of("first_state")
    translator = Artifact(spec, {}, {}, {}, {})
    refused(translator, tmp_path / "model.onnx", "TranslatorSpec")


def test_two_gigabytes_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "LIMIT_BYTES", 500)
    for subject in (stacked(GRU(3, 4)), artifact_of(HEADS[0][1])):
        refused(subject, tmp_path / "model.onnx", "at most 2 GiB")


def test_a_model_that_onnx_runtime_does_not_run_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("Status Message: no such kernel")

    monkeypatch.setattr(ort, "InferenceSession", broken)
    with pytest.raises(SpecError, match="no such kernel"):
        export(stacked(GRU(3, 4)), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_every_cell_is_looked_at() -> None:
    assert {cell.name for cell in every_variant()} == set(OPERATORS) == set(CELLS)
    assert some_log().events
