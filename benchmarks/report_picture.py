"""Draw docs/images/report.png: what the report says of a classifier that averages over padding.

python -m benchmarks.report_picture     (needs playwright and Chromium)
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tests.journeys.browser import Seen, opened
from torch import Tensor, nn

from hiddenstate.diagnose.examine import examine

OUT = Path(__file__).parents[1] / "docs" / "images" / "report.png"
SYMBOLS, ROWS, STEPS = 12, 6, 14
PART = {"x": 80, "y": 0, "width": 1120, "height": 612}
"""The verdict and the first finding, of a page 1280 wide, in pixels."""


class ReviewClassifier(nn.Module):
    """An LSTM over tokens [B, T] whose states are averaged, those of the padding too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, 8)
        self.lstm = nn.LSTM(8, 12, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        states, _ = self.lstm(self.embed(tokens))
        return self.out(states.mean(1))


def main() -> None:
    """Examine the module, open its report in a browser and keep the top of it."""
    torch.manual_seed(0)
    batch = (torch.randint(SYMBOLS, (ROWS, STEPS)), torch.tensor([14, 9, 4, 3, 7, 11]))
    report = examine(ReviewClassifier(), batch, name="ReviewClassifier")
    with TemporaryDirectory() as folder, opened() as browser:
        page = Path(folder) / "report.html"
        report.save_html(page)
        Seen(browser, page, "desktop").page.screenshot(path=OUT, clip=PART)


if __name__ == "__main__":
    main()
