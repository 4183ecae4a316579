"""The hidden size that gives each cell the same number of parameters, or of operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from hiddenstate.artifact import AnyLayerSpec, ModelSpec, TransformerSpec
from hiddenstate.cells import from_json
from hiddenstate.errors import UsageError
from hiddenstate.job.families import family_of
from hiddenstate.job.layers import layers_of
from hiddenstate.job.prepared import Prepared
from hiddenstate.study.plan import Equal, Plan
from hiddenstate.train import Recipe

WIDEST = 4096
FAR = 1.1


@dataclass(frozen=True)
class Size:
    """A cell's hidden size and what it costs.

    flops: of a forward step, a multiplication and an addition counted apart, at the mean length of
           the training sequences
    """

    hidden_size: int
    parameters: int
    flops: int


def prepared_once(plan: Plan) -> Prepared:
    """Read the source as every fit of the plan will."""
    recipe = plan.recipe(plan.cells[0])
    prepared: Prepared = family_of(recipe.tasks).prepare(plan.source, recipe, lambda _: None)
    return prepared


def equal_sizes(plan: Plan, prepared: Prepared) -> dict[str, Size]:
    """Return for each cell the size whose cost comes nearest to the budget.

    Raises UsageError where a budget is below what the narrowest network costs.
    """
    lengths = prepared.feeds(plan.recipe(plan.cells[0]))[0].lengths
    steps = float(np.mean(lengths)) if len(lengths) else 1.0

    def size(cell: str, hidden_size: int) -> Size:
        recipe = plan.recipe(cell, **{"model.hidden_size": hidden_size})
        return size_of(prepared.spec, recipe, steps)

    def cost(of: Size) -> int:
        return of.flops if plan.equal == "flops" else of.parameters

    first = plan.recipe(plan.cells[0])
    usual = _rounded(first, first.model.hidden_size)
    budget = plan.budget or cost(size(plan.cells[0], usual))
    found = {}
    for cell in plan.cells:
        unit = _unit(plan.recipe(cell))
        narrow, wide = 1, WIDEST // unit
        if cost(size(cell, unit)) > 1.5 * budget:
            raise UsageError(
                f"The narrowest {cell} network costs {cost(size(cell, unit)):,} {plan.equal}.",
                f"A budget of {budget:,} was asked for.",
                "Give a larger --budget, or leave the cell out.",
            )
        while narrow < wide:
            middle = (narrow + wide) // 2
            if cost(size(cell, middle * unit)) < budget:
                narrow = middle + 1
            else:
                wide = middle
        near = (size(cell, max(units, 1) * unit) for units in (narrow - 1, narrow))
        found[cell] = min(near, key=lambda each: abs(cost(each) - budget))
    return found


def uneven(sizes: Mapping[str, Size], equal: Equal) -> list[str]:
    """Return a sentence where the cells' costs lie further apart than a tenth.

    A transformer's size is a multiple of twice its heads, so that it cannot always come near.
    """
    costs = {
        cell: size.flops if equal == "flops" else size.parameters for cell, size in sizes.items()
    }
    least, most = min(costs, key=lambda c: costs[c]), max(costs, key=lambda c: costs[c])
    if costs[most] <= FAR * costs[least]:
        return []
    return [
        f"Not equal: {most} has {costs[most] / costs[least] - 1:.0%} more than {least}. Another "
        "--budget, or fewer heads (--set attention.model.attention_heads=1), brings them nearer."
    ]


def size_of(spec: ModelSpec, recipe: Recipe, steps: float) -> Size:
    """Return what a network of the recipe's size costs over sequences of a mean length."""
    layers = layers_of(recipe, spec.input_size)
    parameters = parameters_of(replace(spec, layers=layers))
    looked_up = sum(
        rows * width
        for rows, width in zip(spec.schema.code_sizes, spec.embeddings, strict=True)
        if not any(head.tied for head in spec.heads)
    )
    mixing = sum(
        4 * layer.blocks * layer.size * (steps + 1) / 2
        for layer in layers
        if isinstance(layer, TransformerSpec)
    )
    return Size(recipe.model.hidden_size, parameters, round(2 * (parameters - looked_up) + mixing))


def parameters_of(spec: ModelSpec) -> int:
    """Return how many numbers a network of this specification learns, without building it."""
    pairs = zip(spec.schema.code_sizes, spec.embeddings, strict=True)
    count, width = sum(rows * size for rows, size in pairs), spec.input_size
    for index, layer in enumerate(spec.layers):
        if spec.layer_norm and index:
            count += 2 * width
        if isinstance(layer, TransformerSpec):
            count, width = count + layer.parameter_count, layer.size
            continue
        cell, ways = from_json(layer.cell), 2 if layer.bidirectional else 1
        count, width = count + ways * cell.parameter_count, ways * cell.output_size
    for head in spec.heads:
        count += head.outputs
        if head.pool == "attention":
            count += width * (width + 2)
        if not head.tied:
            count += head.outputs * width
        elif width != spec.embeddings[0]:
            count += width * spec.embeddings[0]
    return count


def state_bytes(layers: tuple[AnyLayerSpec, ...], steps: int) -> int:
    """Return the bytes of float32 state that one live sequence needs after some steps."""
    return sum(
        layer.state_bytes(steps)
        if isinstance(layer, TransformerSpec)
        else 4 * sum(from_json(layer.cell).state_shapes().values())
        for layer in layers
    )


def path_steps(layers: tuple[AnyLayerSpec, ...], steps: int) -> int:
    """Return how many steps of computation lie between the first event and the last output."""
    return sum(layer.blocks if isinstance(layer, TransformerSpec) else 1 for layer in layers) + sum(
        steps - 1 for layer in layers[:1] if not isinstance(layer, TransformerSpec)
    )


def _unit(recipe: Recipe) -> int:
    """Return what a hidden size has to be a multiple of."""
    return 2 * recipe.model.attention_heads if recipe.model.cell == "attention" else 1


def _rounded(recipe: Recipe, hidden_size: int) -> int:
    unit = _unit(recipe)
    return max(hidden_size // unit, 1) * unit
