"""What a language model says of a text does not depend on how the text is put to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hiddenstate.artifact import Artifact, HeadSpec, LayerSpec, ModelSpec, TransformerSpec
from hiddenstate.cells import build
from hiddenstate.job.text import evaluate
from hiddenstate.job.text.evaluate import log_probabilities
from hiddenstate.job.text.prepared import first_embedding
from hiddenstate.models import SequenceModel
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import UNKNOWN
from hiddenstate.tasks.language import targets_of
from hiddenstate.train.windows import WindowFeed
from tests.laws.test_windows import CELLS, DOCUMENTS, SYMBOLS, recipe, text

# The last one has a symbol that is not known.
ASKED = [*DOCUMENTS, "bra x cad", "a" * 40]


def fitted(cell: str, tied: bool) -> tuple[SequenceModel, Runtime]:
    torch.manual_seed(2)
    if cell == "attention":
        layers: tuple[object, ...] = (TransformerSpec(5, 8, 2, 2, 16, window_steps=6),)
    else:
        layers = tuple(LayerSpec(build(cell, width, 8).to_json()) for width in (5, 8))
    head = HeadSpec({"task": "lm", "classes": ["<unknown>", *SYMBOLS.names]}, tied=tied)
    net = SequenceModel(ModelSpec(SYMBOLS, (5,), layers, (head,)))  # type: ignore[arg-type]
    first_embedding(net, tied=tied)
    weights = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    return net.eval(), Runtime(Artifact(net.spec, weights, {}, {}, {}))


def said(runtime: Runtime, documents: list[str]) -> np.ndarray:
    """Log probabilities [N, V] of all steps in their order."""
    one = text(documents)
    found = np.full((one.steps, len(SYMBOLS)), np.nan)
    for steps, log_p in log_probabilities(runtime, one):
        assert np.isnan(found[steps]).all()
        found[steps] = log_p
    assert not np.isnan(found).any()
    return found


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_served_is_trained(cell: str, tied: bool) -> None:
    net, runtime = fitted(cell, tied)
    one = text(ASKED)
    feed = WindowFeed(one, 100, 100)
    (item,) = feed.order(recipe(len(ASKED)), None)
    with torch.no_grad():
        expected = float(net.losses(feed.batch(item)).sums.sum())
    truth = targets_of(one)
    known = truth >= 0
    nats = -said(runtime, ASKED)[known, truth[known]].sum()
    assert int((~known).sum()) == 4
    assert nats == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_chunked_streamed_alone_and_side_by_side_agree(
    cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, runtime = fitted(cell, tied=False)
    together = said(runtime, ASKED)
    alone = np.concatenate([said(runtime, [document]) for document in ASKED])
    np.testing.assert_allclose(alone, together, atol=2e-5)
    monkeypatch.setattr(evaluate, "MOST_OUTPUTS", 3 * len(SYMBOLS) * len(ASKED))
    np.testing.assert_allclose(said(runtime, ASKED), together, atol=2e-5)
    monkeypatch.setattr(evaluate, "MOST_SIDE_BY_SIDE", 2)
    np.testing.assert_allclose(said(runtime, ASKED), together, atol=2e-5)
    one, state, streamed = text(ASKED[:1]), None, []
    for code in one.codes[one.rows]:
        numbers = np.zeros((1, 0), dtype=np.float32)
        outputs, state = runtime.step_many(np.array([[code]]), numbers, state)
        streamed.append(runtime.decode(outputs)[0][0])
    np.testing.assert_allclose(streamed, together[: one.steps], atol=2e-5)


def test_the_unknown_symbol_says_nothing_before_it_is_learnt() -> None:
    net, _ = fitted("gru", tied=False)
    table = net.state_dict()["embeddings.0.weight"]
    assert float(table[UNKNOWN].abs().max()) == 0.0 < float(table[UNKNOWN + 1].abs().max())
