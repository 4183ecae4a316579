"""Laws of the runtime: an artifact without torch is the model that was trained in torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from itertools import product

import numpy as np
import pytest
import torch

from hiddenstate.artifact import Artifact, HeadSpec, LayerSpec, ModelSpec
from hiddenstate.cells import CELLS, NUMPY, Cell, build
from hiddenstate.errors import ArtifactError, SpecError
from hiddenstate.kernels import ReferenceKernel, Request
from hiddenstate.models import Regularisation, SequenceModel
from hiddenstate.runtime import Model
from hiddenstate.schema import Categorical, EventLog, Scaler, Schema

LENGTHS = (9, 1, 4, 17, 2, 4)


def variants() -> list[tuple[str, dict[str, object]]]:
    """Every registered cell with every combination of its options that it accepts."""
    found = []
    for name, cell in sorted(CELLS.items()):
        options = {"biases": (1, 0, 2), **cell.options}
        for values in product(*options.values()):
            chosen = dict(zip(options, values))
            with suppress(SpecError):
                build(name, 3, 4, **chosen)
                found.append((name, chosen))
    return found


def some_log(seed: int = 0) -> EventLog:
    """Six cases with an activity, a label, a sparse number and times."""
    rng = np.random.default_rng(seed)
    events = sum(LENGTHS)
    amounts = rng.normal(5, 2, events)
    amounts[rng.random(events) < 0.4] = np.nan
    starts = np.repeat(np.arange(len(LENGTHS)) * 10**10, LENGTHS)
    return EventLog(
        case_ids=np.array([f"c{k}" for k in range(len(LENGTHS))], dtype=object),
        offsets=np.cumsum([0, *LENGTHS]),
        activity="activity",
        categorical={
            "activity": Categorical(rng.integers(0, 5, events).astype(np.int32), tuple("abcde")),
            "group": Categorical(rng.integers(-1, 3, events).astype(np.int32), tuple("xyz")),
        },
        numeric={"amount": amounts},
        time_us=starts + np.arange(events) * 10**8,
    )


def model_of(
    cell: Cell,
    *,
    layers: int = 1,
    bidirectional: int = 0,
    zoneout: float = 0.0,
    residual: bool = False,
    norm: bool = False,
) -> tuple[SequenceModel, Artifact, EventLog]:
    """A model with weights at random; that many of its layers, the lowest, are bidirectional."""
    log = some_log()
    schema = Schema.fit(log)
    embeddings = tuple(min(4, size) for size in schema.code_sizes)
    width = sum(embeddings) + len(schema.number_names)
    chain = []
    for k in range(layers):
        fields = {**cell.to_json(), "input_size": width}
        chain.append(LayerSpec(fields, zoneout, k < bidirectional))
        width = cell.output_size * (2 if k < bidirectional else 1)
    spec = ModelSpec(
        schema,
        embeddings,
        tuple(chain),
        (
            HeadSpec({"task": "next_event", "classes": [*"abcde", "<end>"]}),
            HeadSpec({"task": "remaining_time", "classes": []}, Scaler(0.3, 1.2, True), "number"),
        ),
        residual,
        norm,
    )
    torch.manual_seed(3)
    model = SequenceModel(spec, Regularisation(dropout=0.3, input_dropout=0.2)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    return model, Artifact(spec, weights, {}, {}, {}), log


def padded(artifact: Artifact, log: EventLog) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inputs = artifact.spec.schema.encode(log)
    rows = np.minimum(log.offsets[:-1, None] + np.arange(max(LENGTHS)), log.events - 1)
    return inputs.codes[rows], inputs.numbers[rows], log.lengths


DEEP: dict[str, object] = {"layers": 2, "residual": True, "norm": True}
CASES = [
    *((name, options, DEEP) for name, options in variants()),
    *((name, {}, {}) for name in sorted(CELLS)),
    *((name, {}, {"layers": 2, "zoneout": 0.3}) for name in sorted(CELLS)),
    *((name, {}, {"bidirectional": 1}) for name in sorted(CELLS)),
    *((name, {}, {**DEEP, "layers": 3, "bidirectional": 2}) for name in sorted(CELLS)),
    ("gru", {}, {"layers": 2, "bidirectional": 2, "zoneout": 0.3}),
    ("lstm", {"projection": 4}, {"layers": 2, "bidirectional": 2}),
]


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize(("name", "options", "shape"), CASES, ids=str)
def test_runtime_is_torch(name: str, options: dict[str, object], shape: dict[str, object]) -> None:
    """The runtime is as near to the float64 truth as torch is in float32."""
    model, artifact, log = model_of(build(name, 3, 6, **options), **shape)
    codes, numbers, lengths = padded(artifact, log)
    lengths = np.where(lengths == 1, 0, lengths)
    real = np.arange(codes.shape[1]) < lengths[:, None]
    numbers[~real] = np.nan
    inputs = [torch.from_numpy(array) for array in (codes, numbers, lengths)]
    with torch.no_grad():
        torch_outputs, torch_state = model(*inputs)
        exact, exact_state = model.double()(inputs[0], inputs[1].double(), inputs[2])
    runtime = Model(artifact)
    outputs = runtime.run_whole(codes, numbers, lengths)
    for fast, reference, truth in zip(outputs, torch_outputs, exact, strict=True):
        assert fast.dtype == np.float32
        near(fast[real], reference.numpy()[real], truth.numpy()[real])
    if artifact.spec.refusals("streaming"):
        return
    same, state = runtime.run(codes, numbers, lengths)
    for fast, reference, truth in zip(same, outputs, exact, strict=True):
        near(fast[real], reference[real], truth.numpy()[real])
    for layers in zip(state, torch_state, exact_state, strict=True):
        for fast, reference, truth in zip(*layers, strict=True):
            near(fast, reference.numpy(), truth.numpy())


def near(fast: np.ndarray, reference: np.ndarray, truth: np.ndarray) -> None:
    ulp = np.finfo(np.float32).eps * np.abs(truth).max()
    assert np.abs(fast - truth).max() <= 2 * np.abs(reference - truth).max() + 8 * ulp


@pytest.mark.parametrize("name", sorted(CELLS))
def test_streamed_is_whole(name: str) -> None:
    _, artifact, log = model_of(build(name, 3, 6), layers=2, residual=True)
    runtime, schema = Model(artifact), artifact.spec.schema
    codes, numbers, lengths = padded(artifact, log)
    whole = runtime.run_whole(codes, numbers, lengths)
    for case, length in enumerate(lengths):
        state, memory = runtime.initial_state(1), None
        part = log.select([case])
        for t in range(length):
            event = {
                "activity": part.categorical["activity"].names()[t],
                "group": part.categorical["group"].names()[t],
                "amount": part.numeric["amount"][t],
                "timestamp": int(part.time_us[t]),
            }
            code, number, memory = schema.encode_event(event, memory)
            outputs, state = runtime.step_many(code[None], number[None], state)
            for one, many in zip(outputs, whole, strict=True):
                np.testing.assert_allclose(one[0], many[case, t], rtol=2e-5, atol=2e-6)


def test_what_reads_backwards_has_no_state_to_carry_on() -> None:
    _, artifact, log = model_of(build("gru", 3, 6), layers=2, bidirectional=1)
    runtime = Model(artifact)
    codes, numbers, lengths = padded(artifact, log)
    assert artifact.spec.refusals("runtime") == []
    (reason,) = artifact.spec.refusals("streaming")
    calls: tuple[Callable[[], object], ...] = (
        lambda: runtime.initial_state(2),
        lambda: runtime.step_many(codes[:, 0], numbers[:, 0]),
        lambda: runtime.run(codes, numbers, lengths),
    )
    for call in calls:
        with pytest.raises(SpecError, match="run_whole") as told:
            call()
        assert reason in told.value.wrong


def test_an_executor_that_is_not_known_is_told_with_the_nearest() -> None:
    _, artifact, _ = model_of(build("gru", 3, 6))
    assert artifact.spec.refusals("streaming") == []
    with pytest.raises(SpecError, match="Did you mean streaming"):
        artifact.spec.refusals("streamed")


def test_a_bidirectional_layer_comes_back_and_changes_no_other_model() -> None:
    _, plain, _ = model_of(build("gru", 3, 6))
    _, both, _ = model_of(build("gru", 3, 6), bidirectional=1)
    for spec in (plain.spec, both.spec):
        assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert set(plain.spec.to_json()["layers"][0]) == {"cell", "zoneout"}


def test_the_kernel_of_every_direction_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is chosen again when the facts change, and not when they do not."""
    asked: list[Request] = []

    class Picky(ReferenceKernel):
        def refusals(self, request: Request) -> list[str]:
            asked.append(request)
            return ["rows differ in length"] if request.ragged else []

    kernels = (Picky(NUMPY, "picky"), ReferenceKernel(NUMPY))
    monkeypatch.setattr("hiddenstate.runtime.layer.KERNELS", kernels)
    _, artifact, log = model_of(build("gru", 3, 6), layers=2, bidirectional=1)
    runtime = Model(artifact)
    codes, numbers, lengths = padded(artifact, log)
    assert runtime.kernels == ("picky",) * 3
    runtime.run_whole(codes, numbers, lengths)
    assert runtime.kernels == ("reference",) * 3
    asked.clear()
    for _ in range(3):
        runtime.run_whole(codes, numbers)
    assert runtime.kernels == ("picky",) * 3
    assert [request.reverse for request in asked] == [False, True, False]
    assert not any(request.needs_state for request in asked)


def test_predictions_cover_every_event_once() -> None:
    _, artifact, log = model_of(build("gru", 3, 6))
    rows, first = [], []
    for prediction in Model(artifact).predict(log):
        rows.append(prediction.rows)
        first.append(prediction.outputs[0])
    assert sorted(np.concatenate(rows).tolist()) == list(range(log.events))
    np.testing.assert_allclose(np.exp(np.concatenate(first)).sum(axis=1), 1.0, rtol=1e-12)


def test_weights_of_another_model_are_refused() -> None:
    _, artifact, _ = model_of(build("gru", 3, 6))
    for change in ({"heads.0.bias": np.zeros(3, np.float32)}, {"extra": np.zeros(1, np.float32)}):
        wrong = Artifact(artifact.spec, {**artifact.weights, **change}, {}, {}, {})
        with pytest.raises(ArtifactError, match=next(iter(change))):
            Model(wrong)
