"""One layer by ONNX Runtime: a model of one node, run through io-binding."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import cycle
from typing import Any

import numpy as np

from benchmarks.kernels.measure import Candidate
from benchmarks.kernels.subject import Subject

HAS_ORT = find_spec("onnx") is not None and find_spec("onnxruntime") is not None
if HAS_ORT:
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

OPERATORS = {"GRU": "GRU", "LSTM": "LSTM", "Elman": "RNN"}
# ONNX' gates in the order of torch's: update, reset, new; input, output, forget, cell.
BLOCKS = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2), "Elman": (0,)}
OPSET, IR_VERSION = 14, 8


def node(subject: Subject, x: str, output: str) -> tuple[Any, list[Any]]:
    """Return the node that reads x [T, B, D] and the states h0 (c0), and its weights."""
    order = BLOCKS[subject.kind]
    arrays = {}
    for name, array in subject.params.items():
        parts = np.split(array, len(order))
        arrays[name] = np.concatenate([parts[place] for place in order])[None]
    bias = np.concatenate([arrays["b_x"], arrays["b_h"]], -1)
    weights = {"W": arrays["w_x"], "R": arrays["w_h"], "B": bias}
    options: dict[str, Any] = {"hidden_size": subject.hidden_size}
    if subject.kind == "GRU":
        options["linear_before_reset"] = 1
    states = state_names(subject)
    inputs = [x, "W", "R", "B", "", *(f"{name}0" for name in states)]
    outputs = [output, *(f"{name}n" for name in states)]
    made = helper.make_node(OPERATORS[subject.kind], inputs, outputs, **options)
    return made, [numpy_helper.from_array(array, name) for name, array in weights.items()]


def state_names(subject: Subject) -> tuple[str, ...]:
    """Return the names of the state's arrays [1, B, H]."""
    return ("h", "c") if subject.kind == "LSTM" else ("h",)


def session(
    nodes: list[Any],
    weights: list[Any],
    inputs: dict[str, tuple[int, ...]],
    outputs: dict[str, tuple[int, ...]],
    threads: int,
    whole_numbers: tuple[str, ...] = (),
) -> Any:
    """Return a session over a graph; inputs and outputs are float32 but the whole_numbers."""

    def described(shapes: dict[str, tuple[int, ...]]) -> list[Any]:
        return [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name in whole_numbers else TensorProto.FLOAT, shape
            )
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(nodes, "layer", described(inputs), described(outputs), weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


class Loop:
    """A session that reads its own new state: two bindings with the state's buffers exchanged.

    others: arrays of all further inputs and outputs by name; the session works on their memory
    """

    def __init__(
        self, run: Any, states: tuple[str, ...], shape: tuple[int, ...], others: dict[str, Any]
    ) -> None:
        # On the processor an OrtValue shares the memory of the array that it is made from.
        value = ort.OrtValue.ortvalue_from_numpy
        inputs = {each.name for each in run.get_inputs()}
        sides = [{name: np.zeros(shape, np.float32) for name in states} for _ in range(2)]
        bound = [{name: value(array) for name, array in side.items()} for side in sides]
        turns = []
        for before, after, state in zip(bound, bound[::-1], sides[::-1]):
            binding = run.io_binding()
            for name, array in others.items():
                bind = binding.bind_ortvalue_input
                (bind if name in inputs else binding.bind_ortvalue_output)(name, value(array))
            for name in states:
                binding.bind_ortvalue_input(f"{name}0", before[name])
                binding.bind_ortvalue_output(f"{name}n", after[name])
            turns.append((binding, state))
        self._run, self._next = run.run_with_iobinding, cycle(turns)
        self.others = others

    def step(self) -> dict[str, Any]:
        """Run once from the last state; return the new one by name."""
        binding, state = next(self._next)
        self._run(binding)
        return state


def sequence(subject: Subject, threads: int) -> Candidate:
    """A whole sequence, time first, everything bound once."""
    batch, time, hidden = subject.batch, subject.time, subject.hidden_size
    made, weights = node(subject, "X", "Y")
    states, shape = state_names(subject), (1, batch, hidden)
    inputs = {"X": (time, batch, subject.input_size), **{f"{n}0": shape for n in states}}
    outputs = {"Y": (time, 1, batch, hidden), **{f"{n}n": shape for n in states}}
    run = session([made], weights, inputs, outputs, threads)
    values = {name: np.ones(size, np.float32) for name, size in outputs.items()}
    values |= {name: np.zeros(size, np.float32) for name, size in inputs.items()}
    values["X"][...] = subject.x.transpose(1, 0, 2)
    bound = {name: ort.OrtValue.ortvalue_from_numpy(each) for name, each in values.items()}
    binding = run.io_binding()
    for name in inputs:
        binding.bind_ortvalue_input(name, bound[name])
    for name in outputs:
        binding.bind_ortvalue_output(name, bound[name])
    return Candidate(
        lambda: run.run_with_iobinding(binding),
        lambda _: [values["Y"][:, 0].transpose(1, 0, 2)],
    )


def steps(subject: Subject, threads: int) -> Loop:
    """One step after the other from the new state; the input's buffer is "X" [1, B, D]."""
    made, weights = node(subject, "X", "")
    states, shape = state_names(subject), (1, subject.batch, subject.hidden_size)
    inputs = {"X": (1, subject.batch, subject.input_size), **{f"{n}0": shape for n in states}}
    run = session([made], weights, inputs, {f"{n}n": shape for n in states}, threads)
    return Loop(run, states, shape, {"X": np.ones(inputs["X"], np.float32)})
