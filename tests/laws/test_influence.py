"""Influence: equal to closed forms where a recurrence is linear, nothing from what comes after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiddenstate.cells import GRU, Elman
from hiddenstate.charts import figure
from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.influence import Influence, influence
from hiddenstate.diagnose.subject.subject import Subject
from hiddenstate.errors import ShapeError
from hiddenstate.nn import Recurrent

STEPS, FEATURES, HIDDEN = 7, 2, 3


class Linear(nn.Module):
    """A relu network whose weights and inputs are positive: relu does nothing, all is linear."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "ours":
            self.rnn: nn.Module = Recurrent(Elman(FEATURES, HIDDEN, 0, activation="relu"))
        elif kind == "loop":
            self.rnn = nn.RNNCell(FEATURES, HIDDEN, bias=False, nonlinearity="relu")
        else:
            first = kind != "steps first"
            self.rnn = nn.RNN(FEATURES, HIDDEN, nonlinearity="relu", bias=False, batch_first=first)
        self.out = nn.Linear(HIDDEN, 2, bias=False)
        for each in self.parameters():
            each.data = torch.rand(each.shape, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "loop":
            h, every = torch.zeros(len(x), HIDDEN, dtype=x.dtype), []
            for t in range(x.shape[1]):
                h = self.rnn(x[:, t], h)
                every.append(h)
            return self.out(torch.stack(every, 1))
        states: Tensor = self.rnn(x)[0]
        return self.out(states)

    def matrices(self) -> tuple[np.ndarray, ...]:
        """Return W_x, W_h and the head."""
        return tuple(each.detach().numpy() for each in self.parameters())


def closed(module: Linear, x: np.ndarray, place: int) -> float:
    """Return v . sum_t W_h^(T-1-t) W_x x_t, the prediction after the last step of x [T, D]."""
    w_x, w_h, head = module.matrices()
    power = np.linalg.matrix_power
    terms = [power(w_h, len(x) - 1 - t) @ w_x @ each for t, each in enumerate(x)]
    return float(head[place] @ sum(terms, np.zeros(HIDDEN)))


def batch(kind: str, rows: int = 4) -> Tensor:
    x = torch.rand(rows, STEPS, FEATURES, dtype=torch.float64)
    return x.transpose(0, 1).contiguous() if kind == "steps first" else x


@pytest.mark.parametrize("kind", ["plain", "steps first", "loop", "ours"])
@pytest.mark.parametrize("step", [STEPS - 1, 3])
def test_a_linear_recurrence_has_the_closed_form(kind: str, step: int) -> None:
    torch.manual_seed(0)
    module, x = Linear(kind), batch(kind)
    row = x[:, 2].numpy() if kind == "steps first" else x[2].numpy()
    found = influence(Subject(module, (x,)), row=2, step=step, place=1)
    whole = closed(module, row[: step + 1], 1)
    assert found.prediction == pytest.approx(whole)
    w_x, w_h, head = module.matrices()
    slopes = [head[1] @ np.linalg.matrix_power(w_h, step - t) @ w_x for t in range(step + 1)]
    later = np.zeros(STEPS - 1 - step)
    assert found.gradient == pytest.approx(
        np.append([s @ each for s, each in zip(slopes, row)], later)
    )
    assert found.norm == pytest.approx(np.append(np.linalg.norm(slopes, axis=1), later))
    without = [whole - closed(module, np.delete(row[: step + 1], t, 0), 1) for t in range(step + 1)]
    assert found.how == "removed"
    assert found.left_out == pytest.approx(np.append(without, later))
    # Gradient x input of all events together is the whole prediction.
    assert found.gradient is not None
    assert found.gradient.sum() == pytest.approx(whole)


class Tagger(nn.Module):
    """Tokens to a class at each step."""

    def __init__(self, cell: str = "GRU", two_ways: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 5)
        self.rnn = getattr(nn, cell)(5, 6, batch_first=True, bidirectional=two_ways)
        self.out = nn.Linear(12 if two_ways else 6, 4)

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> Tensor:
        x = self.embed(tokens)
        if lengths is None:
            return self.out(self.rnn(x)[0])
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.out(states)


def tokens(rows: int = 4) -> Tensor:
    return torch.randint(0, 11, (rows, STEPS))


@pytest.mark.parametrize("cell", ["GRU", "LSTM", "RNN"])
def test_events_after_the_prediction_do_not_matter(cell: str) -> None:
    torch.manual_seed(1)
    found = influence(Subject(Tagger(cell), (tokens(),)), row=1, step=2)
    assert found.gradient is not None
    assert not found.gradient[3:].any()
    assert found.left_out[3:] == pytest.approx(0, abs=1e-6)
    assert np.all(found.gradient[:3] != 0)
    assert np.all(found.left_out[:3] != 0)


def test_events_after_it_matter_to_a_model_that_reads_both_ways() -> None:
    torch.manual_seed(1)
    found = influence(Subject(Tagger(two_ways=True), (tokens(),)), row=1, step=2)
    assert found.gradient is not None
    assert np.all(found.gradient != 0)
    assert np.all(np.abs(found.left_out[3:]) > 1e-6)


def test_the_padding_of_a_row_is_no_part_of_its_history() -> None:
    torch.manual_seed(2)
    module, x = Tagger(), tokens()
    lengths = torch.tensor([STEPS, 3, 1, 5])
    subject = Subject(module, (x, lengths))
    for row, length in enumerate(lengths.tolist()):
        alone = Subject(module, (x[row : row + 1, :length], torch.tensor([length])))
        found, other = influence(subject, row=row), influence(alone)
        assert found.left_out.shape == (length,)
        assert found.how == ("removed" if length > 1 else "replaced")
        assert found.prediction == pytest.approx(other.prediction, abs=1e-6)
        assert found.gradient == pytest.approx(other.gradient, abs=1e-6)
        if length > 1:
            assert found.left_out == pytest.approx(other.left_out, abs=1e-6)


def test_tokens_have_the_gradient_of_their_embeddings() -> None:
    torch.manual_seed(3)
    module, x = Tagger().eval(), tokens()
    found = influence(Subject(module, (x,)), row=0, place=3, logits=True)
    vectors = module.embed(x[:1]).detach().requires_grad_()
    log_p = module.out(module.rnn(vectors)[0])[0, -1].log_softmax(-1)[3]
    (slope,) = torch.autograd.grad(log_p, vectors)
    assert found.prediction == pytest.approx(float(log_p.detach()), abs=1e-6)
    assert found.gradient == pytest.approx((slope * vectors).sum(-1)[0].detach().numpy(), abs=1e-6)
    assert found.norm == pytest.approx(slope.norm(dim=-1)[0].numpy(), abs=1e-6)


class Fixed(nn.Module):
    """Takes four rows of seven steps and nothing else; the last state is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = Recurrent(GRU(FEATURES, HIDDEN))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[:2] != (4, STEPS):
            raise ValueError(f"four rows of {STEPS} steps, please, not {list(x.shape)}")
        h: Tensor = self.rnn(x)[0]
        return h[:, -1]


def test_where_nothing_can_be_removed_events_are_replaced() -> None:
    torch.manual_seed(4)
    x = torch.ones(4, STEPS, FEATURES)
    x[0, 3] = 0.0
    found = influence(Subject(Fixed(), (x,)), row=0)
    assert found.how == "replaced"
    assert found.step is None
    # All other events are alike, so that another one of them in their place changes nothing but
    # where it is the one that differs.
    same = influence(Subject(Fixed(), (torch.ones(4, STEPS, FEATURES),)), row=0)
    assert same.left_out == pytest.approx(0, abs=1e-6)
    assert "rests on no event" in same.words()
    assert abs(found.left_out[3]) > 1e-4
    assert found.gradient is not None
    assert found.gradient[3] == 0
    assert np.all(found.gradient[4:] != 0)


def test_only_so_many_events_are_left_out_as_asked_for() -> None:
    torch.manual_seed(5)
    found = influence(Subject(Tagger(), (tokens(),)), row=0, most=3)
    assert np.isnan(found.left_out[:4]).all()
    assert np.isfinite(found.left_out[4:]).all()


def test_the_picture_and_the_sentence_name_the_events() -> None:
    torch.manual_seed(6)
    names = ("registered", "sent", "<paid>", "closed", "reopened", "closed", "archived")
    answers = ("noun", "verb", "<other>", "end")
    subject = Subject(Tagger(), (tokens(),))
    found = influence(subject, row=3, place=2, events=names, answers=answers)
    assert found.words().startswith("The prediction '<other>' for row 3 after step 6 rests most on")
    picture = found.picture()
    most = int(np.abs(found.left_out).argmax())
    assert f"{names[most]!r} in step {most} ({found.left_out[most]:+.3g})" in found.words()
    assert picture.note == found.words()
    assert picture.labels[2] == "2 <paid>"
    assert set(picture.series) == {"removed", "gradient x input"}
    assert "&lt;paid&gt;" in figure(picture)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"row": 4}, "Row 4"),
        ({"step": STEPS}, f"Step {STEPS}"),
        ({"place": 4}, "Number 4"),
        ({"output": 1}, "Output 1"),
    ],
)
def test_what_is_not_there_is_told(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        influence(Subject(Tagger(), (tokens(),)), **asked)


class Totals(nn.Module):
    """Gives one number for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(FEATURES, HIDDEN, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.rnn(x)[0]
        return out.mean((0, 1))


def test_a_module_without_a_prediction_for_a_row_is_passed_over() -> None:
    with pytest.raises(Skip, match="no row of its own"):
        influence(Subject(Totals(), (torch.randn(4, STEPS, FEATURES),)))


def test_the_past_is_what_stands_before_the_event_just_read() -> None:
    left_out = np.array([0.5, -2.0, 9.0, np.nan])
    told = Influence(0, 2, 0, "", -1.0, True, None, None, left_out, "removed")
    assert told.past == 2.0
    assert replace(told, step=None).past == 9.0
    assert replace(told, step=0).past == 0.0
