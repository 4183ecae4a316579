"""Laws of translators: the runtime is torch, padding is nothing, steps sum up to the whole."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from hiddenstate.artifact import AnyLayerSpec, Artifact, LayerSpec, TransformerSpec, TranslatorSpec
from hiddenstate.artifact.translator import CONTEXTS, Context
from hiddenstate.cells import CELLS, build
from hiddenstate.errors import ArtifactError, DataError, HiddenstateError, SpecError
from hiddenstate.models import Regularisation
from hiddenstate.models.sampling import RISES, own_share
from hiddenstate.models.translator import PairBatch, Translator
from hiddenstate.runtime import translator as runtime
from hiddenstate.schema import Symbols

SOURCE, TARGET = Symbols.fit(["abcdefg"]), Symbols.fit(["uvwxyz"])
WIDTH, MEMORY = 6, 8
LENGTHS = ((5, 4), (3, 0), (1, 6), (7, 1))


def spec_of(
    context: Context, cell: str = "gru", *, layers: int = 1, both: bool = True, **more: Any
) -> TranslatorSpec:
    """A translator of two small alphabets; both: whether the encoder reads both directions."""
    if context == "cross":
        encoder: tuple[AnyLayerSpec, ...] = (
            TransformerSpec(5, MEMORY, layers, 2, 12, causal=False),
        )
        decoder: tuple[AnyLayerSpec, ...] = (
            TransformerSpec(WIDTH, 8, layers, 2, 12, memory_size=MEMORY),
        )
        return TranslatorSpec(SOURCE, TARGET, (5, WIDTH), encoder, decoder, context, **more)
    reads = WIDTH * (2 if more.get("input_feeding") else 1)
    reads += MEMORY if context in ("every_step", "additive") else 0
    return TranslatorSpec(
        SOURCE,
        TARGET,
        (5, WIDTH),
        chain(cell, 5, MEMORY // 2 if both else MEMORY, layers, both),
        chain(cell, reads, 8, layers, False),
        context,
        **more,
    )


def chain(cell: str, width: int, hidden: int, layers: int, both: bool) -> tuple[LayerSpec, ...]:
    found = []
    for _ in range(layers):
        found.append(LayerSpec(build(cell, width, hidden).to_json(), 0.0, both))
        width = hidden * (2 if both else 1)
    return tuple(found)


RECURRENT: tuple[Context, ...] = tuple(each for each in CONTEXTS if each != "cross")
SPECS = {
    **{f"{context} {cell}": spec_of(context, cell) for context in RECURRENT for cell in CELLS},
    "cross": spec_of("cross"),
    "deep": spec_of("general", "lstm", layers=2),
    "deep cross": spec_of("cross", layers=2, tied=False),
    "reversed cross": spec_of("cross", reverse_source=True),
    "one way": spec_of("first_state", "lstm", layers=2, both=False),
    "reversed": spec_of("first_state", both=False, reverse_source=True),
    "reversed both": spec_of("dot", reverse_source=True),
    "fed": spec_of("general", input_feeding=True),
    "fed additive": spec_of("additive", "lstm", input_feeding=True, coverage=True),
    "covered": spec_of("additive", coverage=True),
    "untied": spec_of("every_step", "lstm", tied=False),
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def torch_of(spec: TranslatorSpec) -> Translator:
    torch.manual_seed(3)
    noise = Regularisation(dropout=0.3, input_dropout=0.2)
    model = Translator(spec, noise, own_share=own_share(0.5)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


def runtime_of(model: Translator) -> runtime.Translator:
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    return runtime.Translator(Artifact(model.spec, weights, {}, {}, {}))


def some_pairs(seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    sources = [rng.integers(0, len(SOURCE), count) for count, _ in LENGTHS]
    return sources, [rng.integers(0, len(TARGET), count) for _, count in LENGTHS]


def batch_of(sources: list[np.ndarray], targets: list[np.ndarray], filler: int = 0) -> PairBatch:
    def padded(rows: list[np.ndarray], more: int) -> torch.Tensor:
        longest = max(map(len, rows)) + more
        filled = [np.pad(row, (0, longest - len(row)), constant_values=filler) for row in rows]
        return torch.from_numpy(np.array(filled))

    lengths = [torch.tensor(list(map(len, rows))) for rows in (sources, targets)]
    more = 2 if filler else 0
    return PairBatch(padded(sources, more), lengths[0], padded(targets, more), lengths[1])


@every_spec
def test_runtime_is_torch(spec: TranslatorSpec) -> None:
    """The runtime is as near to the float64 truth as torch is in float32."""
    model = torch_of(spec)
    fast = runtime_of(model)
    sources, targets = some_pairs()
    batch = batch_of(sources, targets)
    inputs = torch.nn.functional.pad(batch.target, (1, 0), value=spec.boundary)

    def log_p(each: Translator) -> np.ndarray:
        with torch.no_grad():
            states = each(batch.source, batch.source_lengths, inputs)
            return each.scores(states).log_softmax(-1).numpy()

    reference, truth = log_p(model), log_p(model.double())
    place = fast.read(batch.source.numpy(), batch.source_lengths.numpy())
    found, _, _ = fast.run(inputs.numpy(), place)
    ulp = np.finfo(np.float32).eps * np.abs(truth).max()
    for row, target in enumerate(targets):
        real = slice(len(target) + 1)
        error = np.abs(found[row, real] - truth[row, real]).max()
        assert error <= 2 * np.abs(reference[row, real] - truth[row, real]).max() + 8 * ulp


@every_spec
def test_the_loss_is_the_sum_of_steps_taken_one_by_one(spec: TranslatorSpec) -> None:
    model = torch_of(spec)
    fast = runtime_of(model)
    sources, targets = some_pairs()
    with torch.no_grad():
        sums, steps, _ = model.losses(batch_of(sources, targets))
    total = 0.0
    for source, target in zip(sources, targets):
        state = fast.read(source[None], np.array([len(source)]))
        for said, wanted in zip((spec.boundary, *target), (*target, spec.boundary)):
            log_p, state = fast.step(np.array([said]), state)
            total -= log_p[0, wanted]
    assert float(sums) == pytest.approx(total, rel=2e-5)
    assert int(steps) == sum(len(target) + 1 for target in targets)
    forced = fast.log_probabilities(sources, targets)
    assert -sum(each.sum() for each in forced) == pytest.approx(total, rel=2e-6)


@every_spec
def test_padding_of_source_and_target_changes_nothing(spec: TranslatorSpec) -> None:
    model = torch_of(spec).double()
    sources, targets = some_pairs()

    def pull(filler: int) -> tuple[torch.Tensor, ...]:
        loss = model.losses(batch_of(sources, targets, filler)).sums.sum()
        return loss, *torch.autograd.grad(loss, list(model.parameters()), allow_unused=False)

    for plain, filled in zip(pull(0), pull(5), strict=True):
        torch.testing.assert_close(plain, filled, rtol=1e-10, atol=1e-12)
    alone = sum(
        float(model.losses(batch_of([source], [target])).sums.detach())
        for source, target in zip(sources, targets)
    )
    assert float(pull(0)[0].detach()) == pytest.approx(alone, rel=1e-10)


@every_spec
def test_training_reaches_every_weight_and_sampling_feeds_own_guesses(
    spec: TranslatorSpec,
) -> None:
    model = torch_of(spec)
    batch = batch_of(*some_pairs())
    forced = model.losses(batch).sums.detach()
    assert torch.equal(model.losses(batch).sums.detach(), forced)
    model.train()
    model.done = 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for module in model.modules():
            if hasattr(module, "share"):
                module.share = 0.0
        model.done = 0.0
        torch.testing.assert_close(model.losses(batch).sums, forced, rtol=1e-5, atol=1e-5)
        model.done = 1.0
        sums = model.losses(batch).sums
        assert not torch.allclose(sums, forced)
    sums.sum().backward()
    untouched = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert untouched == []


@pytest.mark.parametrize("schedule", RISES)
def test_the_share_of_own_guesses_rises_from_nothing_to_the_highest(schedule: Any) -> None:
    share = own_share(0.4, schedule)
    assert share is not None
    values = [share(done) for done in np.linspace(0, 1, 11)]
    assert values[0] == pytest.approx(0.0, abs=1e-9)
    assert values[-1] == pytest.approx(0.4)
    assert values == sorted(values)
    assert own_share(0.0, schedule) is None


@every_spec
def test_a_beam_gives_what_forcing_says_and_sources_do_not_mix(spec: TranslatorSpec) -> None:
    fast = runtime_of(torch_of(spec))
    sources, _ = some_pairs(1)
    together = fast.translate(sources, width=3)
    for source, found in zip(sources, together, strict=True):
        best = found[0]
        assert 0 not in best.codes
        assert spec.boundary not in best.codes
        (forced,) = fast.log_probabilities([source], [best.codes])
        assert best.log_probability == pytest.approx(forced.sum(), rel=1e-5)
        ((alone, *_),) = fast.translate([source], width=3)
        assert alone.log_probability == pytest.approx(best.log_probability, rel=1e-5)


@every_spec
def test_weights_over_the_source_sum_to_one(spec: TranslatorSpec) -> None:
    fast = runtime_of(torch_of(spec))
    source, target = np.array([1, 2, 3, 4]), np.array([1, 0, 2])
    if not spec.attends and spec.context != "cross":
        with pytest.raises(SpecError, match=r"pairs\.context"):
            fast.alignment(source, target)
        return
    alpha = fast.alignment(source, target)
    assert alpha.shape == (4, 4)
    heads = fast.looks(source, target)
    assert len(heads) == (1 if spec.attends else 2)
    np.testing.assert_allclose(heads.sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(heads.mean(axis=0), alpha, rtol=1e-6)
    if not spec.attends:
        return
    codes = np.zeros((2, 6), np.int64)
    codes[0, :4] = source
    place = fast.read(codes, np.array([4, 6]))
    _, padded, _ = fast.run(np.array([[spec.boundary, 1, 0, 2]] * 2), place)
    assert padded is not None
    assert (padded[0, :, 4:] == 0).all()
    turned = padded[0, :, 3::-1] if spec.reverse_source else padded[0, :, :4]
    np.testing.assert_allclose(turned, alpha, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in SPECS if SPECS[name].context == "cross"])
@pytest.mark.parametrize("largest", [1_000_000, 10])
def test_a_transformer_looks_where_torchs_last_block_does(
    name: str, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In torch beside a longer source; in the runtime also where few queries are run at once."""
    monkeypatch.setattr("hiddenstate.runtime.blocks.LARGEST_SCORES", largest)
    spec = SPECS[name]
    model = torch_of(spec).double()
    source, target = np.array([1, 2, 3, 4]), np.array([1, 0, 2])
    batch = batch_of([source, np.array([5, 6, 0, 1, 2, 3])], [target, target])
    inputs = torch.nn.functional.pad(batch.target, (1, 0), value=spec.boundary)
    with torch.no_grad():
        read = model.read(batch.source, batch.source_lengths)
        _, _, scans = model.decoder.trace(model.target_embedding(inputs), None, read.first)
    expected = scans[-1].gates.memory[0].numpy()
    assert not expected[..., 4:].any()
    expected = expected[..., :4]
    found = runtime_of(model.float()).looks(source, target)
    np.testing.assert_allclose(
        found[..., ::-1] if spec.reverse_source else found, expected, rtol=1e-5, atol=1e-6
    )


