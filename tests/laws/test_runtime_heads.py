"""Every kind of head, pool and layer gives the same without torch as with it."""

from __future__ import annotations

import itertools
import json
from typing import Any, get_args

import numpy as np
import pytest
import torch

from hiddenstate.artifact import (
    AnyLayerSpec,
    Artifact,
    HeadSpec,
    LayerSpec,
    ModelSpec,
    Output,
    TransformerSpec,
)
from hiddenstate.cells import build
from hiddenstate.models import Batch, SequenceModel
from hiddenstate.models.heads import LOSS_OF
from hiddenstate.nn import POOLS
from hiddenstate.runtime import Model
from hiddenstate.schema import Channels, InputSpec, Symbols
from tests.laws.test_runtime import near

OUTPUTS: tuple[Output, ...] = get_args(Output)
SYMBOLS = Symbols.fit(["abcdefg"], "characters")
CHANNELS = Channels.fit(("load", "heat"), np.arange(20.0).reshape(10, 2))
CLASSES = ["no", "yes", "maybe"]
LENGTHS = np.array([5, 1, 0, 7])


def head(output: Output, pool: str | None = None, *, tied: bool = False) -> HeadSpec:
    classes = [str(code) for code in range(len(SYMBOLS))] if tied else CLASSES
    if output != "classes":
        classes = []
    size = 1 if output in ("classes", "number") else 3
    levels = (0.1, 0.5, 0.9) if output == "quantiles" else ()
    return HeadSpec({"task": "t", "classes": classes}, None, output, size, levels, pool, tied)


def recurrent(width: int, *, bidirectional: bool = False) -> tuple[AnyLayerSpec, ...]:
    return (LayerSpec(build("gru", width, 6).to_json(), 0.0, bidirectional),)


def transformer(width: int, *, causal: bool = True) -> tuple[AnyLayerSpec, ...]:
    return (TransformerSpec(width, 8, 2, 2, 16, causal=causal),)


def spec_of(
    schema: InputSpec, heads: tuple[HeadSpec, ...], layers: tuple[AnyLayerSpec, ...]
) -> ModelSpec:
    embeddings = tuple(4 for _ in schema.code_sizes)
    return ModelSpec(schema, embeddings, layers, heads)


def model_of(spec: ModelSpec) -> tuple[SequenceModel, Artifact]:
    torch.manual_seed(5)
    model = SequenceModel(spec).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    weights = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
    return model, Artifact(spec, weights, {}, {}, {})


