"""Recurrent cells: the mathematics of one step, in any array namespace."""

from hiddenstate.cells.arrays import NUMPY as NUMPY
from hiddenstate.cells.arrays import Array as Array
from hiddenstate.cells.arrays import ArrayOps as ArrayOps
from hiddenstate.cells.arrays import NumpyOps as NumpyOps
from hiddenstate.cells.cell import Cell as Cell
from hiddenstate.cells.cell import Params as Params
from hiddenstate.cells.elman import Elman as Elman
from hiddenstate.cells.gru import GRU as GRU
from hiddenstate.cells.lstm import LSTM as LSTM
from hiddenstate.cells.registry import CELLS as CELLS
from hiddenstate.cells.registry import build as build
from hiddenstate.cells.registry import from_json as from_json