@every_spec
def test_a_specification_comes_back(spec: TranslatorSpec) -> None:
    value = json.loads(json.dumps(spec.to_json()))
    assert TranslatorSpec.from_json(value) == spec
    for key in set(value) - {"format", "version"}:
        with pytest.raises(ArtifactError, match=r"not whole"):
            TranslatorSpec.from_json({name: each for name, each in value.items() if name != key})
    with pytest.raises(ArtifactError, match="version 2"):
        TranslatorSpec.from_json({**value, "version": 2})


def test_a_reversed_source_is_the_source_read_backwards() -> None:
    plain = spec_of("first_state", both=False)
    model = torch_of(plain)
    turned = Translator(replace(plain, reverse_source=True))
    turned.load_state_dict(model.state_dict())
    sources, targets = some_pairs()
    backwards = [source[::-1].copy() for source in sources]
    one = runtime_of(model).log_probabilities(backwards, targets)
    other = runtime_of(turned).log_probabilities(sources, targets)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": "global"}, "Did you mean|knows"),
        ({"context": "cross"}, "one transformer with memory_size=8"),
        ({"context": "every_step"}, "reads 6 features.*gives 14"),
        ({"coverage": True}, "additive score"),
        ({"context": "first_state", "input_feeding": True}, "where attention has looked"),
        ({"embeddings": (4, WIDTH)}, "Layer 0 of the encoder reads 5"),
        ({"decoder": ()}, "recurrent layers"),
        ({"decoder": spec_of("cross").decoder}, "recurrent layers"),
        ({"encoder": chain("gru", 5, 3, 1, True), "context": "dot"}, "equal widths"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        replace(spec_of("general"), **change)


def test_weights_of_another_model_and_empty_sources_are_refused() -> None:
    model = torch_of(spec_of("general"))
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    for name, part in product(("encoder.layers.0.forward_layer.w_h", "bridge.bias"), (0, 1)):
        wrong = dict(weights)
        wrong[name] = wrong[name][:1] if part else wrong.pop(name)[..., :0]
        with pytest.raises(HiddenstateError, match=name):
            runtime.Translator(Artifact(model.spec, wrong, {}, {}, {}))
    more = {**weights, "extra": weights["bridge.bias"]}
    with pytest.raises(ArtifactError, match="extra"):
        runtime.Translator(Artifact(model.spec, more, {}, {}, {}))
    with pytest.raises(DataError, match="Source 2 of 2 has no symbols"):
        runtime_of(model).translate([np.array([1]), np.array([], np.int64)])
