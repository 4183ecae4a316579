"""The reference cases of the package onnx itself, for RNN, GRU and LSTM: all that it generates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the package onnx is not installed")

import onnx.backend.test.case.node.gru
import onnx.backend.test.case.node.lstm
import onnx.backend.test.case.node.rnn
from onnx import numpy_helper
from onnx.backend.test.case import node as generated

pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

from hiddenstate.interop.onnx import imported, read_node
from hiddenstate.interop.onnx.operators import INPUTS

CASES = [
    case
    for case in generated._NodeTestCases
    if case.model.graph.node[0].op_type in ("RNN", "GRU", "LSTM")
]
# What onnx 1.16 to 1.23 generate: none of it may get lost between two versions.
COUNTED = 18
every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def given(case: Any) -> tuple[Any, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The node, its inputs by their place in the operator, its outputs by name."""
    ((inputs, outputs),) = case.data_sets
    (node,) = case.model.graph.node
    places = [name for name, used in zip(INPUTS, node.input) if used]
    present = [name for name in node.output if name]
    return node, dict(zip(places, inputs, strict=True)), dict(zip(present, outputs, strict=True))


def near(case: Any, found: np.ndarray, wanted: np.ndarray) -> None:
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=min(case.rtol, 2e-6), atol=case.atol)


def test_all_cases_are_here() -> None:
    assert len(CASES) >= COUNTED
    for kind in ("rnn", "gru", "lstm"):
        source = getattr(generated, kind).__file__
        with open(source) as file:
            exports = file.read().count("def export")
        assert sum(case.model.graph.node[0].op_type == kind.upper() for case in CASES) == exports


@every_case
def test_the_node_gives_what_onnx_expects(case: Any) -> None:
    node, inputs, outputs = given(case)
    operator = read_node(node, {name: inputs[name] for name in "WRBP" if name in inputs})
    named = {"lengths": "sequence_lens", "initial_h": "initial_h", "initial_c": "initial_c"}
    states = {ours: inputs.get(theirs) for ours, theirs in named.items()}
    found = dict(zip(("Y", "Y_h", "Y_c"), operator.run(inputs["X"], **states)))
    assert outputs
    for name, wanted in outputs.items():
        near(case, found[name], wanted)


@every_case
def test_the_file_gives_what_onnx_expects(case: Any) -> None:
    """As weights of a file: constants of the graph, and the layout undone by the import."""
    node, inputs, outputs = given(case)
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    kept = [value for value in model.graph.input if value.name == "X"]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in inputs.items() if name != "X"
    )
    weights = imported(model.SerializeToString()).weights
    time_first = not any(each.name == "layout" and each.i for each in node.attribute)
    x = inputs["X"].swapaxes(0, 1) if time_first else inputs["X"]
    output, (states,) = weights.run(x)
    batch, time, _ = x.shape
    found = {"Y": output.reshape(batch, time, len(states), -1)}
    found |= {
        f"Y_{name}": np.stack([getattr(state, name) for state in states], 1)
        for name in states[0]._fields
    }
    for name, wanted in outputs.items():
        array = found[name]
        if time_first:
            array = array.transpose(1, 2, 0, 3) if name == "Y" else array.swapaxes(0, 1)
        near(case, array, wanted)
