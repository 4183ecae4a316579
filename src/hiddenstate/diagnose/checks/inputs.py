"""What comes in: scales of features, embeddings. HS421 to HS424."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hiddenstate.diagnose.finding import Finding, Picture, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.sampled import layers_of, sample
from hiddenstate.diagnose.subject.calling import in_the_loss
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination


@rule(
    "HS421",
    "features-unscaled",
    Severity.WARNING,
    asks="Are the features of the input of about one size?",
    because="A feature a thousand times as large as the others is all that the layer reads: it "
    "saturates the units, the weights of the others get no gradient beside its, and one learning "
    "rate cannot serve both.",
    remedy="Subtract each feature's mean and divide by its standard deviation, both from the "
    "training part (hiddenstate's schema does); take the logarithm of amounts and durations. A "
    "number that stands for a missing value (-999) is no value: put the mean in its place, and a "
    "feature beside it that says so.",
    limits={"ratio": 1000.0, "spread": 10.0, "stand-in, in spreads of the others": 30.0},
)
def unscaled(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """What the widest feature adds to the rows, beside the middle one of the others."""
    for layer in _first_layers(seen):
        x = sample(layer, layer.x)
        for feature in range(x.shape[1]):
            found = _stand_in(x[:, feature])
            if found is None or found.far < rule.limits["stand-in, in spreads of the others"]:
                continue
            yield rule.finding(
                f"{layer.name}, feature {feature}",
                f"Feature {feature} is {found.value:g} at {found.share:.0%} of the steps, "
                f"{found.far:.3g} standard deviations of its other values away from them: it looks "
                "like a number that stands for a missing value.",
                {"value": found.value, "share": found.share, "spreads": found.far},
            )
            break
        spreads = sample(layer, layer.x).std(axis=0)
        moving = spreads > 0
        if moving.sum() < 2:
            continue
        added = spreads * np.linalg.norm(layer.params["w_x"].astype(np.float64), axis=0)
        widest = int(np.argmax(np.where(moving, added, 0)))
        others = moving & (np.arange(len(added)) != widest)
        usual = float(np.median(added[others]))
        ratio = float(added[widest]) / max(usual, 1e-30)
        if ratio < rule.limits["ratio"] or spreads[widest] < rule.limits["spread"]:
            continue
        yield rule.finding(
            f"{layer.name}, feature {widest}",
            f"Feature {widest} has a standard deviation of {spreads[widest]:.3g}, the others "
            f"{float(np.median(spreads[others])):.3g} in the middle; of what the input adds to the "
            f"layer it makes {ratio:.3g} times as much as they do.",
            {"ratio": ratio, "spread": float(spreads[widest])},
            picture=Picture(
                "bars",
                f"Standard deviation of the features that {layer.name} reads",
                "feature",
                "standard deviation",
                {"x": spreads},
                log_y=True,
            ),
        )


class _StandIn(NamedTuple):
    """A value that is repeated, its share of the steps, and how many spreads off it lies."""

    value: float
    share: float
    far: float


def _stand_in(values: Floats) -> _StandIn | None:
    """Return the least or largest value of a feature where it is repeated and the others vary."""
    for value in (values.min(), values.max()):
        same = values == value
        others = values[~same]
        # Flags and counts have few values; measured numbers have one for nearly every step.
        if same.sum() < 3 or len(np.unique(others)) < 0.5 * len(others) or len(others) < 10:
            continue
        spread = float(others.std())
        far = float(np.abs(others - value).min()) / max(spread, 1e-30)
        return _StandIn(float(value), float(same.mean()), far)
    return None


@rule(
    "HS422",
    "feature-unused",
    Severity.NOTE,
    asks="Does the layer read every feature that it is given?",
    because="The weights of such a feature are next to 0 beside the others: it can be left out of "
    "the data and nothing changes. Where it is known to matter, it never got in.",
    remedy="Leave the feature out, or look at its scale and at missing values; draw its weights "
    "anew if they were set to 0.",
    limits={"share": 1e-3},
)
def unused(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Columns of w_x whose norm is nothing beside the middle one's."""
    for layer in _first_layers(seen):
        norms = np.linalg.norm(layer.params["w_x"].astype(np.float64), axis=0)
        spreads = sample(layer, layer.x).std(axis=0)
        silent = np.flatnonzero((norms < rule.limits["share"] * np.median(norms)) & (spreads > 0))
        if not len(silent):
            continue
        listed = ", ".join(map(str, silent[:8])) + (", ..." if len(silent) > 8 else "")
        yield rule.finding(
            layer.name,
            f"{len(silent)} of {len(norms)} features ({listed}) change in the data and have "
            f"weights with a norm of {norms[silent].max():.1g}, the middle one "
            f"{float(np.median(norms)):.2g}.",
            {"features": float(len(silent)), "of": float(len(norms))},
        )


