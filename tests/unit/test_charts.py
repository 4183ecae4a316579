"""Figures: what is drawn lies where its numbers say, in colours that everybody can tell apart."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import struct
import zlib
from importlib import resources
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiddenstate.charts import Picture, document, figure
from hiddenstate.charts.axis import Axis
from hiddenstate.charts.colours import LEVELS, RISING, SIGNED, scale
from hiddenstate.charts.png import png
from tests.unit.pages import HOSTILE, well_formed

CSS = resources.files("hiddenstate.charts").joinpath("page.css").read_text()
NUMBERS = np.random.default_rng(0)


def data_of(drawn: str) -> list[dict[str, Any]]:
    """Return what each plot tells page.js."""
    found = re.findall(r'<script type="application/json">(.*?)</script>', drawn, re.S)
    return [json.loads(each) for each in found]


def points_of(path: str) -> np.ndarray:
    """Return the places [N, 2] of an SVG path of M and L commands, y upwards, from 0 to 1."""
    pairs = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)
    places = np.array([[float(x), float(y)] for x, y in pairs]) / 1000
    return np.stack([places[:, 0], 1 - places[:, 1]], axis=1)


def path_of(drawn: str, classes: str) -> str:
    """Return the path of the first mark with these classes."""
    (found, *_) = re.findall(rf'<path class="{classes}" d="([^"]*)"', drawn)
    return str(found)


def pixels_of(drawn: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices and the colours of the first image, by the PNG specification."""
    (code,) = re.findall(r'href="data:image/png;base64,([^"]+)"', drawn)[:1]
    raw = base64.b64decode(code)
    assert raw[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(raw):
        (size,) = struct.unpack_from(">I", raw, at)
        name, content = raw[at + 4 : at + 8], raw[at + 8 : at + 8 + size]
        (check,) = struct.unpack_from(">I", raw, at + 8 + size)
        assert check == zlib.crc32(name + content)
        chunks[name], at = content, at + 12 + size
    width, height = struct.unpack_from(">II", chunks[b"IHDR"])
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:], np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)


def lines(**more: Any) -> Picture:
    given: dict[str, Any] = {"series": {"a": np.array([3.0, 1, 4, 1, 5])}, **more}
    return Picture("lines", "Title", "x", "y", **given)


