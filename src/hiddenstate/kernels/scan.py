"""A cell over time: the plain loop that every faster kernel has to equal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from hiddenstate.cells.arrays import Array, ArrayOps
from hiddenstate.cells.cell import Cell, Params
from hiddenstate.errors import ShapeError, SpecError


class Zoneout(NamedTuple):
    """Random keeping of old state values (Krueger et al. 2016, arXiv:1606.01305, eq. 4-6).

    rates: probability of keeping, by name of the state array; an array not named is not kept
    masks: a State of booleans [B, T, width] drawn with these rates, True keeps (training);
           None takes the expectation instead, rate * old + (1 - rate) * new (evaluation)
    """

    rates: Mapping[str, float]
    masks: Any | None = None

    def mix(self, xp: ArrayOps, t: int, old: Any, new: Any) -> Any:
        """Return the state after step t."""
        mixed = {}
        for name, rate in self.rates.items():
            kept, written = getattr(old, name), getattr(new, name)
            if self.masks is None:
                mixed[name] = rate * kept + (1.0 - rate) * written
            else:
                mixed[name] = xp.where(getattr(self.masks, name)[:, t], kept, written)
        return new._replace(**mixed)


class Scan(NamedTuple):
    """What a cell did over a sequence.

    output: [B, T, P], 0 past a row's length
    state:  the State after each row's last step (with reverse, its first)
    gates:  Gates of [B, T, H], 0 past a row's length; None unless traced
    states: State of [B, T, width], past a row's length the one kept there; None unless traced
    projected: [B, T, G, H], the gates' rows before the past is added (`Cell.project`), 0 past a
               row's length; None unless traced
    """

    output: Array
    state: Any
    gates: Any | None = None
    states: Any | None = None
    projected: Array | None = None


def scan(
    xp: ArrayOps,
    cell: Cell,
    params: Params,
    x: Array,
    state: Any | None = None,
    lengths: Any | None = None,
    *,
    reverse: bool = False,
    trace: bool = False,
    zoneout: Zoneout | None = None,
) -> Scan:
    """Run a cell over x [B, T, D] from a State (None: zeros); T = 0 is legal.

    lengths: valid steps of each row, [B] whole numbers from 0 to T (None: T everywhere). Past its
             length a row keeps its state and gives 0; what stands there, NaN too, changes neither
             result nor gradient.
    reverse: run each row from its own last valid step to its first; output[:, t] belongs to x[:, t]
    trace:   keep the gates and the state of every step

    Raises ShapeError when x, state, lengths or masks do not fit the cell and each other, and
    SpecError for a zoneout rate outside [0, 1) or of an array that the state does not have.
    """
    require_fit(cell, x, state)
    batch, time = int(x.shape[0]), int(x.shape[1])
    if zoneout is not None:
        _require_zoneout(cell, zoneout, batch, time)
    if state is None:
        state = cell.initial_state(xp, batch, x)
    live = None
    if lengths is not None:
        live = xp.live(whole_lengths(lengths, batch, time), time, x)
        # Before the projection: 0 * NaN in a backward pass would reach the weights.
        x = xp.where(live, x, 0.0)
    projected = cell.project(xp, params, x)
    outputs: list[Array] = []
    states_by_step: list[Any] = []
    gates_by_step: list[Any] = []
    for t in reversed(range(time)) if reverse else range(time):
        new, gates = cell.step(xp, params, projected[:, t], state)
        if zoneout is not None:
            new = zoneout.mix(xp, t, state, new)
        if live is not None:
            here = live[:, t]
            new = cell.State(*(xp.where(here, b, a) for a, b in zip(state, new)))
            gates = cell.Gates(*(xp.where(here, gate, 0.0) for gate in gates)) if trace else gates
        state = new
        outputs.append(cell.read(state))
        if trace:
            states_by_step.append(state)
            gates_by_step.append(gates)
    if reverse:
        for column in (outputs, states_by_step, gates_by_step):
            column.reverse()
    output = _over_time(xp, outputs, cell.output_size, x)
    if live is not None:
        output = xp.where(live, output, 0.0)
    if not trace:
        return Scan(output, state)
    gate_widths = [cell.hidden_size] * len(cell.Gates._fields)
    return Scan(
        output,
        state,
        _columns(xp, cell.Gates, gates_by_step, gate_widths, x),
        _columns(xp, cell.State, states_by_step, cell.state_shapes().values(), x),
        _by_block(xp, cell, projected, live),
    )


def whole_lengths(lengths: Any, batch: int, time: int) -> list[int]:
    """Return lengths [B] as ints; raises ShapeError unless they are whole, B of them, 0 to T."""
    counts = lengths.tolist() if hasattr(lengths, "tolist") else list(lengths)
    if not isinstance(counts, list) or len(counts) != batch:
        found = len(counts) if isinstance(counts, list) else "one number"
        raise ShapeError(
            f"lengths holds {found}, x has {batch} rows.",
            "There is one length for each row of x [B, T, D].",
            "Give lengths of shape [B].",
        )
    for row, count in enumerate(counts):
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= time:
            raise ShapeError(
                f"lengths[{row}] is {count!r}, x has {time} steps.",
                f"A length is a whole number from 0 to {time}.",
                "Count the valid steps of each row, before padding.",
            )
    return counts


def require_fit(cell: Cell, x: Array, state: Any | None) -> None:
    """Raise ShapeError unless x is [B, T, D] of this cell and the state (if any) has B rows."""
    _require_input(cell, x)
    if state is not None:
        _require_state(cell, state, int(x.shape[0]))


def _by_block(xp: ArrayOps, cell: Cell, projected: Array, live: Array | None) -> Array:
    blocks = projected.reshape(*projected.shape[:2], len(cell.blocks), cell.hidden_size)
    return blocks if live is None else xp.where(live[..., None], blocks, 0.0)


def _columns(
    xp: ArrayOps, kind: type[Any], steps: Sequence[Any], widths: Iterable[int], x: Array
) -> Any:
    """Turn named tuples of [B, width], one a step, into one named tuple of [B, T, width]."""
    return kind(
        *(_over_time(xp, [step[k] for step in steps], width, x) for k, width in enumerate(widths))
    )


def _over_time(xp: ArrayOps, steps: Sequence[Array], width: int, x: Array) -> Array:
    return xp.stack(steps, 1) if steps else xp.zeros((int(x.shape[0]), 0, width), x)


def _require_input(cell: Cell, x: Array) -> None:
    shape = tuple(x.shape)
    if len(shape) != 3 or shape[2] != cell.input_size:
        found = f"x has {shape[2]} features" if len(shape) == 3 else f"x has {len(shape)} axes"
        raise ShapeError(
            f"{found} (shape {list(shape)}, read as [B, T, D]).",
            f"The cell {cell.name} was built with input_size={cell.input_size}.",
            "Bring x to [B, T, D] with that D, or build a cell for this input.",
        )


def _require_state(cell: Cell, state: Any, batch: int) -> None:
    expected = {name: (batch, width) for name, width in cell.state_shapes().items()}
    names = getattr(state, "_fields", ())
    found = {name: tuple(getattr(state, name).shape) for name in names}
    if found != expected:
        raise ShapeError(
            f"The state given is {found or type(state).__name__}.",
            f"The cell {cell.name} and x need {expected}.",
            "Give a State of this cell with one row for each row of x, or None for zeros.",
        )


def _require_zoneout(cell: Cell, zoneout: Zoneout, batch: int, time: int) -> None:
    for name, rate in zoneout.rates.items():
        if name not in cell.state_shapes() or not 0.0 <= rate < 1.0:
            raise SpecError(
                f"Zoneout got the rate {rate} for {name!r}.",
                f"Rates are in [0, 1), for {', '.join(cell.state_shapes())} of the cell "
                f"{cell.name}.",
                "Correct the name or the rate.",
            )
        if zoneout.masks is not None:
            found = tuple(getattr(zoneout.masks, name).shape)
            expected = (batch, time, cell.state_shapes()[name])
            if found != expected:
                raise ShapeError(
                    f"The zoneout mask for {name!r} has shape {list(found)}.",
                    f"The cell {cell.name} and x need {list(expected)}, read as [B, T, width].",
                    "Draw one boolean for each state value of each step.",
                )
