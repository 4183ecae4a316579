"""Reports: what is said, in which order, and that the pictures show the trace's own numbers."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM, Elman
from hiddenstate.charts import Picture
from hiddenstate.diagnose.finding import Severity
from hiddenstate.diagnose.report import Report, html, pictures
from hiddenstate.diagnose.tracing.record import Trace
from tests.unit.made_reports import CAUSAL, FADES, LEAK, SHUT, made_layer, made_report
from tests.unit.pages import HOSTILE, well_formed


def shown(report: Report) -> dict[str, Picture]:
    """Return the pictures beside the findings by group and title."""
    return {
        f"{group.title}: {each.title}": each
        for group in pictures.groups(report)
        for each in group.pictures
    }


# --- what is said


def test_the_worst_comes_first_in_whatever_order_it_was_found() -> None:
    report = made_report()
    assert [str(each.severity) for each in report.findings] == ["error", "error", "warning", "note"]
    assert report.worst is Severity.ERROR
    assert not report.healthy
    early = replace(SHUT, code="HS001").finding("x", "A note, though first by its code.")
    mixed = replace(report, findings=(early, *report.findings[::-1]))
    codes = [each.code for each in mixed.findings]
    assert codes == ["HS101", "HS101", "HS202", "HS001", "HS303"]


def test_notes_alone_are_healthy() -> None:
    report = made_report(healthy=True)
    assert report.healthy
    assert report.worst is Severity.NOTE
    first = report.words().splitlines()[0]
    assert first == "Healthy: no error, no warning, 1 note (2 rules asked)."
    assert replace(report, findings=()).worst is None


def test_words_say_the_verdict_the_evidence_the_remedy_and_what_was_not_asked() -> None:
    report = made_report()
    words = report.words()
    lines = words.splitlines()
    assert lines[0] == "Not healthy: 2 errors, 1 warning, 1 note (4 rules asked)."
    assert words.index("ERROR HS101") < words.index("WARNING HS202") < words.index("NOTE HS303")
    flat = " ".join(words.split())
    for finding in report.findings:
        assert f"{finding.where}: {finding.measured}" in flat
        assert f"try: {finding.rule.remedy}" in flat
    assert words.count("ERROR HS101") == 1  # two places of one rule share its reasons
    assert "largest change 1e-05" in words
    assert "HS201: no loss was given" in words
    assert max(map(len, lines)) <= 88
    assert max(map(len, report.words(60).splitlines())) <= 60


def test_a_report_without_a_question_does_not_say_healthy() -> None:
    said = Report("x", {}, (), ((LEAK, "no batch"),)).words()
    assert said.splitlines()[0] == "Nothing could be asked: no rule applies."
    page = html.page(Report("x", {}, (), ((LEAK, "no batch"),)))
    assert "Nothing could be asked" in page
    assert "Healthy</h1>" not in page


def test_json_holds_every_finding_and_no_number_that_json_lacks() -> None:
    endless = LEAK.finding("a", "b", {"change": float("inf"), "size": float("nan"), "ok": 1.5})
    told = replace(made_report(), findings=(endless,)).to_json()
    back = json.loads(json.dumps(told, allow_nan=False))
    assert back["findings"][0]["values"] == {"change": None, "size": None, "ok": 1.5}
    assert back["worst"] == "error"
    assert back["healthy"] is False
    assert back["counts"] == {"error": 1, "warning": 0, "note": 0}
    assert back["skipped"][1] == {
        "code": "HS201", "name": "vanishing-gradient", "reason": "no loss was given"
    }  # fmt: skip
    assert back["passed"] == [{"code": CAUSAL.code, "name": CAUSAL.name}]


# --- the page


def test_the_page_begins_with_the_verdict_and_the_worst_finding() -> None:
    page = html.page(made_report())
    well_formed(page)
    order = [
        "Not healthy</h1>",
        "Other values in the padding alone",
        "After 9 steps less than 5 %",
        "What was examined",
        "Score by length",
        "Layer encoder.lstm.l0",
        "Passed (1)",
        "Not asked (2)",
    ]
    places = [page.index(each) for each in order]
    assert places == sorted(places)
    assert "no loss was given" in page
    assert "gru 16 (reset after the recurrent product, update keeps the state)" in page
    assert "the convolution was not traced" in page


def test_a_healthy_page_says_so() -> None:
    page = html.page(made_report(healthy=True))
    well_formed(page)
    assert "Healthy</h1>" in page
    assert "Not healthy" not in page


def test_text_of_a_report_is_never_html() -> None:
    hostile = replace(
        LEAK, name=HOSTILE, asks=HOSTILE, because=HOSTILE, remedy=HOSTILE, limits={HOSTILE: 1.0}
    )
    picture = Picture("heat", HOSTILE, HOSTILE, HOSTILE, {HOSTILE: np.eye(2)})
    report = made_report()
    assert report.trace is not None
    layer = replace(report.trace.layers[0], name=HOSTILE)
    page = html.page(
        Report(
            HOSTILE,
            {HOSTILE: HOSTILE},
            (hostile.finding(HOSTILE, HOSTILE, picture=picture),),
            ((hostile, HOSTILE),),
            (hostile,),
            Trace((layer,), (), remarks=(HOSTILE,)),
            (picture,),
            events=(HOSTILE,) * 24,
        )
    )
    seen = well_formed(page)
    assert "img" not in seen
    assert seen.count("script") == page.count('<script type="application/json">') + 1


def test_a_report_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    made_report(healthy=True).save_html(path)
    before = path.read_bytes()
    assert before.rstrip().endswith(b"</html>")

    def full(_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        made_report().save_html(path)
    assert path.read_bytes() == before


def test_a_large_model_on_long_sequences_has_a_small_report() -> None:
    layers = tuple(made_layer(LSTM(4, 100), f"stack.{k}", [900, 3], seed=k) for k in range(2))
    report = replace(made_report(), trace=Trace(layers * 5, ()), events=())
    assert len(html.page(report)) < 3_000_000


# --- the pictures


def test_pictures_show_the_longest_row_of_the_trace() -> None:
    report = made_report()
    assert report.trace is not None
    layer = report.trace.layers[0]
    seen = shown(report)
    for name in ("h", "c"):
        picture = seen[f"Layer encoder.lstm.l0: State {name}"]
        (values,) = picture.series.values()
        assert np.array_equal(values, getattr(layer.states, name)[0].T)
        assert picture.columns == report.events
    for name in ("i", "f", "g", "o"):
        picture = seen[f"Layer encoder.lstm.l0: Gate {name}"]
        (values,) = picture.series.values()
        assert np.array_equal(values, getattr(layer.gates, name)[0].T)
        assert picture.bounds == ((-1.0, 1.0) if name == "g" else (0.0, 1.0))


def test_another_row_is_shown_without_its_padding_and_without_names_of_others() -> None:
    report = replace(made_report(), row=1)
    seen = shown(report)["Layer encoder.gru: State h"]
    (values,) = seen.series.values()
    assert values.shape == (16, 12)
    assert seen.columns == ()
    assert (
        shown(replace(report, events=report.events[:12]))["Layer encoder.gru: State h"].columns
        == report.events[:12]
    )


def test_histograms_count_real_steps_only() -> None:
    layer = made_layer(GRU(3, 5), "gru", [6, 2])
    report = replace(made_report(), trace=Trace((layer,), ()), events=())
    picture = shown(report)["Layer gru: How open the gates are"]
    assert set(picture.series) == {"r", "z"}
    for name, shares in picture.series.items():
        values = getattr(layer.gates, name)
        inside = np.concatenate([values[0, :6].ravel(), values[1, :2].ravel()])
        counts, _ = np.histogram(inside, 20, (0, 1))
        assert shares == pytest.approx(counts / 40)


def test_gradients_are_counted_back_from_the_end_of_each_row() -> None:
    layer = made_layer(Elman(3, 4), "rnn", [8, 5, 3])
    back = layer.lengths[:, None] - 1 - np.arange(8)
    size = np.where(back >= 0, 0.5 ** np.maximum(back, 0), 0.0)
    slope = layer.cell.State(np.repeat(size[..., None] / 2, 4, axis=-1))
    for reverse in (False, True):
        turned = replace(layer, gradients=slope, reverse=False)
        if reverse:  # as a reverse layer writes it down: its last step first
            turned = replace(replace(turned, reverse=True).turned(), reverse=True)
        report = replace(made_report(), trace=Trace((turned,), ()), events=())
        picture = shown(report)["Memory through time: Gradient of the loss by lag"]
        assert picture.series["rnn"] == pytest.approx(0.5 ** np.arange(8))
        assert picture.log_y


def test_spectra_are_those_of_the_recurrent_blocks() -> None:
    layer = made_layer(LSTM(3, 4), "lstm", [6])
    seen = shown(replace(made_report(), trace=Trace((layer,), ()), events=()))
    w_h = layer.params["w_h"]
    values = seen["Layer lstm: Singular values of the recurrent weights"]
    for k, name in enumerate("ifgo"):
        block = w_h[4 * k : 4 * k + 4]
        assert values.series[name] == pytest.approx(np.linalg.svd(block)[1])
        points = seen["Layer lstm: Eigenvalues of the recurrent weights"].series[name]
        found = np.sort_complex(points[:, 0] + 1j * points[:, 1])
        assert found == pytest.approx(np.sort_complex(np.linalg.eigvals(block)))


def test_a_projection_has_singular_values_and_no_eigenvalues() -> None:
    layer = made_layer(LSTM(3, 6, projection=2), "lstm", [6])
    titles = " ".join(shown(replace(made_report(), trace=Trace((layer,), ()), events=())))
    assert "Singular values" in titles
    assert "Eigenvalues" not in titles


@pytest.mark.parametrize("spoilt", ["weights", "states"])
def test_a_trace_with_nan_is_drawn(spoilt: str) -> None:
    layer = made_layer(LSTM(3, 4), "lstm", [6, 2])
    if spoilt == "weights":
        layer = replace(layer, params={**layer.params, "w_h": layer.params["w_h"] * np.nan})
    else:
        layer = replace(layer, states=layer.cell.State(*(s * np.nan for s in layer.states)))
    page = html.page(replace(made_report(), trace=Trace((layer,), ()), events=()))
    well_formed(page)
    assert "State h" in page


def test_rows_without_steps_and_no_layers_are_no_trouble() -> None:
    report = replace(made_report(), events=())
    for trace in (Trace((), ()), Trace((made_layer(GRU(3, 4), "gru", [1, 0]),), ())):
        well_formed(html.page(replace(report, trace=trace)))
    well_formed(html.page(replace(report, trace=None, pictures=())))


def test_every_finding_of_a_rule_brings_its_picture() -> None:
    line = Picture("lines", "Beside", "x", "y", {"a": np.arange(3.0)})
    found = [FADES.finding(f"layer {k}", "It fades.", picture=line) for k in range(3)]
    page = html.page(replace(made_report(), findings=tuple(found), trace=None, pictures=()))
    assert page.count("<h3>Beside</h3>") == 3
    assert len(re.findall(r'<article class="finding', page)) == 1
    assert SHUT.code not in page


def test_many_places_of_one_rule_are_folded() -> None:
    found = tuple(FADES.finding(f"layer {k}", "It fades.") for k in range(9))
    report = replace(made_report(), findings=found)
    assert "and 4 places more" in report.words()
    assert "layer 4" in report.words()
    assert "layer 5" not in report.words()
    page = html.page(report)
    well_formed(page)
    assert page.index("layer 4") < page.index("4 more places") < page.index("layer 5")
    assert len(report.to_json()["findings"]) == 9


def test_pictures_are_as_small_as_their_bytes() -> None:
    page = html.page(made_report())
    codes = re.findall(r"base64,([^\"]+)\"", page)
    assert len(codes) > 8
    assert all(base64.b64decode(code)[:4] == b"\x89PNG" for code in codes)
    assert len(page) < 200_000
