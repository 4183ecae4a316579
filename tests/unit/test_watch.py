"""Watching a training: it changes nothing, measures what it says, tells each thing once."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.diagnose.watching import gate_rows
from hiddenstate.diagnose.watching import watch as module
from hiddenstate.diagnose.watching.gate_rows import GateRows, gate_statistics
from hiddenstate.diagnose.watching.probes import GradientNoise
from hiddenstate.diagnose.watching.training import Training, Window, of_history
from hiddenstate.diagnose.watching.watch import Watch, sentence
from tests.faults.healthy_training import Deep, Forecaster, Pooled
from tests.faults.training import KINDS, Plan, Tagger, cross_entropy, remembered


class Scalars(dict[str, list[tuple[int, float]]]):
    """A writer that keeps what it is given."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        self.setdefault(tag, []).append((global_step, scalar_value))


def noisy_tagger(plan: Plan) -> nn.Module:
    model = Tagger(plan.kind, plan.symbols, plan.hidden)
    model.head = nn.Sequential(nn.Dropout(0.3), model.head)  # type: ignore[assignment]
    return model


def train(
    plan: Plan, make: Any, watched: bool, steps: int = 23, **options: Any
) -> tuple[dict[str, Tensor], Watch | None]:
    torch.manual_seed(plan.seed)
    model = make(plan)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    watch = Watch(model, optimiser, tell=lambda _: None, **options) if watched else None
    data, loss_of = remembered, cross_entropy
    for step in range(steps):
        x, y = data(plan, torch.Generator().manual_seed(step), step)
        optimiser.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        if watch is not None:
            watch.step(loss)
        optimiser.step()
    return model.state_dict(), watch


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_is_the_same_to_the_last_bit(kind: str) -> None:
    plan = Plan(kind, seed=3, time=6)
    alone, _ = train(plan, noisy_tagger, watched=False)
    options = {"every": 4, "share": 1.0, "writer": Scalars()}
    watched, watch = train(plan, noisy_tagger, watched=True, **options)
    assert watch is not None
    assert len(watch.training.windows) == 5
    for name, weight in alone.items():
        assert torch.equal(weight, watched[name]), name


