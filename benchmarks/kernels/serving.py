"""Item 8: one event of each of many entities, from its code to the log probabilities of the next.

hiddenstate runs an artifact (`step_many` and `decode`), torch the same layers under inference_mode,
ONNX Runtime one graph with io-binding. All feed the new state back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.kernels import onnx_candidates
from benchmarks.kernels.measure import Candidate, Row, measured
from benchmarks.kernels.plan import Setting
from benchmarks.kernels.subject import NAMES, TORCH_CELLS, Subject
from hiddenstate.artifact import Artifact, HeadSpec, LayerSpec, ModelSpec
from hiddenstate.cells import GRU
from hiddenstate.runtime import Model
from hiddenstate.schema import Schema, Vocabulary

if onnx_candidates.HAS_ORT:
    from onnx import helper, numpy_helper

ENTITIES, EMBEDDING, HIDDEN, CLASSES = 128, 32, 128, 30
STEPS = 5
OURS, ORT, CELL, LAYER = "hiddenstate", "ONNX Runtime", "torch, cell", "torch, nn.GRU"


def rows(setting: Setting) -> Iterator[Row]:
    """Yield the one row."""
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(CLASSES, EMBEDDING)
    head = torch.nn.Linear(HIDDEN, CLASSES)
    subject = Subject("GRU", ENTITIES, STEPS, EMBEDDING, HIDDEN)
    codes = np.random.default_rng(0).integers(CLASSES, size=(STEPS, ENTITIES))
    candidates = {OURS: _ours(subject, embedding, head, codes)}
    if onnx_candidates.HAS_ORT:
        candidates[ORT] = _ort(subject, embedding, head, codes, setting.threads)
    candidates[CELL] = _torch_cell(subject, embedding, head, codes)
    candidates[LAYER] = _torch_layer(subject, embedding, head, codes)
    with torch.no_grad():
        x = embedding(torch.tensor(codes.T)).double()
        h = subject.again(wide=True)(x)[0][:, -1]
        logits = h @ head.weight.double().T + head.bias.double()
    truth = [torch.log_softmax(logits, -1), h]
    row = measured(f"{ENTITIES} entities", candidates, truth, setting, LAYER)
    for name in candidates:
        row.check(f"{name}: events/s", [ENTITIES / each for each in row.samples.get(name, [])])
    row.compare(OURS, [ORT], "× ONNX Runtime")
    row.compare(OURS, [CELL, LAYER], "× torch")
    yield row


def _stepping(inputs: list[Any], step: Callable[[Any], Any]) -> Candidate:
    """Return one event of every entity; step gives (log probabilities, h), read after STEPS."""

    def first() -> Any:
        for codes in inputs:
            last = step(codes)
        return last

    return Candidate(lambda: step(inputs[0]), list, first=first)


def _ours(subject: Subject, embedding: Any, head: Any, codes: Any) -> Candidate:
    symbols = tuple(f"activity {number}" for number in range(1, CLASSES))
    classes = [f"class {number}" for number in range(CLASSES)]
    spec = ModelSpec(
        Schema({"activity": Vocabulary(symbols)}),
        (EMBEDDING,),
        (LayerSpec(GRU(EMBEDDING, HIDDEN, 2).to_json()),),
        (HeadSpec({"task": "next_event", "classes": classes}),),
    )
    weights = {
        "embeddings.0.weight": embedding.weight,
        "heads.0.weight": head.weight,
        "heads.0.bias": head.bias,
    }
    arrays = {name: weight.detach().numpy() for name, weight in weights.items()}
    arrays |= {f"stack.layers.0.{name}": array for name, array in subject.params.items()}
    model = Model(Artifact(spec, arrays, {}, {}, {}))
    numbers = np.zeros((ENTITIES, 0), np.float32)
    state = model.initial_state(ENTITIES)

    def step(codes: Any) -> Any:
        nonlocal state
        outputs, state = model.step_many(codes, numbers, state)
        return model.decode(outputs)[0], state[0].h

    return _stepping([each[:, None].copy() for each in codes], step)


def _torch_cell(subject: Subject, embedding: Any, head: Any, codes: Any) -> Candidate:
    cell = TORCH_CELLS["GRU"](EMBEDDING, HIDDEN)
    weights = {name: getattr(subject.module, f"{name}_l0") for name in NAMES.values()}
    cell.load_state_dict(weights)
    h = None

    def step(codes: Any) -> Any:
        nonlocal h
        with torch.inference_mode():
            h = cell(embedding(codes), h)
            return torch.log_softmax(head(h), -1), h

    return _stepping([*torch.tensor(codes)], step)


def _torch_layer(subject: Subject, embedding: Any, head: Any, codes: Any) -> Candidate:
    layer = subject.again(batch_first=False)
    h = None

    def step(codes: Any) -> Any:
        nonlocal h
        with torch.inference_mode():
            output, h = layer(embedding(codes)[None], h)
            return torch.log_softmax(head(output[0]), -1), h[0]

    return _stepping([*torch.tensor(codes)], step)


def _ort(subject: Subject, embedding: Any, head: Any, codes: Any, threads: int) -> Candidate:
    gru, weights = onnx_candidates.node(subject, "X", "")
    graph = [
        helper.make_node("Gather", ["table", "codes"], ["X"]),
        gru,
        helper.make_node("Squeeze", ["hn", "axis"], ["top"]),
        helper.make_node("Gemm", ["top", "head", "bias"], ["logits"], transB=1),
        helper.make_node("LogSoftmax", ["logits"], ["log_p"], axis=-1),
    ]
    weights += [
        numpy_helper.from_array(array, name)
        for name, array in (
            ("table", embedding.weight.detach().numpy()),
            ("head", head.weight.detach().numpy()),
            ("bias", head.bias.detach().numpy()),
            ("axis", np.zeros(1, np.int64)),
        )
    ]
    state = (1, ENTITIES, HIDDEN)
    run = onnx_candidates.session(
        graph,
        weights,
        {"codes": (1, ENTITIES), "h0": state},
        {"log_p": (ENTITIES, CLASSES), "hn": state},
        threads,
        whole_numbers=("codes",),
    )
    others = {"codes": codes[:1].copy(), "log_p": np.ones((ENTITIES, CLASSES), np.float32)}
    loop = onnx_candidates.Loop(run, ("h",), state, others)

    def step(codes: Any) -> Any:
        others["codes"][0] = codes
        new = loop.step()
        return others["log_p"], new["h"][0]

    return _stepping([*codes], step)
