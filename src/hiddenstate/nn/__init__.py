"""Recurrent layers, pools, heads and losses for PyTorch, batch first, right under padding."""

from hiddenstate.cells.state import map_state as map_state
from hiddenstate.nn.arrays import TORCH as TORCH
from hiddenstate.nn.clipping import Norms as Norms
from hiddenstate.nn.clipping import clip_by_norm as clip_by_norm
from hiddenstate.nn.clipping import clip_by_value as clip_by_value
from hiddenstate.nn.dropout import Dropout as Dropout
from hiddenstate.nn.exchange import from_torch as from_torch
from hiddenstate.nn.exchange import to_torch as to_torch
from hiddenstate.nn.factories import GRU as GRU
from hiddenstate.nn.factories import LSTM as LSTM
from hiddenstate.nn.factories import Elman as Elman
from hiddenstate.nn.factories import stack_of as stack_of
from hiddenstate.nn.kernels import KERNELS as KERNELS
from hiddenstate.nn.layer import Layer as Layer
from hiddenstate.nn.layer import detach as detach
from hiddenstate.nn.losses import LOSSES as LOSSES
from hiddenstate.nn.losses import cross_entropy as cross_entropy
from hiddenstate.nn.losses import huber as huber
from hiddenstate.nn.losses import l1 as l1
from hiddenstate.nn.losses import masked_mean as masked_mean
from hiddenstate.nn.pool import Head as Head
from hiddenstate.nn.pool import Pool as Pool
from hiddenstate.nn.recurrent import Recurrent as Recurrent
from hiddenstate.nn.stack import Bidirectional as Bidirectional
from hiddenstate.nn.stack import Directions as Directions
from hiddenstate.nn.stack import Stack as Stack