def test_numbers_that_wait_on_a_device_are_read_at_the_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"every": 5, "share": 1.0, "clip_norm": 1.0, "steps": 20}
    _, at_once = train(Plan("gru", seed=3), noisy_tagger, watched=True, **options)
    begin = Watch.__init__

    def deferred(self: Watch, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self._deferred = True

    monkeypatch.setattr(Watch, "__init__", deferred)
    _, later = train(Plan("gru", seed=3), noisy_tagger, watched=True, **options)
    assert at_once is not None
    assert later is not None
    assert later.training == at_once.training
    assert len(later.training.windows) == 4


def test_every_mode_is_left_as_it_was() -> None:
    model = Deep(Plan("gru", 0))
    model.head.eval()
    probe = GateRows(model)
    probe.arm()
    model(torch.zeros(3, 5, dtype=torch.long))
    assert [layer.name for layer in probe.take()] == [f"rnn.layers.{k}" for k in range(3)]
    assert model.rnn.training
    assert not model.head.training
    probe.close()
    assert not any(each._forward_pre_hooks for each in model.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_gates_are_those_of_the_layer_on_the_first_rows(kind: str) -> None:
    plan = Plan(kind, 0)
    model = Tagger(kind, plan.symbols, plan.hidden)
    x, _ = remembered(plan, torch.Generator().manual_seed(0), 0)
    probe = GateRows(model, rows=3, steps=5)
    probe.arm()
    model(x)
    model(x.flip(0))
    (layer,) = probe.take()
    with torch.no_grad():
        output = model.rnn(model.embed(x[:3, :5]))[0]
    assert layer.states.h == pytest.approx(output.numpy(), abs=1e-6)
    for name, value in gate_statistics(layer).items():
        gate, _, what = name.partition("/")
        if what == "mean":
            array = layer.states.h if gate == "h" else getattr(layer.gates, gate)
            assert value == pytest.approx(float(array.mean()), abs=1e-6)
        assert math.isfinite(value)
    assert probe.take() == []


@pytest.mark.parametrize("make", [Pooled, Forecaster])
def test_packed_rows_and_cells_in_loops_are_seen(make: Any) -> None:
    plan = Plan("lstm", 0)
    model = make(plan)
    probe = GateRows(model)
    probe.arm()
    if make is Pooled:
        lengths = torch.tensor([[12], [3], [7], [9], [1]])
        model(torch.where(torch.arange(12) < lengths, 1, plan.symbols))
        names = ["rnn.l0", "rnn.l0.reverse"]
    else:
        model(torch.randn(6, 9, 1))
        names = ["cell"]
    layers = probe.take()
    assert [layer.name for layer in layers] == names
    assert all("f/mean" in gate_statistics(layer) for layer in layers)
    if make is Pooled:
        assert layers[0].lengths.tolist() == [12, 3, 7, 9]


def test_gradient_noise_is_found_from_gradients_of_known_noise() -> None:
    rng = np.random.default_rng(0)
    mean = rng.normal(size=50)
    found = []
    for _ in range(300):
        probe = GradientNoise()
        for _ in range(16):
            gradient = torch.tensor(mean + 2.0 * rng.normal(size=50))
            probe.add({"a": gradient[:20], "b": gradient[20:]}, gradient.norm())
        found.append(probe.take())
    signal, noise = np.mean(found, axis=0)
    assert signal == pytest.approx(float(mean @ mean), rel=0.05)
    assert noise == pytest.approx(50 * 4.0, rel=0.05)
    assert all(math.isnan(each) for each in GradientNoise().take())


def test_scalars_are_written_and_true() -> None:
    writer = Scalars()
    _, watch = train(
        Plan("ours lstm", 1),
        noisy_tagger,
        watched=True,
        steps=20,
        every=10,
        writer=writer,
        share=1.0,
    )
    assert watch is not None
    steps, losses = zip(*writer["watch/loss"])
    assert steps == (10, 20)
    assert losses == tuple(window.loss for window in watch.training.windows)
    assert {"watch/norm", "watch/learning_rate", "rows_read/embed", "gates/rnn/f/mean"} < set(
        writer
    )
    assert all(0 < value < 0.2 for _, value in writer["update/rnn.w_h"])


def test_each_finding_is_told_once() -> None:
    told: list[str] = []
    model = Tagger("gru", 6, 16, rows=60)
    watch = Watch(model, every=5, tell=lambda each: told.append(sentence(each)), share=1.0)
    new: list[str] = []
    for step in range(60):
        x, y = remembered(Plan("gru", 0), torch.Generator().manual_seed(step), step)
        loss = cross_entropy(model(x), y)
        loss.backward()
        new += [each.code for each in watch.step(loss)]
    # Nothing is ever optimised or cleared, and nine tenths of the table are never read.
    assert sorted(new) == ["HS508", "HS509", "HS512"]
    assert len(told) == 3
    assert "54 of the 60 rows" in told[new.index("HS508")]
    assert sorted(each.partition(":")[0] for each in told) == [
        "error HS509",
        "error HS512",
        "warning HS508",
    ]
    assert {each.code for each in watch.findings} == {"HS508", "HS509", "HS512"}
    assert not Watch(model, ignore=["HS508"]).findings


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 1.0, 1.0), (0.1, 0.08, 0.12)])
def test_the_time_it_takes_is_bounded(
    share: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, measure = [0.0], torch.nn.utils.get_total_norm

    def slow(gradients: Any) -> Tensor:
        now[0] += 1.0
        return measure(gradients)

    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(torch.nn.utils, "get_total_norm", slow)
    model = nn.Linear(2, 1)
    watch = Watch(model, every=1, share=share, tell=lambda _: None)
    for _ in range(200):
        loss = model(torch.ones(1, 2)).square().mean()
        loss.backward()
        watch.step(loss)
        now[0] += 1.0
    assert least <= np.isfinite(watch.training.each("norm")).mean() <= most
    assert watch.overhead <= max(share, 0.5)
    # The loss is taken at every step all the same.
    assert np.isfinite(watch.training.each("loss")).all()


def test_a_step_without_a_number_is_told_at_once_and_named() -> None:
    model = Tagger("lstm", 6, 16)
    watch = Watch(model, tell=lambda _: None, share=1.0)
    for step in range(1, 9):
        x, y = remembered(Plan("lstm", 0), torch.Generator().manual_seed(step), step)
        model.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        if step == 7:
            model.head.weight.grad[0, 0] = math.nan  # type: ignore[index]
        found = watch.step(loss)
        assert [each.code for each in found] == (["HS501"] if step == 7 else [])
    assert watch.findings[0].where == "head.weight"
    assert watch.findings[0].values == {"step": 7}


class Tables(nn.Module):
    """A sparse table, one with padding, one that is the last layer too, and one that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.sparse = nn.Embedding(10, 4, sparse=True)
        self.padded = nn.Embedding(10, 4, padding_idx=0)
        self.tied = nn.Embedding(10, 4)
        self.frozen = nn.Embedding.from_pretrained(torch.randn(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.sparse(x) + self.padded(x) + self.tied(x) + self.frozen(x)
        return functional.linear(h, self.tied.weight)


def test_rows_that_were_read_are_counted_for_every_kind_of_table() -> None:
    model = Tables()
    watch = Watch(model, every=2, tell=lambda _: None, share=1.0)
    for step in range(4):
        x = torch.tensor([[0, 1, 2 + step]])
        loss = functional.cross_entropy(model(x)[0], x[0])
        model.zero_grad()
        loss.backward()
        watch.step(loss)
        # What is judged with is not learnt from.
        model.eval()
        model(torch.tensor([[9]]))
        model.train()
    rows = watch.training.embeddings
    assert set(rows) == {"sparse", "padded", "tied"}
    assert (rows["sparse"].rows, rows["sparse"].read, rows["sparse"].earlier) == (10, 6, 4)
    assert (rows["padded"].rows, rows["padded"].read) == (9, 5)
    assert rows["tied"].read == 10


class Ragged(nn.Module):
    """Sparse rows of other numbers each time, and a part that is used now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 4, sparse=True)
        self.sometimes = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x)
        return (self.sometimes(h) if len(x) % 2 else h).square().mean()


