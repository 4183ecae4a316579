"""ONNX in both directions, with proof: what ONNX Runtime computes is what hiddenstate computes.

    from hiddenstate.interop import onnx

    proof = onnx.export(artifact, Path("tickets.onnx"))   # an Artifact, or Weights of a stack
    found = onnx.read(Path("theirs.onnx"))                # found.weights, found.proof

`export` writes a model that carries its state from call to call; `model_graph.ABOUT` tells its
inputs and outputs. `read` finds recurrent operators in the files that torch, Keras (by tf2onnx) and
others write; where the whole graph is a model that our runtime can run, it comes back as an
artifact too. `read_node` does the same for one node, and runs it by our reference.

Needs the packages onnx and onnxruntime.
"""

from hiddenstate.interop.onnx.exporting import Exported as Exported
from hiddenstate.interop.onnx.exporting import export as export
from hiddenstate.interop.onnx.exporting import to_onnx as to_onnx
from hiddenstate.interop.onnx.importing import Imported as Imported
from hiddenstate.interop.onnx.importing import Stack as Stack
from hiddenstate.interop.onnx.importing import imported as imported
from hiddenstate.interop.onnx.importing import read as read
from hiddenstate.interop.onnx.nodes import read_node as read_node
from hiddenstate.interop.onnx.operators import Operator as Operator