@rule(
    "HS423",
    "embedding-constant",
    Severity.WARNING,
    asks="Does every symbol have a vector of its own?",
    because="Symbols with one vector are one symbol to everything that follows. The recurrent "
    "layer sees how many there were, and nothing else.",
    remedy="Draw the table at random (torch's nn.Embedding does). Where it was filled from "
    "pretrained vectors, compare how words are written in both (case, accents, joined parts), and "
    "draw those at random that were not found.",
    limits={"difference": 1e-6, "share": 0.5, "rows": 8},
)
def embedding_constant(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Tables whose rows are all alike, or most of them that of another; padding is left out."""
    for name, table in _tables(seen):
        rows = _rows(table.weight)
        if table.padding_idx is not None:
            rows = np.delete(rows, table.padding_idx, axis=0)
        if len(rows) < 2 or not np.isfinite(rows).all():
            continue
        gap, size = float(np.ptp(rows, axis=0).max()), float(np.abs(rows).max())
        if gap <= rule.limits["difference"] * size:
            yield rule.finding(
                name,
                f"All {len(rows)} rows are the same vector, with numbers up to {size:.3g}.",
                {"rows": float(len(rows)), "difference": gap},
            )
            continue
        # Equal rows have equal products with any vector.
        products = rows @ np.random.default_rng(0).standard_normal(rows.shape[1])
        _, which, counts = np.unique(products, return_index=True, return_counts=True)
        share = float(counts[counts > 1].sum() / len(rows))
        if len(rows) >= rule.limits["rows"] and share >= rule.limits["share"]:
            most = rows[which[int(counts.argmax())]]
            yield rule.finding(
                name,
                f"{share:.0%} of its {len(rows)} rows have the vector of another row; "
                f"{int(counts.max())} of them are {'0' if not most.any() else 'one vector'}.",
                {"rows": float(len(rows)), "share": share},
            )


@rule(
    "HS424",
    "embedding-untouched",
    Severity.NOTE,
    asks="Does the batch use most of the embedding's rows?",
    because="A row that no batch ever uses stays as it was drawn; a symbol that first comes up "
    "after training is read as noise. One batch need not use them all: it is a fact to compare "
    "with the vocabulary.",
    remedy="Build the vocabulary from the training part, with one symbol for rare ones, and let "
    "the table have as many rows.",
    limits={"share": 0.5, "rows": 8},
)
def embedding_untouched(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Rows to which the loss of this batch has no gradient."""
    touched = seen.known("gradients of parameters", lambda: gradients(seen))
    for name, table in _tables(seen):
        grad = touched.get(f"{name}.weight" if name else "weight")
        if grad is None or len(grad) < rule.limits["rows"]:
            continue
        idle = np.abs(grad).max(axis=1) == 0
        if table.padding_idx is not None:
            idle[table.padding_idx] = False
        share = float(idle.mean())
        if rule.limits["share"] <= share < 1:
            yield rule.finding(
                name,
                f"{int(idle.sum())} of {len(idle)} rows get no gradient from this batch.",
                {"rows": float(idle.sum()), "of": float(len(idle))},
            )


def gradients(seen: Examination) -> dict[str, Floats | None]:
    """Return the loss's gradient by every parameter that asks for one; None where there is none.

    Raises Skip without a loss, or where it cannot be gone back from.
    """
    if seen.loss is None:
        raise Skip("no loss was given")
    module = seen.subject.copy()
    raw = seen.subject.call(module, gradients=True)
    with in_the_loss():
        torch.autograd.backward(seen.loss(raw))
    return {
        name: None if each.grad is None else _rows(each.grad)
        for name, each in module.named_parameters()
        if each.requires_grad
    }


def _rows(tensor: Tensor) -> Floats:
    dense = tensor.detach().to_dense() if tensor.is_sparse else tensor.detach()
    return np.asarray(dense.cpu().double().numpy())


def _tables(seen: Examination) -> list[tuple[str, nn.Embedding]]:
    tables = [
        (name, each)
        for name, each in seen.subject.module.named_modules()
        if isinstance(each, nn.Embedding)
    ]
    if not tables:
        raise Skip("there is no embedding")
    return tables


def _first_layers(seen: Examination) -> list[LayerTrace]:
    """Return the layers that read a sequence of the batch as it is."""
    given = [seen.subject.array(name) for name in seen.subject.sequences]
    arrays = [each.detach().cpu().numpy() for each in given if each.is_floating_point()]
    found = []
    for layer in layers_of(seen.trace):
        rows, steps, features = layer.x.shape
        for array in arrays:
            # A packed batch may end before its padding does.
            if array.ndim != 3 or array[:, :steps].shape != (rows, steps, features):
                continue
            # A reverse layer was turned: its rows are the same, in another order.
            one = np.sort(array[:, :steps][layer.valid], axis=0)
            if np.allclose(one, np.sort(layer.x[layer.valid], axis=0), rtol=1e-3):
                found.append(layer)
                break
    if not found:
        raise Skip("no layer reads numbers of the batch as they are")
    return found
