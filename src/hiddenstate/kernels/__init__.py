"""Cells over time: the reference scan, faster kernels, and the choice between them."""

from hiddenstate.kernels.registry import Kernel as Kernel
from hiddenstate.kernels.registry import ReferenceKernel as ReferenceKernel
from hiddenstate.kernels.registry import Request as Request
from hiddenstate.kernels.registry import Verdict as Verdict
from hiddenstate.kernels.registry import choose as choose
from hiddenstate.kernels.registry import explain as explain
from hiddenstate.kernels.scan import Scan as Scan
from hiddenstate.kernels.scan import Zoneout as Zoneout
from hiddenstate.kernels.scan import scan as scan
