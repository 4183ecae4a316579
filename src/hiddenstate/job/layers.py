"""From a recipe's network section to the layers of a specification."""

from __future__ import annotations

from hiddenstate import cells
from hiddenstate.artifact import AnyLayerSpec, LayerSpec, TransformerSpec
from hiddenstate.train.recipe import Recipe

# Width of the feed-forward part of a transformer block, in widths of a step.
FEEDFORWARD = 4


def layers_of(recipe: Recipe, width: int, *, causal: bool = True) -> tuple[AnyLayerSpec, ...]:
    """Return the layers over x [B, T, width]: recurrent ones, or a transformer of as many blocks.

    causal: False lets a transformer's steps see those after them, as `model.bidirectional` does
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
                causal=causal and not model.bidirectional,
            ),
        )
    layers = []
    for _ in range(model.layers):
        cell = cells.build(model.cell, width, model.hidden_size, **model.cell_options)
        layers.append(LayerSpec(cell.to_json(), recipe.train.zoneout, model.bidirectional))
        width = cell.output_size * (2 if model.bidirectional else 1)
    return tuple(layers)
