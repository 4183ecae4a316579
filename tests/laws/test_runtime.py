"""Laws of the runtime: an artifact without torch is the model that was trained in torch."""

from __future__ import annotations

from contextlib import suppress
from itertools import product

import numpy as np
import pytest
import torch

from hiddenstate.artifact import Artifact, HeadSpec, LayerSpec, ModelSpec
from hiddenstate.cells import CELLS, Cell, build
from hiddenstate.errors import ArtifactError, SpecError
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
    cell: Cell, *, layers: int = 1, zoneout: float = 0.0, residual: bool = False, norm: bool = False
) -> tuple[SequenceModel, Artifact, EventLog]:
    log = some_log()
    schema = Schema.fit(log)
    embeddings = tuple(min(4, size) for size in schema.code_sizes)
    width = sum(embeddings) + len(schema.number_names)
    chain = []
    for _ in range(layers):
        fields = {**cell.to_json(), "input_size": width}
        chain.append(LayerSpec(fields, zoneout))
        width = cell.output_size
    spec = ModelSpec(
        schema,
        embeddings,
        tuple(chain),
        (
            HeadSpec({"task": "next_event", "classes": [*"abcde", "<end>"]}),
            HeadSpec({"task": "remaining_time", "classes": []}, Scaler(0.3, 1.2, True)),
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
]


@pytest.mark.parametrize(("name", "options", "shape"), CASES, ids=str)
def test_runtime_is_torch(name: str, options: dict[str, object], shape: dict[str, object]) -> None:
    """The runtime is as near to the float64 truth as torch is in float32."""
    model, artifact, log = model_of(build(name, 3, 6, **options), **shape)
    codes, numbers, lengths = padded(artifact, log)
    real = np.arange(codes.shape[1]) < lengths[:, None]
    inputs = [torch.from_numpy(array) for array in (codes, numbers, lengths)]
    with torch.no_grad():
        torch_outputs, torch_state = model(*inputs)
        exact, exact_state = model.double()(inputs[0], inputs[1].double(), inputs[2])
    outputs, state = Model(artifact).run(codes, numbers, lengths)
    for fast, reference, truth in zip(outputs, torch_outputs, exact, strict=True):
        assert fast.dtype == np.float32
        near(fast[real], reference.numpy()[real], truth.numpy()[real])
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
    whole, _ = runtime.run(codes, numbers, lengths)
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
