"""Weights from and to other systems, with a proof that the numbers agree, or a refusal.

Every system has a module of its own, which loads that system: torch, keras, flax (linen), nnx,
haste, onnx. `from_x` gives a `Converted`: our `Weights` and the proof; `to_x` the other system's
model and the proof.

    from hiddenstate.interop import keras, torch

    found = torch.from_torch(module)               # or a state_dict
    print(found.weights, found.proof)
    model = keras.to_keras(found.weights).value

`stack` does it for hiddenstate's own modules, `runs` for run folders, `files` by a file's ending.
"""

from hiddenstate.interop.proof import Converted as Converted
from hiddenstate.interop.proof import Proof as Proof
from hiddenstate.interop.proof import prove as prove
from hiddenstate.interop.weights import Way as Way
from hiddenstate.interop.weights import Weights as Weights