PICTURES = {
    "lines": lines(),
    "log": lines(series={"a": np.array([1.0, 1e-3, 0, 1e-9])}, log_y=True, log_x=True, x=None),
    "named": lines(columns=("a", "b", "c", "d", "e")),
    "spread": lines(spread={"a": np.ones(5)}, beyond=2.5, aside=()),
    "histogram": Picture(
        "histogram", "T", "x", "y", {"a": np.array([1.0, 0, 2])}, x=np.arange(4.0)
    ),
    "bars": Picture("bars", "T", "x", "y", {"a": np.array([1.0, -2, 3])}),
    "named bars": Picture(
        "bars", "T", "x", "y", {"a": np.array([1.0, -2]), "b": np.ones(2)}, labels=("p", "q")
    ),
    "scatter": Picture("scatter", "T", "x", "y", {"a": NUMBERS.normal(size=(7, 2))}),
    "circle": Picture("scatter", "T", "x", "y", {"a": NUMBERS.normal(size=(7, 2))}, circle=True),
    "heat": Picture("heat", "T", "x", "y", {"a": NUMBERS.normal(size=(3, 5))}),
    "heats": Picture(
        "heat", "T", "x", "y", {"a": NUMBERS.random((3, 5)), "b": NUMBERS.random((3, 5))},
        labels=("p", "q", "r"), columns=("a", "b", "c", "d", "e"), bounds=(0.0, 1.0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_is_whole_html_with_readable_numbers(name: str) -> None:
    drawn = figure(PICTURES[name])
    seen = well_formed(drawn)
    assert "svg" in seen or "table" in seen
    assert "nan" not in drawn.lower()
    assert "inf" not in drawn.lower()
    for shown in data_of(drawn):
        assert shown["kind"] in ("columns", "points", "cells")


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_numbers_that_cannot_be_drawn_are_left_out(name: str, value: float) -> None:
    from dataclasses import replace

    given = PICTURES[name]
    series = {key: np.full_like(each, value) for key, each in given.series.items()}
    drawn = figure(replace(given, series=series))
    well_formed(drawn)
    assert not re.search(r'd="[^"]*(nan|inf)', drawn)


@pytest.mark.parametrize("kind", ["lines", "bars", "heat", "scatter", "histogram"])
def test_nothing_is_drawn_of_nothing(kind: Any) -> None:
    empty = np.zeros((0, 2)) if kind in ("scatter", "heat") else np.zeros(0)
    assert "nothing to draw" in figure(Picture(kind, "T", "x", "y", {"a": empty}))
    assert "nothing to draw" in figure(Picture(kind, "T", "x", "y", {}))


@pytest.mark.parametrize("name", PICTURES)
def test_names_are_text_and_never_html(name: str) -> None:
    from dataclasses import replace

    given = PICTURES[name]
    drawn = figure(
        replace(
            given,
            title=HOSTILE,
            x_label=HOSTILE,
            y_label=HOSTILE,
            note=HOSTILE,
            series={f"{HOSTILE}{key}": each for key, each in given.series.items()},
            spread={},
            labels=tuple(HOSTILE for _ in given.labels),
            columns=tuple(HOSTILE for _ in given.columns),
        )
    )
    seen = well_formed(drawn)
    assert "img" not in seen
    assert seen.count("script") == drawn.count('<script type="application/json">')


def test_a_line_lies_where_its_numbers_are() -> None:
    values, x = np.array([2.0, 8.0, 5.0]), np.array([10.0, 20.0, 40.0])
    drawn = figure(lines(series={"a": values}, x=x))
    places = points_of(path_of(drawn, "line s0 d0"))
    # Both axes are linear: differences keep their proportions.
    across, up = places[:, 0], places[:, 1]
    assert np.diff(across)[0] / np.diff(across)[1] == pytest.approx(0.5, rel=1e-2)
    assert np.diff(up)[0] / np.diff(up)[1] == pytest.approx(-2, rel=1e-2)
    assert np.all((places >= 0) & (places <= 1))
    (shown,) = data_of(drawn)
    assert shown["series"] == [["a", [2, 8, 5]]]
    assert shown["at"] == pytest.approx(across, abs=1e-3)


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    drawn = figure(lines(series={"a": 10.0 ** -np.arange(6)}, log_y=True))
    up = points_of(path_of(drawn, "line s0 d0"))[:, 1]
    assert np.diff(up) == pytest.approx(np.full(5, np.diff(up)[0]), abs=2e-3)
    for text in ("1", "0.01", "10⁻⁴"):
        assert f">{text}</span>" in drawn


def test_a_line_is_broken_where_a_number_is_missing() -> None:
    drawn = figure(lines(series={"a": np.array([1.0, 2, np.nan, 4, np.nan, 6, 7])}))
    path = path_of(drawn, "line s0 d0")
    assert path.count("M") == 3
    assert path.count("h.01") == 1  # a point alone is drawn as well
    assert data_of(drawn)[0]["series"][0][1][2] is None


def test_a_long_line_keeps_its_peaks() -> None:
    values = np.zeros(20_000)
    values[[777, 12_345]] = 5, -3
    drawn = figure(lines(series={"a": values}))
    up = points_of(path_of(drawn, "line s0 d0"))[:, 1]
    axis = Axis.around(values, margin=0.04)
    assert up.max() == pytest.approx(float(axis.place(5)), abs=1e-3)
    assert up.min() == pytest.approx(float(axis.place(-3)), abs=1e-3)
    assert len(drawn) < 40_000


def test_points_keep_one_scale_around_the_unit_circle() -> None:
    points = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    drawn = figure(Picture("scatter", "T", "x", "y", {"a": points}, circle=True))
    places = points_of(path_of(drawn, "dot s0 d0"))
    (radius,) = re.findall(r'<ellipse class="circle" cx="500" cy="500" rx="([\d.]+)"', drawn)
    assert np.hypot(*(places - 0.5).T) == pytest.approx(np.full(4, float(radius) / 1000), abs=1e-3)
    assert "4 points, 0 outside the unit circle" in drawn


def test_the_image_of_a_heat_map_has_its_values() -> None:
    values = NUMBERS.uniform(-1, 1, (6, 9))
    values[2, 3] = np.nan
    drawn = figure(Picture("heat", "T", "step", "unit", {"h": values}, bounds=(-1.0, 1.0)))
    levels, colours = pixels_of(drawn)
    assert levels[2, 3] == LEVELS
    known = np.isfinite(values)
    assert levels[known] / (LEVELS - 1) * 2 - 1 == pytest.approx(values[known], abs=1 / 254)
    assert np.array_equal(colours[:LEVELS], scale(SIGNED))
    (shown,) = data_of(drawn)
    told = np.frombuffer(base64.b64decode(shown["levels"]), np.uint8).reshape(levels.shape)
    assert np.array_equal(told, levels)
    assert (len(shown["rows"]), len(shown["names"])) == values.shape


def test_zero_is_white_where_values_are_below_and_above() -> None:
    values = np.array([[-0.1, 0.0, 2.0]])
    levels, colours = pixels_of(figure(Picture("heat", "T", "x", "y", {"c": values})))
    assert colours[levels[0, 1]].tolist() == [247, 247, 247]
    assert levels[0, 2] == LEVELS - 1
    assert levels[0, 0] == round(1.9 / 4 * (LEVELS - 1))


def test_a_large_heat_map_is_made_small_and_says_so() -> None:
    values = NUMBERS.random((500, 4000))
    drawn = figure(Picture("heat", "T", "step", "unit", {"f": values}, bounds=(0.0, 1.0)))
    levels, colours = pixels_of(drawn)
    assert levels.shape == (64, 250)
    assert np.array_equal(colours[:LEVELS], scale(RISING))
    # Each cell is the mean of 16 steps of one unit.
    assert levels[0, 3] / (LEVELS - 1) == pytest.approx(values[0, 48:64].mean(), abs=1 / 254)
    assert levels[-1, -1] / (LEVELS - 1) == pytest.approx(values[-1, -16:].mean(), abs=1 / 254)
    assert "64 of 500 rows are shown" in drawn
    assert "mean of 16 neighbours" in drawn
    assert len(drawn) < 80_000


def test_png_is_what_the_specification_says() -> None:
    pixels = NUMBERS.integers(0, 4, (5, 7)).astype(np.uint8)
    colours = NUMBERS.integers(0, 256, (3, 3)).astype(np.uint8)
    code = base64.b64encode(png(pixels, colours)).decode()
    found, known = pixels_of(f'href="data:image/png;base64,{code}"')
    assert np.array_equal(found, pixels)
    assert np.array_equal(known[:3], colours)


@given(
    low=st.floats(-1e6, 1e6),
    size=st.floats(1e-6, 1e6),
    log=st.booleans(),
    share=st.floats(0, 1),
)
@settings(max_examples=200, deadline=None)
def test_axes_are_monotone_and_their_ticks_are_inside(
    low: float, size: float, log: bool, share: float
) -> None:
    axis = Axis.around([abs(low) + 1e-9, (abs(low) + 1e-9) * (1 + size)], log=log)
    inside = axis.low + share * (axis.high - axis.low)
    assert -1e-9 <= float(axis.place(inside)) <= 1 + 1e-9
    assert float(axis.place(axis.low)) == pytest.approx(0, abs=1e-9)
    assert float(axis.place(axis.high)) == pytest.approx(1, abs=1e-9)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 9
    places = [float(axis.place(value)) for value, _ in ticks]
    assert places == sorted(places)
    assert all(-0.01 <= place <= 1.01 for place in places)


def test_a_page_may_run_its_own_script_alone_and_load_nothing() -> None:
    page = document(HOSTILE, figure(PICTURES["heats"]), "p{}")
    well_formed(page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?://", page.replace(policy, ""))
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert len(page) < 40_000


# --- colours

SCHEMES = re.findall(r":root \{(.*?)\}", CSS, re.S)
# Machado, Oliveira, Fernandes 2009, 10.1109/TVCG.2009.113, full severity, linear RGB.
VISIONS = {
    "usual": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(rgb: Any) -> np.ndarray:
    share = np.asarray(rgb, float) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lightness_and_hue(light: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* (1976) of linear sRGB."""
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = np.clip(light, 0, 1) @ np.array(to_xyz).T / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def colours_of(scheme: str) -> dict[str, list[int]]:
    pairs = re.findall(r"--([\w-]+): #([0-9a-f]{6})", scheme)
    return {name: list(bytes.fromhex(value)) for name, value in pairs}


def contrast(one: Any, other: Any) -> float:
    """Return WCAG 2.2's contrast ratio."""
    weights = np.array([0.2126, 0.7152, 0.0722])
    low, high = sorted(float(linear(each) @ weights) for each in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("vision", VISIONS)
def test_series_are_told_apart_with_any_colour_vision(scheme: str, vision: str) -> None:
    known = colours_of(scheme)
    inks = [linear(known[f"s{k}"]) @ np.array(VISIONS[vision]).T for k in range(5)]
    for one, other in itertools.combinations(inks, 2):
        apart = np.linalg.norm(lightness_and_hue(one) - lightness_and_hue(other))
        assert apart > 12


@pytest.mark.parametrize("scheme", SCHEMES)
def test_text_and_lines_stand_out_from_the_ground(scheme: str) -> None:
    known = colours_of(scheme)
    for ground in ("ground", "panel"):
        for text in ("text", "quiet", "good", "error", "warning", "note"):
            assert contrast(known[text], known[ground]) >= 4.5, text
        for line in range(5):
            assert contrast(known[f"s{line}"], known[ground]) >= 3, line


@pytest.mark.parametrize("vision", VISIONS)
def test_colour_scales_rise_in_darkness_with_any_colour_vision(vision: str) -> None:
    def lightness(colours: str) -> np.ndarray:
        seen = linear(scale(colours)) @ np.array(VISIONS[vision]).T
        return lightness_and_hue(seen)[:, 0]

    assert np.all(np.diff(lightness(RISING)) < 0.5)
    signed = lightness(SIGNED)
    middle = len(signed) // 2
    assert np.all(np.diff(signed[: middle + 1]) > -0.5)
    assert np.all(np.diff(signed[middle:]) < 0.5)
    assert math.isclose(signed[middle], signed.max(), abs_tol=1)
