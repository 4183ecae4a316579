"""Who runs a sequence: kernels state their refusals, the first without any is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from hiddenstate.cells.arrays import Array, ArrayOps
from hiddenstate.cells.cell import Cell, Params
from hiddenstate.errors import KernelRefusal, nearest
from hiddenstate.kernels.scan import Scan, Zoneout, scan


@dataclass(frozen=True)
class Request:
    """What is to be run, as far as a kernel may care.

    batch, time:  B and T
    dtype:        such as "float32"
    device:       such as "cpu" or "cuda"
    ragged:       rows have different lengths
    reverse:      each row runs backwards within its length
    needs_grad:   gradients will be asked for
    needs_state:  a first state is given or the last one is wanted
    needs_trace:  gates and states of every step are wanted
    zoneout:      some states are kept at random
    second_order: gradients of gradients will be asked for
    """

    cell: Cell
    batch: int
    time: int
    dtype: str = "float32"
    device: str = "cpu"
    ragged: bool = False
    reverse: bool = False
    needs_grad: bool = False
    needs_state: bool = False
    needs_trace: bool = False
    zoneout: bool = False
    second_order: bool = False


class Kernel(Protocol):
    """A way of running a cell over time; what it does not refuse it computes as `scan` does."""

    @property
    def name(self) -> str:
        """Name by which it can be asked for."""

    def refusals(self, request: Request) -> list[str]:
        """Return the reasons why it cannot run this request; empty means that it can."""

    def run(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: Any | None = None,
        lengths: Any | None = None,
        *,
        reverse: bool = False,
        trace: bool = False,
        zoneout: Zoneout | None = None,
        final_state: bool = True,
    ) -> Scan:
        """Run x [B, T, D] as `hiddenstate.kernels.scan.scan` describes.

        final_state=False: the state after the last step is not wanted and may be None.
        """


K = TypeVar("K", bound=Kernel)


@dataclass(frozen=True)
class ReferenceKernel:
    """The plain loop in one array namespace: right by definition, slow, and never out of reach."""

    xp: ArrayOps
    name: str = "reference"

    def refusals(self, request: Request) -> list[str]:
        """Refuse gradients where the namespace records none."""
        if (request.needs_grad or request.second_order) and not self.xp.differentiable:
            return [f"{self.xp.name} records no gradients"]
        return []

    def run(
        self,
        cell: Cell,
        params: Params,
        x: Array,
        state: Any | None = None,
        lengths: Any | None = None,
        *,
        reverse: bool = False,
        trace: bool = False,
        zoneout: Zoneout | None = None,
        final_state: bool = True,  # noqa: ARG002
    ) -> Scan:
        """Run x [B, T, D] with `scan`."""
        return scan(
            self.xp,
            cell,
            params,
            x,
            state,
            lengths,
            reverse=reverse,
            trace=trace,
            zoneout=zoneout,
        )


class Verdict(NamedTuple):
    """What one kernel says to a request."""

    kernel: str
    refusals: list[str]
    runs: bool


def explain(kernels: Sequence[Kernel], request: Request) -> list[Verdict]:
    """Return every kernel's refusals, in the order of asking, and which one runs."""
    verdicts: list[Verdict] = []
    for kernel in kernels:
        refusals = kernel.refusals(request)
        first = not refusals and not any(verdict.runs for verdict in verdicts)
        verdicts.append(Verdict(kernel.name, refusals, first))
    return verdicts


def choose(kernels: Sequence[K], request: Request, named: str | None = None) -> K:
    """Return the first kernel without refusals, or the named one if it has none.

    Raises KernelRefusal with every kernel's reasons, or the named one's.
    """
    asked = [kernel for kernel in kernels if named in (None, kernel.name)]
    if not asked:
        names = [kernel.name for kernel in kernels]
        raise KernelRefusal(
            f"There is no kernel {named!r}.",
            f"The kernels here are {', '.join(names)}.",
            f"Name one of them, or none to have one chosen.{nearest(str(named), names)}",
        )
    for kernel in asked:
        if not kernel.refusals(request):
            return kernel
    reasons = "; ".join(f"{kernel.name}: {', '.join(kernel.refusals(request))}" for kernel in asked)
    raise KernelRefusal(
        f"No kernel can run the cell {request.cell.name} ({request.cell.convention}) over "
        f"[{request.batch}, {request.time}, {request.cell.input_size}] in {request.dtype} on "
        f"{request.device}. {reasons}.",
        "A kernel that is chosen computes the whole request; none does part of it.",
        "Change what is refused" + (", or name no kernel." if named else "."),
    )
