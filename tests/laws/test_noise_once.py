"""Laws of noise that is the same at all steps: also for who takes the steps one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiddenstate.artifact import HeadSpec, ModelSpec
from hiddenstate.artifact.translator import TranslatorSpec
from hiddenstate.cells import GRU
from hiddenstate.models import Batch, Regularisation, SequenceModel
from hiddenstate.models.translator import Translator
from hiddenstate.nn import Dropout, Recurrent, drawn_once
from hiddenstate.nn.dropout import Noise
from hiddenstate.schema import Symbols
from tests.laws.test_translator import TARGET, batch_of, chain, some_pairs, spec_of

NOISE = Regularisation(dropout=0.4, input_dropout=0.3, variational=True, dropconnect=0.5)
HOISTED = {
    "general": spec_of("general", "lstm", layers=3),
    "every step": spec_of("every_step", "gru"),
    "first state": spec_of("first_state", "elman", layers=2, both=False),
}
STEPWISE = {
    "additive": spec_of("additive", "lstm", layers=3, coverage=True),
    "fed": spec_of("general", "gru", layers=2, input_feeding=True),
    "fed additive": spec_of("additive", "elman", input_feeding=True),
}


def noisy(spec: TranslatorSpec) -> Translator:
    torch.manual_seed(1)
    model = Translator(spec, NOISE).train()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return model


def ran(model: nn.Module, batch: Any, seed: int = 7) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss in training and the gradient of every weight."""
    model.zero_grad()
    torch.manual_seed(seed)
    loss = model.losses(batch).sums.sum()
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    return loss.detach(), found


@pytest.mark.parametrize("spec", HOISTED.values(), ids=HOISTED)
def test_a_decoder_taken_step_by_step_has_the_noise_of_one_call(spec: TranslatorSpec) -> None:
    model, batch = noisy(spec), batch_of(*some_pairs())
    whole, pulls = ran(model, batch)
    # So small a share is never drawn, and yet the steps are taken one by one.
    model.own_share = lambda _: 1e-30
    steps, others = ran(model, batch)
    torch.testing.assert_close(steps, whole, rtol=1e-5, atol=1e-5)
    for name, pull in pulls.items():
        torch.testing.assert_close(others[name], pull, rtol=1e-4, atol=1e-5)
    assert not torch.isclose(ran(model, batch, seed=8)[0], whole)


@pytest.mark.parametrize("spec", STEPWISE.values(), ids=STEPWISE)
def test_a_stepwise_decoder_drops_the_same_at_every_step(spec: TranslatorSpec) -> None:
    model, batch = noisy(spec), batch_of(*some_pairs())
    dropped: dict[Noise, list[Tensor]] = {}

    def note(module: nn.Module, given: Any, found: Any) -> None:
        drawn = found / given[0] if isinstance(module, Dropout) else found["w_h"]
        dropped.setdefault(module, []).append(drawn.detach())  # type: ignore[arg-type]

    sources = {
        name: each
        for name, each in model.named_modules()
        if isinstance(each, Noise) and each.share and "encoder" not in name
    }
    for each in sources.values():
        each.register_forward_hook(note)
    _, pulls = ran(model, batch)
    steps = batch.target.shape[1] + 1
    for name, each in sources.items():
        assert len(dropped[each]) == steps, name
        mask = torch.stack(dropped[each])
        if isinstance(each, Dropout):
            # What was 0 before it was read does not tell.
            values = mask.nanmean(0).round(decimals=4).unique()
            found = values[~values.isnan()].tolist()
            assert found == pytest.approx([0.0, 1 / (1 - each.share)], abs=1e-4), name
        else:
            assert torch.equal(mask, mask[:1].expand_as(mask)), name
    assert all(pull.isfinite().all() and pull.any() for pull in pulls.values())
    assert not torch.isclose(ran(model, batch, seed=8)[0], ran(model, batch)[0])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_window_in_two_parts_has_the_noise_of_one(cell: str) -> None:
    head = HeadSpec({"task": "lm", "classes": ["", *TARGET.names]})
    spec = ModelSpec(Symbols.fit(["uvwxyz"]), (6,), chain(cell, 6, 8, 3, False), (head,))
    torch.manual_seed(1)
    model = SequenceModel(spec, NOISE).train()
    rng = np.random.default_rng(0)
    codes, truth = (torch.from_numpy(rng.integers(0, 6, (4, 9))) for _ in range(2))
    lengths, mask = torch.tensor([9, 9, 7, 5]), torch.ones(4, 9, dtype=torch.bool)
    batch = Batch(codes[..., None], torch.zeros(4, 9, 0), lengths, (truth,), (mask,), carries=True)
    whole, pulls = ran(model, batch)
    parts, others = ran(model, replace(batch, carry_steps=4))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-5)
    for name, pull in pulls.items():
        torch.testing.assert_close(others[name], pull, rtol=1e-4, atol=1e-5)


def test_what_is_drawn_once_is_drawn_anew_afterwards_and_after_an_error() -> None:
    dropout, x = Dropout(0.5, variational=True), torch.ones(8, 3, 64)
    with drawn_once(dropout):
        assert torch.equal(dropout(x), dropout(x))
    assert not torch.equal(dropout(x), dropout(x))

    def narrower() -> None:
        with drawn_once(dropout):
            dropout(x)
            dropout(x[..., :7])

    with pytest.raises(RuntimeError, match="size"):
        narrower()
    assert not torch.equal(dropout(x), dropout(x))


def test_ordinary_dropout_and_zoneout_are_drawn_at_every_step_all_the_same() -> None:
    dropout, x = Dropout(0.5), torch.ones(8, 3, 64)
    layer = Recurrent(GRU(4, 16), zoneout=0.5, seed=0)
    state = layer(torch.ones(8, 3, 4))[1]
    with drawn_once(nn.ModuleList([dropout, layer])):
        assert not torch.equal(dropout(x), dropout(x))
        one, other = (layer(torch.ones(8, 1, 4), None, state)[0] for _ in range(2))
        assert not torch.equal(one, other)
