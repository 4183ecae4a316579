"""Where a rule on memory, gates and weights is asked, how bad it says it is, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate import nn as ours
from hiddenstate.diagnose.examine import examine
from hiddenstate.diagnose.finding import Finding, Severity
from hiddenstate.diagnose.report import Report
from tests.faults.small import parts

Loss = Callable[[Any], Tensor]


def asked(module: nn.Module, batch: Any, code: str, loss: Loss | None = None) -> list[Finding]:
    return list(report(module, batch, code, loss).findings)


def report(module: nn.Module, batch: Any, code: str, loss: Loss | None = None) -> Report:
    return examine(module, batch if isinstance(batch, tuple) else (batch,), loss, only=[code])


def x_of(steps: int = 20, features: int = 3, rows: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, steps, features, generator=generator)


def plain(gain: float, **options: Any) -> nn.Module:
    layer = ours.Elman(3, 16, seed=0, **options)
    for part in parts(layer):
        part.orthogonal(gain)
    return layer


class TestMemory:
    def test_is_not_asked_of_short_rows(self) -> None:
        found = report(plain(1e-4), x_of(6), "HS201")
        assert not found.findings
        assert found.skipped[0][1] == "no row has 10 steps"

    def test_gone_is_a_warning_with_its_cause(self) -> None:
        (found,) = asked(plain(1e-4), x_of(), "HS201")
        assert found.severity is Severity.WARNING
        assert found.values["after 1 step"] < 1e-3
        assert "largest singular value of w_h is 0.0001" in found.measured
        assert "Clipping" in found.rule.because
        assert found.picture is not None
        assert found.picture.log_y

    def test_gone_is_a_note_where_nothing_is_left_to_learn(self) -> None:
        def nothing(output: Any) -> Tensor:
            return output[0].sum() * 1e-9

        (found,) = asked(plain(1e-4), x_of(), "HS201", nothing)
        assert found.severity is Severity.NOTE

    def test_latched_is_not_gone(self) -> None:
        layer = ours.Elman(3, 4, seed=0)
        with torch.no_grad():
            layer.layers[0].w_h.copy_(6 * torch.eye(4))
        assert not asked(layer, x_of(), "HS201")

    def test_short_says_how_many_rows_are_longer(self) -> None:
        lengths = torch.tensor([40, 40, 40, 6, 6, 6])
        (found,) = asked(ours.Elman(3, 16, seed=0, init="uniform"), (x_of(40), lengths), "HS203")
        assert found.severity is Severity.NOTE
        assert 6 < found.values["horizon"] < 40
        assert found.values["rows beyond"] == 0.5

    def test_a_path_along_c_is_set_beside_a_plain_cell(self) -> None:
        (found,) = asked(nn.LSTM(3, 8, batch_first=True), x_of(60), "HS203")
        assert "product of its keeping gates" in found.measured
        assert found.picture is not None
        assert {"product of f", "a plain cell of the same weights"} <= set(found.picture.series)

    def test_what_the_loss_hears_is_drawn_by_distance_from_the_end(self) -> None:
        """A plain cell of |w| = .5 asked at its end hears half as much of each step before."""
        layer = ours.Elman(3, 4, activation="relu", seed=0)
        cell = layer.layers[0]
        with torch.no_grad():
            cell.w_h.copy_(0.5 * torch.eye(4))
            cell.b_x.fill_(20.0)
        lengths = torch.tensor([20, 12, 20, 15, 20, 20])
        rows = torch.arange(6)
        (found,) = asked(
            layer, (x_of(), lengths), "HS203", lambda out: out[0][rows, lengths - 1].sum()
        )
        assert found.picture is not None
        heard = found.picture.series["the loss's gradient, so far before the end"]
        np.testing.assert_allclose(heard[:8], 0.5 ** np.arange(8), rtol=1e-4)

    def test_of_a_reverse_layer_is_that_of_its_reading_order(self) -> None:
        layer = nn.LSTM(3, 8, batch_first=True, bidirectional=True)
        for part in parts(layer)[1:]:
            part.orthogonal(1e-3)
            part.set_bias("f", -9.0)
        (found,) = asked(layer, x_of(), "HS201")
        assert found.where.endswith("reverse")


class TestGradient:
    def test_not_finite_is_an_error(self) -> None:
        layer = nn.GRU(3, 8, batch_first=True)
        for loss in (
            lambda out: out[0].abs().sub(2).log().mean(),
            lambda out: out[0].sub(out[0]).abs().sqrt().mean(),
        ):
            (found,) = asked(layer, x_of(), "HS206", loss)
            assert found.severity is Severity.ERROR

    def test_a_sum_over_a_large_batch_is_no_alarm(self) -> None:
        layer, x = nn.LSTM(3, 32, batch_first=True), x_of(100, rows=32)
        target = torch.randint(0, 32, (3200,), generator=torch.Generator().manual_seed(1))

        def total(out: Any) -> Tensor:
            return functional.cross_entropy(out[0].reshape(-1, 32), target, reduction="sum")

        assert not asked(layer, x, "HS206", total)

    def test_a_detached_layer_is_unread_and_its_parameters_are_cut(self) -> None:
        class Detached(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.one, self.two = nn.GRU(3, 8, batch_first=True), nn.GRU(8, 8, batch_first=True)

            def forward(self, x: Tensor) -> Tensor:
                return self.two(self.one(x)[0].detach())[0]

        def loss(out: Tensor) -> Tensor:
            return out.square().mean()

        assert [each.where for each in asked(Detached(), x_of(), "HS205", loss)] == ["one.l0"]
        (found,) = asked(Detached(), x_of(), "HS432", loss)
        assert (found.where, found.severity) == ("one", Severity.WARNING)

    def test_what_the_loss_does_not_use_is_a_note(self) -> None:
        class Spare(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.spare = nn.GRU(3, 8, batch_first=True), nn.Linear(8, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.rnn(x)[0]

        (found,) = asked(Spare(), x_of(), "HS432", lambda out: out.square().mean())
        assert (found.where, found.severity) == ("spare", Severity.NOTE)

    def test_a_slope_of_0_is_told_from_a_cut(self) -> None:
        layer = nn.RNN(3, 8, batch_first=True)
        (found,) = asked(layer, 1e6 * x_of(), "HS432", lambda out: out[0].mean())
        assert "slopes are 0" in found.measured
        assert found.severity is Severity.WARNING

    def test_rows_of_one_step_ask_nothing_of_recurrent_weights(self) -> None:
        found = report(nn.GRU(3, 8, batch_first=True), x_of(1), "HS432", lambda o: o[0].mean())
        assert not found.findings
        assert found.skipped


class TestUnits:
    def test_all_dead_is_an_error_most_a_warning_half_a_note(self) -> None:
        severities = []
        for alive in (0, 1, 8):
            layer = ours.Elman(3, 16, seed=0, activation="relu", init="identity")
            bias = layer.layers[0].b_x.data
            bias[alive:] = -50.0
            bias[:alive] = 1.0
            (found,) = asked(layer, x_of(), "HS311")
            severities.append(found.severity)
        assert severities == [Severity.ERROR, Severity.WARNING, Severity.NOTE]

    def test_overflow_is_an_error(self) -> None:
        layer = plain(300.0, activation="relu")
        (found,) = asked(layer, x_of(60), "HS313")
        assert found.severity is Severity.ERROR
        assert "no number any more after" in found.measured
        assert np.isfinite([*found.values.values()]).all()

    @pytest.mark.parametrize("parted", [False, True])
    def test_alike_units_say_whether_training_will_part_them(self, parted: bool) -> None:
        layer = nn.GRU(3, 8, batch_first=True)
        for weight in layer.parameters():
            nn.init.constant_(weight, 0.1)
        readers = torch.linspace(-1, 1, 8) if parted else torch.ones(8)
        (found,) = asked(layer, x_of(), "HS312", lambda out: (out[0] @ readers).square().mean())
        assert ("will part them" in found.measured) == parted
        assert ("stay alike" in found.measured) != parted

    def test_zeros_on_purpose_are_a_note(self) -> None:
        class Decoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn = nn.GRU(2, 8, batch_first=True)
                self.first = nn.Linear(3, 8)

            def forward(self, x: Tensor) -> Tensor:
                state = torch.tanh(self.first(x[:, 0]))[None]
                return self.rnn(torch.zeros(len(x), 20, 2), state)[0]

        (found,) = asked(Decoder(), x_of(), "HS316")
        assert found.severity is Severity.NOTE


class TestWhereItIsAsked:
    def test_several_calls_of_a_layer_are_one_place(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn = nn.LSTM(3, 8, batch_first=True)

            def forward(self, x: Tensor) -> Tensor:
                return self.rnn(x[:, :4])[0].sum(1) + self.rnn(x[:, 4:])[0].sum(1)

        module = Twice()
        for part in parts(module):
            part.set_bias("f", -9.0)
        assert len(asked(module, x_of(), "HS303")) == 1

    def test_gates_are_not_asked_of_a_plain_cell(self) -> None:
        found = report(nn.RNN(3, 8, batch_first=True), x_of(), "HS3")
        reasons = {rule.code: reason for rule, reason in found.skipped}
        assert reasons["HS303"] == "no layer has gates"

    def test_weights_that_are_no_numbers_leave_the_rest_unasked(self) -> None:
        layer = nn.GRU(3, 8, batch_first=True)
        layer.weight_hh_l0.data[0, 0] = torch.nan
        assert not asked(layer, x_of(), "HS2") + asked(layer, x_of(), "HS3")

    def test_rows_of_no_steps_are_left_out(self) -> None:
        lengths = torch.tensor([20, 0, 12, 20, 0, 20])
        found = report(ours.LSTM(3, 8, seed=0), (x_of(), lengths), "HS3")
        assert not [each for each in found.findings if each.severity is not Severity.NOTE]

    def test_every_number_is_json(self) -> None:
        layer = ours.Elman(3, 16, seed=0, activation="relu")
        for part in parts(layer):
            part.orthogonal(2.0)
        x, found = x_of(60), []
        for code in ("HS2", "HS3", "HS4"):
            found += asked(layer, x, code, lambda out: out[0].square().mean())
        assert len(found) >= 3
        for each in found:
            assert json.loads(json.dumps(each.to_json()))["code"] == each.code
            assert all(np.isfinite(value) for value in each.values.values())
