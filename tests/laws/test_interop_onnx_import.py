"""Laws of reading ONNX: what was read computes what ONNX Runtime computes, or it is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="the package onnxruntime is not installed")

import onnxruntime as ort
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hiddenstate.artifact import ModelSpec, load, save
from hiddenstate.cells import GRU, LSTM
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import ArtifactError, HiddenstateError, SpecError
from hiddenstate.interop.onnx import imported, read
from hiddenstate.runtime import Model
from tests.laws import onnx_graphs
from tests.laws.onnx_graphs import D, Graph, H, V, bare

KINDS = ("RNN", "GRU", "LSTM")
every_kind = pytest.mark.parametrize("kind", KINDS)


def run(model: ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    """ONNX Runtime's own answer, asked for by the test."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: list[np.ndarray] = session.run(None, feeds)
    return found


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


def no_codes(batch: int, time: int) -> np.ndarray:
    return np.zeros((batch, time, 0), np.int64)


STYLES: dict[str, Any] = {
    "torch": onnx_graphs.torch_style,
    "torch, both ways": lambda kind: onnx_graphs.torch_style(kind, ways=2),
    "torch, time first": lambda kind: onnx_graphs.torch_style(kind, batch_first=False),
    "torch, last step": lambda kind: onnx_graphs.torch_style(kind, last=True),
    "torch, given states": lambda kind: onnx_graphs.torch_style(kind, state=True),
    "tensorflow": onnx_graphs.tensorflow_style,
    "tensorflow, last": lambda kind: onnx_graphs.tensorflow_style(kind, sequences=False),
    "paired": onnx_graphs.paired_style,
    "rearranged": lambda _: onnx_graphs.rearranged_style(),
    "bare": bare,
    "bare, both ways": lambda kind: bare(kind, ways=2),
}


@every_kind
@pytest.mark.parametrize("style", STYLES)
def test_a_whole_graph_becomes_a_model(style: str, kind: str) -> None:
    found = imported(STYLES[style](kind).SerializeToString())
    assert found.refusals == ()
    assert found.proof is not None
    assert all(case.worst <= case.tolerance for case in found.proof.cases)
    (stack,) = found.stacks
    assert stack.proof.state is not None
    assert isinstance(found.artifact.spec, ModelSpec)
    assert Model(found.artifact).spec.task_names


def test_a_model_of_torch_says_the_same_in_our_runtime(tmp_path: Any) -> None:
    """The answer of the file, and the artifact written and read again."""
    model = onnx_graphs.torch_style("LSTM", state=True)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    found = read(tmp_path / "model.onnx")
    save(found.artifact, tmp_path / "artifact")
    runtime = Model(load(tmp_path / "artifact"))
    x, first = numbers(2, 6, D), numbers(4, 2, H)
    out, h, c = run(model, x=x, h0=first[:2], c0=first[2:])
    cells = [LSTM(1, H).State(first[k], first[2 + k]) for k in range(2)]
    (ours,), state = runtime.run(no_codes(2, 6), x, None, tuple(cells))
    np.testing.assert_allclose(ours, out, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.stack([each.h for each in state]), h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.stack([each.c for each in state]), c, rtol=1e-5, atol=1e-6)


def test_codes_become_probabilities_in_our_runtime() -> None:
    model = onnx_graphs.tensorflow_style("GRU")
    found = imported(model.SerializeToString())
    codes = np.random.default_rng(1).integers(7, size=(3, 5)).astype(np.int32)
    (theirs,) = run(model, codes=codes)
    runtime = Model(found.artifact)
    outputs = runtime.run_whole(codes[..., None].astype(np.int64), np.zeros((3, 5, 0)))
    np.testing.assert_allclose(np.exp(runtime.decode(outputs)[0]), theirs, rtol=1e-5, atol=1e-7)


