"""From a recipe's network section to a specification and its layers."""

from __future__ import annotations

from collections.abc import Sequence

from hiddenstate import cells
from hiddenstate.artifact import AnyLayerSpec, HeadSpec, LayerSpec, ModelSpec, TransformerSpec
from hiddenstate.schema import InputSpec
from hiddenstate.train.recipe import Recipe

# Width of the feed-forward part of a transformer block, in widths of a step.
FEEDFORWARD = 4


def model_spec(
    schema: InputSpec,
    heads: tuple[HeadSpec, ...],
    recipe: Recipe,
    widths: Sequence[int] | None = None,
) -> ModelSpec:
    """Return the network that a recipe asks for, from inputs to heads.

    widths: of the embeddings, at most as wide as there are codes; None = the recipe's for all
    """
    model, sizes = recipe.model, schema.code_sizes
    embeddings = tuple(map(min, widths or [model.embedding_size] * len(sizes), sizes))
    layers = layers_of(recipe, sum(embeddings) + len(schema.number_names))
    return ModelSpec(schema, embeddings, layers, heads, model.residual, model.layer_norm)


def layers_of(recipe: Recipe, width: int) -> tuple[AnyLayerSpec, ...]:
    """Return the layers over x [B, T, width]: recurrent ones, or a transformer of as many blocks.

    With `model.bidirectional` a transformer's steps see those after them, too.
    """
    model = recipe.model
    if model.cell == "attention":
        return (
            TransformerSpec(
                input_size=width,
                size=model.hidden_size,
                blocks=model.layers,
                heads=model.attention_heads,
                feedforward=FEEDFORWARD * model.hidden_size,
                positions=model.positions,
                causal=not model.bidirectional,
            ),
        )
    return recurrent_layers(recipe, width, model.hidden_size, both=model.bidirectional)


def recurrent_layers(
    recipe: Recipe, width: int, hidden_size: int, *, both: bool
) -> tuple[LayerSpec, ...]:
    """Return recurrent layers over x [B, T, width]; `both`: in both directions."""
    model, layers = recipe.model, []
    for _ in range(model.layers):
        cell = cells.build(model.cell, width, hidden_size, **model.cell_options)
        layers.append(LayerSpec(cell.to_json(), recipe.train.zoneout, both))
        width = cell.output_size * (2 if both else 1)
    return tuple(layers)
