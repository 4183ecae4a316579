"""Cells over time: the reference scan, faster kernels, and the choice between them."""

from hiddenstate.cells.arrays import NUMPY
from hiddenstate.kernels.native import Linear as Linear
from hiddenstate.kernels.native import NativeKernel as NativeKernel
from hiddenstate.kernels.native import Packed as Packed
from hiddenstate.kernels.native import Stepper as Stepper
from hiddenstate.kernels.native import linear_scan as linear_scan
from hiddenstate.kernels.native import packed_if_able as packed_if_able
from hiddenstate.kernels.registry import Kernel as Kernel
from hiddenstate.kernels.registry import ReferenceKernel as ReferenceKernel
from hiddenstate.kernels.registry import Request as Request
from hiddenstate.kernels.registry import Verdict as Verdict
from hiddenstate.kernels.registry import choose as choose
from hiddenstate.kernels.registry import explain as explain
from hiddenstate.kernels.scan import Scan as Scan
from hiddenstate.kernels.scan import Zoneout as Zoneout
from hiddenstate.kernels.scan import scan as scan

KERNELS: tuple[Kernel, ...] = (NativeKernel(), ReferenceKernel(NUMPY))
"""The kernels for NumPy arrays, in the order of asking."""