def inputs_of(spec: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    time = int(LENGTHS.max())
    codes = [rng.integers(size, size=(len(LENGTHS), time)) for size in spec.schema.code_sizes]
    numbers = rng.normal(size=(len(LENGTHS), time, len(spec.schema.number_names)))
    empty = np.zeros((len(LENGTHS), time, 0), np.int64)
    return np.stack(codes, -1) if codes else empty, numbers.astype(np.float32)


CASES: list[tuple[str, ModelSpec]] = [
    *(
        (f"{output}, {pool}", spec_of(CHANNELS, (head(output, pool),), recurrent(2)))
        for output, pool in itertools.product(OUTPUTS, (None, *POOLS))
    ),
    *(
        (
            f"{pool}, both ways",
            spec_of(SYMBOLS, (head("classes", pool),), recurrent(4, bidirectional=True)),
        )
        for pool in POOLS
    ),
    ("tied, projected", spec_of(SYMBOLS, (head("classes", tied=True),), recurrent(4))),
    (
        "tied, as wide",
        spec_of(
            SYMBOLS, (head("classes", tied=True),), (LayerSpec(build("lstm", 4, 4).to_json()),)
        ),
    ),
    ("transformer", spec_of(SYMBOLS, (head("classes"), head("gaussian")), transformer(4))),
    ("transformer, tied", spec_of(SYMBOLS, (head("classes", tied=True),), transformer(4))),
    (
        "transformer, pooled",
        spec_of(CHANNELS, (head("classes", "mean"),), transformer(2, causal=False)),
    ),
]


@pytest.mark.parametrize("spec", [spec for _, spec in CASES], ids=[name for name, _ in CASES])
def test_runtime_is_torch(spec: ModelSpec) -> None:
    """As near to the float64 truth as torch in float32; NaN in the padding changes nothing."""
    model, artifact = model_of(spec)
    codes, numbers = inputs_of(spec)
    real = np.arange(codes.shape[1]) < LENGTHS[:, None]
    numbers[~real] = np.nan
    given = [torch.from_numpy(array) for array in (codes, numbers, LENGTHS)]
    with torch.no_grad():
        outputs, _ = model(*given, final_state=False)
        exact, _ = model.double()(given[0], given[1].double(), given[2], final_state=False)
    runtime = Model(artifact)
    for each, fast, reference, truth in zip(
        spec.heads, runtime.run_whole(codes, numbers, LENGTHS), outputs, exact, strict=True
    ):
        rows = real if each.pool is None else np.ones(len(LENGTHS), bool)
        assert fast.shape == reference.shape
        near(fast[rows], reference.numpy()[rows], truth.numpy()[rows])


@pytest.mark.parametrize("spec", [spec for _, spec in CASES], ids=[name for name, _ in CASES])
def test_a_spec_comes_back(spec: ModelSpec) -> None:
    assert ModelSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


@pytest.mark.parametrize(
    "spec",
    [spec for _, spec in CASES if not spec.refusals("streaming")],
    ids=[name for name, spec in CASES if not spec.refusals("streaming")],
)
def test_streamed_is_chunked_is_whole(spec: ModelSpec) -> None:
    """One step at a time and in ragged chunks, a causal model says what it says of the whole."""
    runtime = Model(model_of(spec)[1])
    codes, numbers = inputs_of(spec)
    whole = runtime.run_whole(codes, numbers)
    pooled = spec.heads[0].pool is not None
    state = runtime.initial_state(len(LENGTHS))
    for t in range(codes.shape[1]):
        outputs, state = runtime.step_many(codes[:, t], numbers[:, t], state)
        for one, many in zip(outputs, whole, strict=True):
            if not pooled:
                np.testing.assert_allclose(one, many[:, t], rtol=2e-5, atol=3e-6)
    if pooled:
        np.testing.assert_allclose(outputs[0], whole[0], rtol=2e-5, atol=3e-6)
    first, state = runtime.run(codes[:, :3], numbers[:, :3])
    second, state = runtime.run(codes[:, 3:], numbers[:, 3:], None, state)
    for before, after, many in zip(first, second, whole, strict=True):
        joined = after if pooled else np.concatenate([before, after], axis=1)
        np.testing.assert_allclose(joined, many, rtol=2e-5, atol=3e-6)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("pool", [None, "last"])
def test_every_output_has_a_loss_that_masks(output: Output, pool: str | None) -> None:
    """What stands where the mask is false changes neither the loss nor a gradient."""
    assert set(LOSS_OF) == set(OUTPUTS)
    spec = spec_of(CHANNELS, (head(output, pool),), recurrent(2))
    model, _ = model_of(spec)
    codes, numbers = inputs_of(spec)
    leading = (len(LENGTHS),) if pool else codes.shape[:2]
    shape = leading if output in ("classes", "number") else (*leading, 3)
    rng = np.random.default_rng(0)
    mask = rng.random(leading if output == "bernoulli" else shape) < 0.6

    def gradients(fill: float) -> list[np.ndarray]:
        truth = np.where(rng_truth < 0.5, 0.0, 1.0)
        covered = mask if mask.ndim == truth.ndim else mask[..., None]
        truth = np.where(covered, truth, fill)
        target = torch.from_numpy(truth.astype(np.int64 if output == "classes" else np.float32))
        batch = Batch(
            torch.from_numpy(codes),
            torch.from_numpy(numbers),
            torch.from_numpy(LENGTHS),
            (target,),
            (torch.from_numpy(mask),),
        )
        lost = model.losses(batch)
        assert int(lost.steps) == int(mask.sum())
        model.zero_grad()
        lost.sums.sum().backward()
        found: list[Any] = [lost.sums.detach().numpy()]
        return found + [weight.grad.numpy().copy() for weight in model.parameters()]

    rng_truth = np.random.default_rng(1).random(shape)
    wild = 2.0 if output == "classes" else np.nan
    for plain, filled in zip(gradients(0.0), gradients(wild), strict=True):
        np.testing.assert_array_equal(plain, filled)


def test_what_the_outputs_mean() -> None:
    """Log probabilities sum to one, quantiles rise, deviations are positive."""
    for output in OUTPUTS:
        spec = spec_of(CHANNELS, (head(output),), recurrent(2))
        codes, numbers = inputs_of(spec)
        runtime = Model(model_of(spec)[1])
        (meant,) = runtime.decode(runtime.run_whole(codes, numbers))
        assert meant.dtype == np.float64
        if output == "classes":
            np.testing.assert_allclose(np.exp(meant).sum(-1), 1.0, rtol=1e-12)
        elif output == "quantiles":
            assert meant.shape[-2:] == (3, 3)
            assert (np.diff(meant, axis=-1) >= 0).all()
        elif output == "gaussian":
            assert meant.shape[-2:] == (2, 3)
            assert (meant[..., 1, :] > 0).all()
        elif output != "number":
            assert meant.shape[-1] == 3
