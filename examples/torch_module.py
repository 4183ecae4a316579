"""hiddenstate's layers in ordinary torch code: ragged rows, a training loop, then one step a call.

The task: say at every step whether the number of ones so far is odd. Run it with
`python examples/torch_module.py`; it takes a few seconds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiddenstate.nn import GRU, Head, clip_by_norm, cross_entropy


class Parity(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.memory = GRU(1, 16, seed=0)
        self.head = Head(16, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.memory(x, lengths, final_state=False)
        return self.head(states)


def batch(rows: int, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    bits = torch.randint(0, 2, (rows, longest))
    lengths = torch.randint(1, longest + 1, (rows,))
    return bits[..., None].float(), lengths, bits.cumsum(1) % 2


def train(steps: int = 400) -> Parity:
    model = Parity()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        x, lengths, odd = batch(rows=64, longest=12)
        real = torch.arange(x.shape[1]) < lengths[:, None]
        loss = cross_entropy(model(x, lengths), odd, real)
        optimiser.zero_grad()
        loss.backward()
        clip_by_norm(model.parameters(), 1.0)
        optimiser.step()
    return model.eval()


@torch.no_grad()
def main() -> float:
    with torch.enable_grad():
        model = train()
    x, lengths, odd = batch(rows=500, longest=40)
    real = torch.arange(40) < lengths[:, None]
    right = (model(x, lengths).argmax(-1) == odd)[real].double().mean().item()
    print(f"trained on 12 steps, right on sequences of up to 40: {right:.1%}")

    state = None
    for bit in (1, 0, 1, 1):
        output, state = model.memory.step(torch.tensor([[float(bit)]]), state)
        chance = model.head(output).softmax(-1)[0, 1].item()
        print(f"event {bit}: probability of an odd count {chance:.3f}")
    return right


if __name__ == "__main__":
    torch.manual_seed(0)
    # A second thread costs a layer this small more than it brings.
    torch.set_num_threads(1)
    main()
