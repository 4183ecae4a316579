"""What of Keras is read: layers in every setting that changes what they compute, and models."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM, Elman
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.weights import Way, Weights

if not find_spec("keras"):
    pytest.skip("keras is not installed", allow_module_level=True)

from hiddenstate.interop.keras import from_keras, keras, to_keras

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
layers = keras.layers
D, H = 3, 4


def drawn(layer: Any) -> Any:
    """Build a layer with weights of which none is zero."""
    rng = np.random.default_rng(0)
    layer.build((None, None, D))
    layer.set_weights([rng.uniform(-0.9, 0.9, each.shape) for each in layer.get_weights()])
    return layer


@pytest.mark.parametrize(
    ("build", "cell"),
    [
        (lambda: layers.SimpleRNN(H), Elman(D, H)),
        (lambda: layers.SimpleRNN(H, activation="relu"), Elman(D, H, activation="relu")),
        (lambda: layers.LSTM(H, dropout=0.5, recurrent_dropout=0.5), LSTM(D, H)),
        (lambda: layers.LSTM(H, use_bias=False, return_sequences=True), LSTM(D, H, 0)),
        (lambda: layers.GRU(H), GRU(D, H, 2)),
        (lambda: layers.GRU(H, reset_after=False, unroll=True), GRU(D, H, reset="before")),
        (lambda: layers.RNN(layers.LSTMCell(H)), LSTM(D, H)),
        (lambda: layers.Bidirectional(layers.GRU(H, use_bias=False)), GRU(D, H, 0)),
        (
            lambda: layers.Bidirectional(
                layers.LSTM(H), backward_layer=layers.LSTM(2, go_backwards=True)
            ),
            LSTM(D, H),
        ),
    ],
)
def test_a_layer_is_read(build: Any, cell: Any) -> None:
    layer = drawn(build())
    found = from_keras(layer)
    assert found.weights.ways[0].cell == cell
    assert len(found.proof.cases) == 7
    # The arrays go back as they were, and the layer itself gives what ours gives last.
    again = to_keras(found.weights).value
    for left, right in zip(layer.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    x = np.random.default_rng(1).standard_normal((2, 6, D)).astype(np.float32)
    output = found.weights.run(x).output
    np.testing.assert_allclose(again.predict(x, verbose=0), output, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: layers.LSTM(H, activation="relu"), "activation='relu'"),
        (lambda: layers.SimpleRNN(H, activation="linear"), "activation='linear'"),
        (lambda: layers.GRU(H, recurrent_activation="hard_sigmoid"), "'hard_sigmoid'"),
        (lambda: layers.GRU(H, go_backwards=True), "go_backwards"),
    ],
)
def test_a_setting_without_equal_is_refused_with_its_error(build: Any, told: str) -> None:
    layer = drawn(build())
    with pytest.raises(ConversionRefusal, match=told) as raised:
        from_keras(layer)
    standard = type(layer)(H)
    standard.build((None, None, D))
    standard.set_weights(layer.get_weights())
    x = np.random.default_rng(0).standard_normal((5, 11, D)).astype(np.float32)
    right = from_keras(standard).weights
    if layer.go_backwards:
        right = Weights(((right.ways[0]._replace(reverse=True),),))
    copy = type(layer).from_config({**layer.get_config(), "return_sequences": True})
    copy.build((None, None, D))
    copy.set_weights(layer.get_weights())
    error = np.abs(keras.ops.convert_to_numpy(copy(x)) - right.run(x).output).max()
    assert raised.value.measured_error == pytest.approx(error, rel=1e-3)


def test_layers_of_a_model_are_found() -> None:
    model = keras.Sequential(
        [
            keras.Input((None,)),
            layers.Embedding(10, D, mask_zero=True, name="table"),
            layers.LSTM(H, return_sequences=True, name="low"),
            layers.Dropout(0.5),
            layers.Bidirectional(layers.GRU(2), name="high"),
            layers.Dense(2, name="head"),
        ]
    )
    found = from_keras(model)
    assert [way.cell.name for way in found.weights.ways] == ["lstm", "gru", "gru"]
    assert found.notes == ("other layers are left behind: table, head",)
    assert from_keras(model, part="low").weights.ways[0].cell == LSTM(D, H)
    with pytest.raises(SpecError, match="'head' is none of them"):
        from_keras(model, part="head")
    assert str(from_keras([model.get_layer("low")]).weights) == str(
        from_keras(model, part="low").weights
    )


def test_layers_that_do_not_follow_upon_each_other_are_told() -> None:
    model = keras.Sequential(
        [
            keras.Input((None, D)),
            layers.LSTM(H, return_sequences=True, name="low"),
            layers.Dense(2, name="between"),
            layers.GRU(H, name="high"),
        ]
    )
    with pytest.raises(SpecError, match="low, high, with between between them"):
        from_keras(model)
    x = keras.Input((None, D))
    two = keras.Model(x, [layers.LSTM(H, name="a")(x), layers.LSTM(H, name="b")(x)])
    with pytest.raises(SpecError, match="recurrent layers a, b"):
        from_keras(two)
    assert from_keras(two, part="b").weights.output_size == H
    with pytest.raises(SpecError, match=r"recurrent layers \(none\)"):
        from_keras(keras.Sequential([keras.Input((2,)), layers.Dense(1)]))


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (layers.Dense(3), "is a Dense"),
        (layers.ConvLSTM1D(3, 2), "is a ConvLSTMCell"),
        (layers.RNN([layers.LSTMCell(2), layers.LSTMCell(2)]), "is a StackedRNNCells"),
        (layers.LSTM(3), "has not been built"),
        (layers.Bidirectional(layers.LSTM(3), merge_mode="sum"), "merge_mode='sum'"),
    ],
)
def test_other_layers_are_told(layer: Any, told: str) -> None:
    with pytest.raises(SpecError, match=told):
        from_keras(layer)


def test_what_a_stateful_layer_keeps_is_left_behind() -> None:
    layer = layers.GRU(H, stateful=True)
    x = np.random.default_rng(0).standard_normal((2, 5, D)).astype(np.float32)
    layer(x)
    found = from_keras(layer)
    assert found.notes == ("what a stateful layer has kept since the batch before is left behind",)
    again = from_keras(layer)
    assert again.proof == found.proof


def test_float64_is_rounded_and_told() -> None:
    rng = np.random.default_rng(0)
    cell = LSTM(D, H)
    params = {n: rng.standard_normal(shape) for n, shape in cell.shapes().items()}
    converted = to_keras(Weights(((Way(cell, params),),)))
    assert "the weights are rounded to float32, in which Keras multiplies" in converted.notes
    back = from_keras(converted.value).weights.ways[0].params
    for name, array in params.items():
        np.testing.assert_array_equal(back[name], array.astype(np.float32))


def test_a_layer_that_only_runs_backwards_is_refused_with_its_error() -> None:
    rng = np.random.default_rng(0)
    cell = GRU(D, H)
    params = {n: rng.standard_normal(shape) for n, shape in cell.shapes().items()}
    with pytest.raises(ConversionRefusal, match="Layer 0 only runs backwards") as raised:
        to_keras(Weights(((Way(cell, params, reverse=True),),)))
    assert raised.value.measured_error > 0.1
