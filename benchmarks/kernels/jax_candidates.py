"""One layer by JAX (lax.scan, compiled whole) and by Keras on JAX; none where not installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

from benchmarks.kernels.measure import Arrays, Candidate
from benchmarks.kernels.subject import Subject

HAS_JAX = find_spec("jax") is not None
HAS_KERAS = HAS_JAX and find_spec("keras") is not None
if HAS_JAX:
    import jax
    import jax.numpy as jnp
if HAS_KERAS:
    import keras

# Keras' gates in the order of torch's: its GRU has the update gate first.
KERAS_BLOCKS = {"GRU": (1, 0, 2), "LSTM": (0, 1, 2, 3), "Elman": (0,)}


def _scan(kind: str) -> Callable[..., Any]:
    """Return f(params, x [T, B, D]) -> h [T, B, H], the input's product before the loop."""

    def run(params: Any, x: Any) -> Any:
        w_h, b_h = params["w_h"].T, params["b_h"]
        projected = x @ params["w_x"].T + params["b_x"]
        zeros = jnp.zeros((x.shape[1], w_h.shape[0]), x.dtype)

        def elman(h: Any, now: Any) -> Any:
            h = jnp.tanh(now + h @ w_h + b_h)
            return h, h

        def gru(h: Any, now: Any) -> Any:
            x_r, x_z, x_n = jnp.split(now, 3, -1)
            h_r, h_z, h_n = jnp.split(h @ w_h + b_h, 3, -1)
            r, z = jax.nn.sigmoid(x_r + h_r), jax.nn.sigmoid(x_z + h_z)
            n = jnp.tanh(x_n + r * h_n)
            h = z * h + (1 - z) * n
            return h, h

        def lstm(state: Any, now: Any) -> Any:
            h, c = state
            i, f, g, o = jnp.split(now + h @ w_h + b_h, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        step = {"Elman": elman, "GRU": gru, "LSTM": lstm}[kind]
        first = (zeros, zeros) if kind == "LSTM" else zeros
        return jax.lax.scan(step, first, projected)[1]

    return run


def _time_first(array: Any) -> Any:
    return jnp.asarray(np.ascontiguousarray(array.transpose(1, 0, 2)))


def training(subject: Subject) -> Candidate:
    """lax.scan, time first, value and gradients in one compiled function."""
    run, params = _scan(subject.kind), {k: jnp.asarray(v) for k, v in subject.params.items()}
    x, gradient = _time_first(subject.x), _time_first(subject.output_gradient)
    call = _value_and_grad(run, params, x, gradient)

    def read(returned: Any) -> Arrays:
        (_, output), (by_name, x_gradient) = returned
        by_time = [np.asarray(each).transpose(1, 0, 2) for each in (output, x_gradient)]
        return [*by_time, *(by_name[name] for name in subject.params)]

    return Candidate(call, read)


def sequence(subject: Subject) -> Candidate:
    """lax.scan, time first, without gradients."""
    params = {k: jnp.asarray(v) for k, v in subject.params.items()}
    run, x = jax.jit(_scan(subject.kind)), _time_first(subject.x)
    return Candidate(
        lambda: jax.block_until_ready(run(params, x)),
        lambda y: [np.asarray(y).transpose(1, 0, 2)],
    )


def keras_training(subject: Subject) -> Candidate:
    """Keras' layer, value and gradients in one compiled function."""
    layer = _keras_layer(subject)
    rest = [each.value for each in layer.non_trainable_variables]
    weights = [each.value for each in layer.trainable_variables]

    def run(weights: Any, x: Any) -> Any:
        return layer.stateless_call(weights, rest, x)[0]

    call = _value_and_grad(
        run, weights, jnp.asarray(subject.x), jnp.asarray(subject.output_gradient)
    )

    def read(returned: Any) -> Arrays:
        (_, output), ((w_x, w_h, bias), x_gradient) = returned
        # One bias where torch has two: both of torch's then have its gradient.
        b_x, b_h = bias if subject.kind == "GRU" else (bias, bias)
        arrays = [_blocks(subject, np.asarray(each)).T for each in (w_x, w_h, b_x, b_h)]
        return [output, x_gradient, *arrays]

    return Candidate(call, read)


def keras_sequence(subject: Subject) -> Candidate:
    """Keras' layer without gradients, compiled."""
    layer = _keras_layer(subject)
    rest = [each.value for each in layer.non_trainable_variables]
    weights = [each.value for each in layer.trainable_variables]
    run, x = jax.jit(lambda w, x: layer.stateless_call(w, rest, x)[0]), jnp.asarray(subject.x)
    return Candidate(lambda: jax.block_until_ready(run(weights, x)), lambda y: [y])


def _value_and_grad(
    run: Callable[..., Any], weights: Any, x: Any, output_gradient: Any
) -> Callable[[], Any]:
    def value(weights: Any, x: Any) -> Any:
        output = run(weights, x)
        return (output * output_gradient).sum(), output

    compiled = jax.jit(jax.value_and_grad(value, argnums=(0, 1), has_aux=True))
    return lambda: jax.block_until_ready(compiled(weights, x))


def _keras_layer(subject: Subject) -> Any:
    layers = {"GRU": keras.layers.GRU, "LSTM": keras.layers.LSTM, "Elman": keras.layers.SimpleRNN}
    layer = layers[subject.kind](subject.hidden_size, return_sequences=True)
    layer.build((subject.batch, subject.time, subject.input_size))
    w_x, w_h, b_x, b_h = (_blocks(subject, array.T) for array in subject.params.values())
    bias = np.stack([b_x, b_h]) if subject.kind == "GRU" else b_x + b_h
    layer.set_weights([w_x, w_h, bias])
    return layer


def _blocks(subject: Subject, array: Any) -> Any:
    """Exchange torch's and Keras' order of gates along the last axis."""
    order = KERAS_BLOCKS[subject.kind]
    parts = np.split(array, len(order), -1)
    return np.concatenate([parts[place] for place in order], -1)


def linear_scan(a: Any, b: Any) -> Candidate:
    """h_t = a_t * h_{t-1} + b_t by lax.scan, time first."""

    def step(h: Any, now: Any) -> Any:
        h = now[0] * h + now[1]
        return h, h

    run = jax.jit(lambda a, b: jax.lax.scan(step, jnp.zeros_like(a[0]), (a, b))[1])
    first, second = _time_first(a), _time_first(b)
    return Candidate(
        lambda: jax.block_until_ready(run(first, second)),
        lambda h: [np.asarray(h).transpose(1, 0, 2)],
    )
