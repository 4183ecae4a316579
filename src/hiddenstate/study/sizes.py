"""The hidden size that gives each cell the same number of parameters, or of operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from hiddenstate.artifact import AnyLayerSpec, ModelSpec, TransformerSpec, TranslatorSpec
from hiddenstate.cells import from_json
from hiddenstate.errors import UsageError
from hiddenstate.job.families import family_of
from hiddenstate.job.prepared import Prepared
from hiddenstate.study.plan import Equal, Plan
from hiddenstate.train import Recipe

AnySpec: TypeAlias = ModelSpec | TranslatorSpec

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
    lengths = prepared.feeds()[0].lengths
    steps = float(np.mean(lengths)) if len(lengths) else 1.0

    def size(cell: str, hidden_size: int) -> Size:
        recipe = plan.recipe(cell, **{"model.hidden_size": hidden_size})
        return size_of(prepared.with_recipe(recipe).spec, hidden_size, steps)

    def cost(of: Size) -> int:
        return of.flops if plan.equal == "flops" else of.parameters

    usual = _rounded(prepared.recipe, prepared.spec)
    budget = plan.budget or cost(size(plan.cells[0], usual))
    found = {}
    for cell in plan.cells:
        unit = _unit(plan.recipe(cell), prepared.spec)
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


def size_of(spec: AnySpec, hidden_size: int, steps: float) -> Size:
    """Return what a network costs over sequences of a mean length.

    A translator's step reads one symbol of a source and says one of a target, each of them half as
    long as the pair.
    """
    parameters = parameters_of(spec)
    if isinstance(spec, TranslatorSpec):
        layers, seen = (*spec.encoder, *spec.decoder), steps / 2
        sizes = zip(spec.embedding_rows, spec.embeddings, strict=True)
        looked_up = sum(rows * width for rows, width in list(sizes)[: 1 if spec.tied else 2])
        mixing = 2 * seen * (spec.memory_size + _key_size(spec)) if spec.attends else 0.0
    else:
        layers, seen, mixing = spec.layers, steps, 0.0
        sizes = zip(spec.schema.code_sizes, spec.embeddings, strict=True)
        tied = any(head.tied for head in spec.heads)
        looked_up = 0 if tied else sum(rows * width for rows, width in sizes)
    for layer in layers:
        if isinstance(layer, TransformerSpec):
            own = (seen + 1) / 2 if layer.causal else seen
            if layer.window_steps is not None:
                own = min(own, layer.window_steps)
            beside = 0.0 if layer.memory_size is None else seen
            mixing += 4 * layer.blocks * layer.size * (own + beside)
    return Size(hidden_size, parameters, round(2 * (parameters - looked_up) + mixing))


def parameters_of(spec: AnySpec) -> int:
    """Return how many numbers a network of this specification learns, without building it."""
    if isinstance(spec, TranslatorSpec):
        return _translator_parameters(spec)
    pairs = zip(spec.schema.code_sizes, spec.embeddings, strict=True)
    count, width = sum(rows * size for rows, size in pairs), spec.input_size
    for index, layer in enumerate(spec.layers):
        if spec.layer_norm and index:
            count += 2 * width
        own, width = _layer_parameters(layer)
        count += own
    for head in spec.heads:
        count += head.outputs
        if head.pool == "attention":
            count += width * (width + 2)
        if not head.tied:
            count += head.outputs * width
        elif width != spec.embeddings[0]:
            count += width * spec.embeddings[0]
    return count


def _layer_parameters(layer: AnyLayerSpec) -> tuple[int, int]:
    """Return how many numbers a layer learns, and how wide its output is."""
    if isinstance(layer, TransformerSpec):
        return layer.parameter_count, layer.size
    cell, ways = from_json(layer.cell), 2 if layer.bidirectional else 1
    return ways * cell.parameter_count, ways * cell.output_size


def _translator_parameters(spec: TranslatorSpec) -> int:
    sizes = zip(spec.embedding_rows, spec.embeddings, strict=True)
    count = sum(rows * size for rows, size in sizes)
    count += sum(_layer_parameters(layer)[0] for layer in (*spec.encoder, *spec.decoder))
    memory, top = spec.memory_size, _layer_parameters(spec.decoder[-1])[1]
    # From the source's end to the decoder's first state.
    count += sum(spec.first_state_sizes) * (memory + 1)
    if spec.attends and spec.context != "dot":
        count += top * memory
    if spec.context == "additive":
        count += top * (top + 2 + spec.coverage)
    classes, width = spec.embedding_rows[1], spec.embeddings[1]
    count += width * (top + spec.context_size + 1)
    return count + classes * (1 if spec.tied else 1 + width)


def _key_size(spec: TranslatorSpec) -> int:
    """Return the width of what attention's scores are made of at a source step."""
    return spec.memory_size if spec.context == "dot" else _layer_parameters(spec.decoder[-1])[1]


def state_bytes(spec: AnySpec, steps: int) -> int | None:
    """Return the bytes of float32 state that one live sequence needs after some steps.

    Of a translator: what it keeps of a source and a target of so many steps each. None for a model
    that has to see a sequence as a whole.
    """
    if isinstance(spec, TranslatorSpec):
        kept = sum(_layer_bytes(layer, steps, steps) for layer in spec.decoder)
        kept += 4 * spec.memory_size * (spec.context == "every_step")
        if spec.attends:
            # Keys that are no states of their own, and which of the steps are real.
            keys = 0 if spec.context == "dot" else _key_size(spec)
            kept += steps * (4 * (spec.memory_size + keys + spec.coverage) + 1)
        return kept + 4 * spec.embeddings[1] * spec.input_feeding
    if spec.refusals("streaming"):
        return None
    return sum(_layer_bytes(layer, steps) for layer in spec.layers)


def _layer_bytes(layer: AnyLayerSpec, steps: int, memory_steps: int = 0) -> int:
    if isinstance(layer, TransformerSpec):
        return layer.state_bytes(steps, memory_steps if layer.memory_size else 0)
    return 4 * sum(from_json(layer.cell).state_shapes().values())


def path_steps(spec: AnySpec, steps: int) -> int:
    """Return how many steps of computation lie between the first event and the last output."""
    if isinstance(spec, TranslatorSpec):
        # What attention sees of a source step does not have to go through the others.
        far = 1 if spec.attends or spec.context == "cross" else steps
        return _path(spec.encoder, far) + _path(spec.decoder, far)
    pooled = any(head.pool not in (None, "last") for head in spec.heads)
    return _path(spec.layers, 1 if pooled else steps)


def _path(layers: tuple[AnyLayerSpec, ...], steps: int) -> int:
    blocks = sum(layer.blocks if isinstance(layer, TransformerSpec) else 1 for layer in layers)
    return blocks + sum(steps - 1 for layer in layers[:1] if not isinstance(layer, TransformerSpec))


def _unit(recipe: Recipe, spec: AnySpec) -> int:
    """Return what a hidden size has to be a multiple of."""
    if recipe.model.cell == "attention":
        return 2 * recipe.model.attention_heads
    # Each direction of an encoder is half as wide as the decoder.
    return 2 if isinstance(spec, TranslatorSpec) and recipe.model.bidirectional else 1


def _rounded(recipe: Recipe, spec: AnySpec) -> int:
    unit = _unit(recipe, spec)
    return max(recipe.model.hidden_size // unit, 1) * unit
