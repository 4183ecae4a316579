"""A report as people see it: in a real browser, on a desk and on a telephone, with no network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hiddenstate.diagnose.examine import examine
from hiddenstate.diagnose.influence import influence
from hiddenstate.diagnose.report import Report
from hiddenstate.diagnose.subject.subject import Subject
from hiddenstate.job.pairs.heatmap import heat_map
from hiddenstate.job.pairs.model import Alignment
from tests.journeys.browser import SCREENS, Seen, opened
from tests.unit.made_reports import made_report


class Leaks(nn.Module):
    """Averages over the padding of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)
        self.lstm = nn.LSTM(8, 12, batch_first=True)
        self.out = nn.Linear(12, 3)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        states, _ = self.lstm(self.embed(tokens))
        return self.out(states.mean(1))


def examined() -> Report:
    """Return the report of a model that leaks, with the influence on one of its answers."""
    torch.manual_seed(0)
    batch = (torch.randint(0, 12, (6, 14)), torch.tensor([14, 9, 4, 3, 7, 11]))
    found = examine(Leaks(), batch, lambda out: out.square().mean(), only=["HS1", "HS2"])
    names = tuple(f"event {k}" for k in batch[0][0].tolist())
    told = influence(Subject(Leaks(), batch), row=0, events=names)
    return Report(
        "leaks", found.facts, found.findings, found.skipped, found.passed, found.trace,
        (told.picture(),), row=0, events=names,
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return pages by name."""
    folder = tmp_path_factory.mktemp("pages")
    made = {name: folder / f"{name}.html" for name in (*NAMES, "made")}
    examined().save_html(made["examined"])
    made_report().save_html(made["made"])
    made_report(healthy=True, steps=100).save_html(made["healthy"])
    sources = ("ein", "sehr", "langer", "Satz", "mit", "Donaudampfschifffahrtsgesellschaften")
    targets = ("a", "word", "<end>")
    weights = np.random.default_rng(0).dirichlet(np.ones(6), 3).astype(np.float32)
    made["alignment"].write_text(heat_map(Alignment(sources, targets, weights)))
    return made


NAMES = ("examined", "healthy", "alignment")
# What reaches over the edge of the screen; a wide table may, it scrolls by itself.
EDGES = """[...document.querySelectorAll(`.area, .area span, .key span, .legend li, p, dd, h1, h2,
    h3, summary, td, th`)].filter((each) => !each.closest(".wide-table, .unseen, .more > div"))
  .map((each) => [each.getBoundingClientRect(), each])
  .filter(([box]) => box.width && (box.left < -0.5 || box.right > innerWidth + 0.5))
  .map(([box, each]) => `${each.className || each.tagName} ${each.textContent} ${box.right}`)"""
# Plots whose names or numbers along the horizontal axis lie over each other.
OVERLAPS = """[...document.querySelectorAll(".area")].filter((area) => {
    const boxes = [...area.querySelectorAll(".x")].map((each) => each.getBoundingClientRect())
      .filter((box) => box.width).sort((a, b) => a.left - b.left);
    return boxes.slice(1).some((box, k) => box.left < boxes[k].right - 0.5);
  }).map((area) => area.ariaLabel)"""
SIZES = """[...document.querySelectorAll(".area > svg")].map((each) => {
    const box = each.getBoundingClientRect();
    return [box.width, box.height];
  })"""
LETTERS = """Math.min(...[...document.querySelectorAll("main *")]
  .map((each) => parseFloat(getComputedStyle(each).fontSize)))"""
IMAGES = """Promise.all([...document.querySelectorAll(".area image")].map(async (each) => {
    const image = new Image();
    image.src = each.getAttribute("href");
    await image.decode();
    return [image.naturalWidth, image.naturalHeight];
  }))"""
INKS = """[getComputedStyle(document.body).backgroundColor,
  [...document.querySelectorAll("path.line, path.dot")].map((each) =>
    getComputedStyle(each).stroke)]"""


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("name", NAMES)
def test_a_page_fits_the_screen_and_says_nothing_is_wrong(
    browser: Any, pages: dict[str, Path], name: str, screen: str
) -> None:
    seen = Seen(browser, pages[name], screen)
    for _ in range(2):
        assert seen.all("document.documentElement.scrollWidth") <= seen.width
        assert seen.all(EDGES) == []
        assert seen.all(OVERLAPS) == []
        seen.unfold()
    areas = seen.all(SIZES)
    assert areas
    assert min(width for width, _ in areas) > 100
    assert min(height for _, height in areas) > 50
    assert seen.all(LETTERS) >= 12
    assert seen.wrong == []
    assert seen.asked == [pages[name].as_uri()]


@pytest.mark.parametrize("screen", SCREENS)
def test_every_heat_map_is_an_image_that_the_browser_reads(
    browser: Any, pages: dict[str, Path], screen: str
) -> None:
    seen = Seen(browser, pages["made"], screen)
    sizes = seen.all(IMAGES)
    # States and gates of an LSTM of 32 units, those of a GRU of 16, over 24 steps.
    assert sizes == [[24, 32]] * 6 + [[24, 16]] * 4


@pytest.mark.parametrize("screen", SCREENS)
def test_the_verdict_and_the_first_finding_are_on_the_first_screen(
    browser: Any, pages: dict[str, Path], screen: str
) -> None:
    seen = Seen(browser, pages["examined"], screen)
    assert seen.page.locator("h1").inner_text() == "Not healthy"
    for place in (".verdict .said", ".finding .badge", ".finding .measured", ".finding dd"):
        box = seen.page.locator(place).first.bounding_box()
        assert box["y"] + box["height"] <= seen.height, place
    assert "Error" in seen.page.locator(".finding .badge").first.inner_text()
    healthy = Seen(browser, pages["healthy"], screen)
    assert healthy.page.locator("h1").inner_text() == "Healthy"


def test_arrow_keys_and_pointing_tell_single_values(browser: Any, pages: dict[str, Path]) -> None:
    report = made_report()
    assert report.trace is not None
    states = report.trace.layers[0].states.h[0]
    seen = Seen(browser, pages["made"], "desktop")
    figure = seen.page.locator("figure", has=seen.page.get_by_text("State h", exact=True)).first
    area, told = figure.locator(".area"), figure.locator(".readout")
    area.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        area.press(key)
    assert told.inner_text().startswith(f"event {report.events[1]}, unit 1:")
    assert float(told.inner_text().split(":")[1].replace("−", "-")) == pytest.approx(
        states[1, 1], abs=0.01
    )
    size = area.bounding_box()
    area.hover(position={"x": size["width"] * 4.5 / 24, "y": size["height"] * 9.5 / 32})
    assert told.inner_text().startswith(f"event {report.events[4]}, unit 9:")
    assert float(told.inner_text().split(":")[1].replace("−", "-")) == pytest.approx(
        states[4, 9], abs=0.01
    )
    lines = seen.page.locator("figure", has=seen.page.get_by_text("Score by length", exact=True))
    lines.locator(".area").focus()
    lines.locator(".area").press("ArrowRight")
    assert lines.locator(".readout").inner_text() == "steps 5: model 0.9, n-gram 0.6"
    lines.get_by_text("Numbers").click()
    assert lines.locator("tr").nth(4).inner_text().split("\t") == ["40", "0.5", "0.5"]
    assert seen.wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_are_drawn_in_ink_that_differs_from_the_ground(
    browser: Any, pages: dict[str, Path], scheme: str
) -> None:
    seen = Seen(browser, pages["made"], "desktop", scheme)
    ground, inks = seen.all(INKS)
    assert len(set(inks)) >= 4
    assert ground not in inks
    assert "none" not in inks
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")


def test_everything_is_there_without_a_script(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["made"].as_uri())
    assert page.locator("h1").inner_text() == "Not healthy"
    assert page.locator(".area").first.bounding_box()["height"] > 50
    assert page.locator("svg image").count() >= 6