def test_gradients_may_come_and_go_and_be_sparse() -> None:
    model = Ragged()
    watch = Watch(model, every=6, tell=lambda _: None, share=1.0)
    for step in range(1, 13):
        model.zero_grad()
        loss = model(torch.arange(step))
        loss.backward()
        watch.step(loss)
    assert all(math.isfinite(each.signal) for each in watch.training.windows)


def test_gates_that_cannot_be_traced_do_not_end_the_training(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("no such layer")

    monkeypatch.setattr(gate_rows, "trace", broken)
    with caplog.at_level("WARNING", "hiddenstate"):
        _, watch = train(Plan("gru", 0), noisy_tagger, watched=True, steps=12, every=3, share=1.0)
    assert watch is not None
    assert len(watch.training.windows) == 4
    assert [each.message for each in caplog.records] == [
        "The gates of rnn cannot be watched: no such layer"
    ]


def test_gates_that_stay_shut_are_told_while_training() -> None:
    plan = Plan("lstm", 0)

    def shut(plan: Plan) -> nn.Module:
        model = Tagger(plan.kind, plan.symbols, plan.hidden)
        with torch.no_grad():
            model.rnn.bias_ih_l0[plan.hidden : 2 * plan.hidden] = -20.0  # type: ignore[operator]
        return model

    _, watch = train(plan, shut, watched=True, steps=8, every=4, share=1.0)
    assert watch is not None
    # Twice is not often enough: at the start gates may be anywhere.
    assert not watch.findings
    _, watch = train(plan, shut, watched=True, steps=16, every=4, share=1.0)
    assert watch is not None
    found = watch.findings[0]
    assert (found.code, found.where, str(found.severity)) == ("HS303", "rnn.l0, f", "warning")


def test_old_windows_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WINDOWS", 8)
    _, watch = train(Plan("gru", 0, time=3), noisy_tagger, watched=True, steps=60, every=2)
    _, whole = train(Plan("gru", 0, time=3), noisy_tagger, watched=True, steps=60, every=60)
    assert watch is not None
    assert whole is not None
    windows = watch.training.windows
    assert len(windows) <= 8
    assert sum(window.steps for window in windows) == 60
    assert [window.last for window in windows] == list(np.cumsum([w.steps for w in windows]))
    both = windows[0]
    for window in windows[1:]:
        both = both.followed_by(window)
    (one,) = whole.training.windows
    assert both.loss == pytest.approx(one.loss)
    assert both.spread == pytest.approx(one.spread)


def test_a_history_of_epochs_is_read_as_windows() -> None:
    epoch = {
        "steps": 30,
        "step": 30,
        "train_loss": 1.0,
        "validation_loss": None,
        "gradient_norm": 2.0,
        "largest_gradient_norm": 9.0,
        "clipped": 1.0,
        "learning_rate": 0.1,
    }
    phases = ["train", "train", "finish"]
    training = of_history([{**epoch, "phase": phase} for phase in phases], 1.0)
    assert [window.last for window in training.windows] == [30, 60]
    assert math.isnan(training.windows[0].validation)
    assert training.steps == 60


def test_signal_and_noise_are_averaged_before_they_are_divided() -> None:
    windows = [Window(k + 1, 1, 1.0, signal=s, noise=8.0) for k, s in enumerate((9, 9, -1, 3))]
    assert Training(tuple(windows)).noise_scale == 8.0
    assert Training(tuple(windows[:3])).noise_scale == 2.0
    assert math.isnan(Training(()).noise_scale)