class Tagger(torch.nn.Module):
    def __init__(self, kind: str, ways: int) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(7, D)
        layer = getattr(torch.nn, kind)
        self.layers = layer(D, H, 2, batch_first=True, bidirectional=ways == 2)
        self.head = torch.nn.Linear(ways * H, V)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.layers(self.table(codes))[0])
        return scores.log_softmax(-1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("ways", [1, 2])
@every_kind
def test_what_torch_exports_today_is_read(kind: str, ways: int, tmp_path: Any) -> None:
    torch.manual_seed(0)
    module = Tagger(kind, ways).eval()
    codes = torch.randint(7, (2, 6))
    path = tmp_path / "tagger.onnx"
    axes = {"codes": {0: "batch", 1: "time"}}
    try:
        torch.onnx.export(
            module, (codes,), path, input_names=["codes"], dynamic_axes=axes, dynamo=False
        )
    except ImportError as missing:
        pytest.skip(f"torch's exporter needs {missing.name}")
    found = read(path)
    assert found.refusals == ()
    runtime = Model(found.artifact)
    other = torch.randint(7, (5, 9))
    outputs = runtime.run_whole(other.numpy()[..., None], np.zeros((5, 9, 0)))
    with torch.no_grad():
        wanted = module(other).numpy()
    np.testing.assert_allclose(runtime.decode(outputs)[0], wanted, rtol=1e-4, atol=1e-6)


# --- real bugs of other importers


@pytest.mark.parametrize(("placed", "reset"), [(0, "before"), (1, "after"), (7, "after")])
def test_pytorch_189225_the_reset_gate_stays_where_it_was(placed: int, reset: str) -> None:
    """linear_before_reset is read; the other placement would be another function."""
    (way,) = imported(bare("GRU", linear_before_reset=placed).SerializeToString()).weights.ways
    assert isinstance(way.cell, GRU)
    assert way.cell.reset == reset
    other = imported(bare("GRU", linear_before_reset=int(not placed)).SerializeToString()).weights
    x = numbers(2, 9, D)
    moved = imported(bare("GRU", linear_before_reset=placed).SerializeToString()).weights.run(x)
    assert np.abs(moved.output - other.run(x).output).max() > 0.01


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_openvino_37820_layout_1_is_batch_first(kind: str) -> None:
    """The same weights in the other layout are the same layer over turned axes."""
    turned, plain = (imported(bare(kind, layout=k).SerializeToString()) for k in (1, 0))
    x = numbers(2, 6, D)
    np.testing.assert_array_equal(turned.weights.run(x).output, plain.weights.run(x).output)
    assert turned.refusals == ()
    (ours,) = Model(turned.artifact).run_whole(no_codes(2, 6), x)
    (theirs,) = run(bare(kind), x=x.swapaxes(0, 1))
    np.testing.assert_allclose(ours, theirs[:, 0].swapaxes(0, 1), rtol=1e-5, atol=1e-6)


def test_a_coupled_gate_is_one_minus_the_input_gate() -> None:
    """The rows of f mean nothing then, and the peepholes act on i and o."""
    peepholes = Graph()
    x = peepholes.input("x", ["a", "b", D])
    p = peepholes.constant(numbers(1, 3 * H))
    y, *_ = peepholes.recurrent("LSTM", x, input_forget=1, P=p)
    (way,) = imported(peepholes.model(y=y).SerializeToString()).weights.ways
    assert way.cell == LSTM(D, H, biases=2, peephole=True, coupled=True)


# --- what is refused


def clipped(kind: str) -> ModelProto:
    return bare(kind, clip=0.5)


def squashed(kind: str) -> ModelProto:
    count = {"RNN": 1, "GRU": 2, "LSTM": 3}[kind]
    return bare(kind, activations=["Softsign", "HardSigmoid", "Elu"][:count])


@every_kind
@pytest.mark.parametrize(("make", "named"), [(clipped, "0.5"), (squashed, "Softsign")])
def test_what_no_cell_computes_is_refused_with_its_error(make: Any, named: str, kind: str) -> None:
    with pytest.raises(ConversionRefusal, match=named) as told:
        imported(make(kind).SerializeToString())
    assert f"node {kind}" in told.value.wrong
    assert 1e-3 < told.value.measured_error < 10
    assert f"{told.value.measured_error:.2g}" in told.value.expected


@every_kind
def test_activations_that_a_cell_has_are_read(kind: str) -> None:
    names = {"RNN": ["Relu"], "GRU": ["SIGMOID", "tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
    found = imported(
        bare(kind, activations=names[kind], activation_alpha=[0.3]).SerializeToString()
    )
    assert found.weights.ways[0].cell.convention.startswith("relu") is (kind == "RNN")


def after(kind: str) -> ModelProto:
    graph = Graph()
    y, *_ = graph.recurrent("GRU", graph.input("x", ["a", "b", D]))
    return graph.model(y=graph.add(kind, y))


def before(kind: str) -> ModelProto:
    graph = Graph()
    x = graph.add(kind, graph.input("x", ["a", "b", D]))
    return graph.model(y=graph.recurrent("GRU", x)[0])


def two_stacks() -> ModelProto:
    graph = Graph()
    x = graph.input("x", ["a", "b", D])
    return graph.model(y=graph.recurrent("GRU", x)[0], z=graph.recurrent("LSTM", x)[0])


def a_first_state_of_the_file() -> ModelProto:
    graph = Graph()
    x, state = graph.input("x", ["a", 2, D]), graph.constant(numbers(1, 2, H))
    return graph.model(y=graph.recurrent("GRU", x, initial_h=state)[0])


def another_input() -> ModelProto:
    graph = Graph()
    y, *_ = graph.recurrent("GRU", graph.input("x", ["a", "b", D]))
    return graph.model(y=graph.add("Mul", y, graph.input("mask", ["a", 1, "b", 1])))


def backwards() -> ModelProto:
    return bare("GRU", direction="reverse")


def aside() -> ModelProto:
    """A node that nothing rests on is not run either."""
    graph = Graph()
    graph.add("Tile", graph.constant(numbers(4)), graph.ints(1 << 40))
    return graph.model(y=graph.recurrent("GRU", graph.input("x", ["a", "b", D]))[0])


def many_zeros() -> ModelProto:
    graph = Graph()
    zeros = graph.add("ConstantOfShape", graph.ints(1, 1 << 30, 1 << 20))
    x = graph.input("x", ["a", "b", D])
    return graph.model(y=graph.recurrent("GRU", x, initial_h=zeros)[0])


def side_by_side() -> ModelProto:
    """Two layers that both read forward; the one on top reads both."""
    graph = Graph()
    x, one = graph.input("x", ["a", "b", D]), graph.ints(1)
    both = [graph.add("Squeeze", graph.recurrent("GRU", x, seed=k)[0], one) for k in range(2)]
    joined = graph.add("Concat", *both, axis=2)
    return graph.model(y=graph.recurrent("GRU", joined, 2 * H)[0])


def a_large_batch() -> ModelProto:
    graph = Graph()
    return graph.model(y=graph.recurrent("GRU", graph.input("x", [1 << 20, 1 << 20, D]))[0])


def double() -> ModelProto:
    graph = Graph()
    x = graph.input("x", ["a", "b", D], TensorProto.DOUBLE)
    return graph.model(y=graph.recurrent("GRU", x, dtype=np.float64)[0])


def last_of_the_batch() -> ModelProto:
    graph = Graph()
    lengths = graph.input("lengths", ["b"], TensorProto.INT32)
    x = graph.input("x", ["a", "b", D])
    y, *_ = graph.recurrent("GRU", x, sequence_lens=lengths)
    return graph.model(y=graph.add("Gather", y, graph.constant(np.int64(-1)), axis=0))


MORE: dict[str, tuple[Any, str]] = {
    "behind": (lambda: after("Exp"), "node Exp"),
    "before": (lambda: before("Neg"), "node Neg 'Neg_1'"),
    "two stacks": (two_stacks, "2 recurrent stacks"),
    "a first state": (a_first_state_of_the_file, "begins with a state from numbers of the file"),
    "another input": (another_input, "node Mul"),
    "backwards": (backwards, "reads backwards alone"),
    "aside": (aside, "the node Tile 'Tile_3' has no place"),
    "many zeros": (many_zeros, "node ConstantOfShape"),
    "side by side": (side_by_side, "3 recurrent stacks"),
    "a large batch": (a_large_batch, "fixed size"),
    "double": (double, "does not run the model"),
    "last of the batch": (last_of_the_batch, "of the batch's last step"),
}


@pytest.mark.parametrize("case", MORE)
def test_a_graph_that_is_more_than_a_model_gives_its_weights_and_says_why(case: str) -> None:
    make, named = MORE[case]
    found = imported(make().SerializeToString())
    assert found.artifact is None
    assert any(named in refusal for refusal in found.refusals), found.refusals
    assert found.stacks
    if case == "a first state":
        assert "begins with a state of the file" in found.notes[0]
    if case == "double":
        assert found.weights.dtype == np.float64
        assert "float64" in found.notes[0]
    if case == "two stacks":
        with pytest.raises(SpecError, match="Choose one of `stacks`"):
            _ = found.weights


def test_a_step_past_the_walk_is_caught_by_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should the walk conclude too much, the numbers of ONNX Runtime do not agree."""
    from hiddenstate.interop.onnx.following import FOLLOW

    monkeypatch.setitem(FOLLOW, "Exp", FOLLOW["Identity"])  # type: ignore[index]
    found = imported(after("Exp").SerializeToString())
    assert found.artifact is None
    assert "differ" in found.refusals[0]


# --- files that are damaged, or that ask for more than they hold


def changed(**fields: Any) -> bytes:
    """A file whose first weight says something else of itself."""
    model = bare("LSTM")
    tensor = model.graph.initializer[0]
    for name, value in fields.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return model.SerializeToString()


def elsewhere() -> bytes:
    model = bare("LSTM")
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    return model.SerializeToString()


def multiplied() -> bytes:
    graph = Graph()
    x = graph.input("x", ["a", "b", D])
    many = graph.constant(np.zeros(100_000, np.float32))
    for _ in range(12):
        many = graph.add("Concat", many, many, axis=0)
    graph.add("Identity", many)
    return graph.model(y=graph.recurrent("GRU", x)[0]).SerializeToString()


def shared() -> bytes:
    """One weight of a small file, in a thousand nodes."""
    graph = Graph()
    x = graph.input("x", ["a", "b", D])
    y, *_ = graph.recurrent("LSTM", x)
    big = graph.constant(np.zeros((1, 4 * 200, 200), np.float32))
    w = graph.constant(np.zeros((1, 4 * 200, D), np.float32))
    for _ in range(1000):
        graph.several("LSTM", 1, x, w, big, hidden_size=200)
    return graph.model(y=y).SerializeToString()


def own_domain() -> bytes:
    model = bare("GRU")
    model.graph.node[0].domain = "com.example"
    model.opset_import.add(domain="com.example", version=1)
    return model.SerializeToString()


def sparse_bias() -> bytes:
    model = bare("GRU")
    dense = next(each for each in model.graph.initializer if each.name == "constant_3")
    values = numpy_helper.from_array(np.ones(1, np.float32), "constant_3")
    places = numpy_helper.from_array(np.array([4], np.int64), "places")
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, places, list(dense.dims))
    )
    model.graph.initializer.remove(dense)
    return model.SerializeToString()


def twice() -> bytes:
    model = bare("GRU")
    model.graph.initializer.append(model.graph.initializer[0])
    return model.SerializeToString()


def functions() -> bytes:
    model = bare("GRU")
    opset = [helper.make_opsetid("", 14)]
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("me", "f", ["a"], ["b"], [node], opset))
    return model.SerializeToString()


def computed_weights() -> bytes:
    model = bare("GRU")
    model.graph.node[0].input[1] = "x"
    return model.SerializeToString()


WRONG: dict[str, tuple[Any, str]] = {
    "no protobuf": (lambda: b"\xff\x00 not a model", "not a whole ONNX model"),
    "empty": (lambda: b"", "not a whole ONNX model"),
    "cut": (lambda: bare("LSTM").SerializeToString()[:200], "not a whole ONNX model"),
    "more rows than bytes": (lambda: changed(dims=[1, 1 << 40, D]), "says that it is"),
    "negative rows": (lambda: changed(dims=[-1, -20, D]), "says that it is"),
    "fewer bytes": (lambda: changed(raw_data=b"\0" * 8), "says that it is"),
    "another shape": (lambda: changed(dims=[D, 1, 4 * H]), "W [3, 1, 20]"),
    "half floats": (lambda: changed(data_type=TensorProto.FLOAT16), "which is no number"),
    "elsewhere": (elsewhere, "in another file"),
    "multiplied": (multiplied, "multiply the tensors"),
    "sparse bias": (sparse_bias, "weights B of the node GRU"),
    "twice": (twice, "'constant_1' twice"),
    "shared": (shared, "multiply the tensors"),
    "own domain": (own_domain, "no recurrent operator"),
    "functions": (functions, "functions of its own: f"),
    "computed weights": (computed_weights, "come from an input"),
    "too old": (lambda: bare("GRU", opset=3).SerializeToString(), "opset 3"),
    "too new": (lambda: bare("GRU", opset=999).SerializeToString(), "opset 999"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_told(case: str) -> None:
    make, named = WRONG[case]
    with pytest.raises(HiddenstateError) as told:
        imported(make(), "their.onnx")
    assert named in str(told.value)
    assert told.value.remedy


def test_any_byte_may_be_wrong() -> None:
    """A changed or missing byte ends in words, or changes nothing that matters."""
    whole = bare("GRU").SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(150):
        broken = bytearray(whole)
        place = int(rng.integers(len(broken)))
        if rng.random() < 0.5:
            broken[place] = int(rng.integers(256))
        else:
            del broken[place : place + int(rng.integers(1, 40))]
        with suppress(HiddenstateError):
            imported(bytes(broken))


def test_weights_in_other_fields_and_constants_in_nodes_are_read() -> None:
    """float_data in place of raw bytes, and Constant nodes in place of initialisers."""
    model = bare("GRU")
    plain = imported(model.SerializeToString()).weights
    tensor = model.graph.initializer[0]
    array = numpy_helper.to_array(tensor)
    values = helper.make_tensor(tensor.name, TensorProto.FLOAT, array.shape, array.ravel().tolist())
    tensor.CopyFrom(values)
    other = model.graph.initializer[1]
    node = helper.make_node("Constant", [], [other.name], value=other)
    model.graph.node.insert(0, node)
    del model.graph.initializer[1]
    same = imported(model.SerializeToString()).weights
    x = numbers(2, 4, D)
    np.testing.assert_array_equal(same.run(x).output, plain.run(x).output)


def test_a_missing_file_is_told(tmp_path: Any) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        read(tmp_path / "none.onnx")
