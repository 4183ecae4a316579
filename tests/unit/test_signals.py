"""Reading signals: what is mended is told, what cannot be known is refused."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hiddenstate.data.read_signal import read_signal
from hiddenstate.data.signals import PARTS, Signal, by_rows, by_series
from hiddenstate.errors import DataError, UsageError

HOUR_US = 3_600_000_000
START = datetime(2024, 1, 1)


def lines(steps: int = 30) -> list[str]:
    return [f"{START + timedelta(hours=k):%Y-%m-%d %H:%M},{k}.5,{k % 7}" for k in range(steps)]


def write(folder: Path, rows: list[str], header: str = "date,load,wind") -> Path:
    path = folder / "signal.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_wide_table(tmp_path: Path) -> None:
    signal, remarks = read_signal(write(tmp_path, lines()))
    assert remarks == ()
    assert signal.channels == ("load", "wind")
    assert (signal.steps, signal.step_us, signal.time) == (30, HOUR_US, "date")
    assert signal.values[3].tolist() == [3.5, 3.0]
    frame = pl.DataFrame({"t": [1, 2, 3], "y": [1.0, None, 3.0]})
    from_frame, told = read_signal(frame, with_times=False, exclude=["t"])
    assert np.array_equal(from_frame.values[:, 0], [1.0, np.nan, 3.0], equal_nan=True)
    assert any("1 of 3 values of y are missing" in remark for remark in told)


def test_a_long_table_has_several_series(tmp_path: Path) -> None:
    rows = [f"{name},{line}" for line in lines(4) for name in ("north", "south")]
    path = write(tmp_path, rows, "series,date,load,wind")
    signal, remarks = read_signal(path)
    assert remarks == ()
    assert signal.ids == ("north", "south")
    assert signal.offsets.tolist() == [0, 4, 8]
    assert signal.values[4:, 0].tolist() == [0.5, 1.5, 2.5, 3.5]
    with pytest.raises(DataError, match=r"no column 'serie'.*Did you mean series\?"):
        read_signal(path, case="serie")
    with pytest.raises(DataError, match="tells several series apart with --case"):
        read_signal(write(tmp_path, [*lines(4), *lines(4)[1:2], "2024-01-01 02:00,9,9"]))


def test_rows_out_of_order_repeated_and_missing(tmp_path: Path) -> None:
    rows = lines(10)
    mixed = [*rows[5:], *rows[:3], rows[2]]
    signal, remarks = read_signal(write(tmp_path, mixed))
    told = " ".join(remarks)
    assert "rows stood out of the order of time and were sorted" in told
    assert "1 rows repeat another one and were dropped" in told
    assert "2 steps were missing and were put in with missing values" in told
    assert signal.steps == 10
    assert signal.times_us is not None
    assert (np.diff(signal.times_us) == HOUR_US).all()
    assert np.flatnonzero(np.isnan(signal.values[:, 0])).tolist() == [3, 4]
    assert signal.values[7].tolist() == [7.5, 0.0]


def test_steps_put_in_stay_within_their_series(tmp_path: Path) -> None:
    rows = [f"a,{line}" for line in lines(5) if " 02" not in line]
    rows += [f"b,{line}" for line in lines(8)[3:] if " 05" not in line]
    signal, _ = read_signal(write(tmp_path, rows, "series,date,load,wind"))
    assert signal.offsets.tolist() == [0, 5, 10]
    assert np.flatnonzero(np.isnan(signal.values[:, 0])).tolist() == [2, 7]
    assert signal.values[5, 0] == 3.5


def test_uneven_steps_are_told_and_kept(tmp_path: Path) -> None:
    rows = lines(10)
    rows[4] = rows[4].replace(" 04:00", " 04:20")
    signal, remarks = read_signal(write(tmp_path, rows))
    assert signal.steps == 10
    assert any("2 of 9 steps are not a multiple of 1 h" in remark for remark in remarks)


def test_text_among_numbers(tmp_path: Path) -> None:
    rows = lines(10)
    rows[2] = rows[2].replace("2.5", "broken")
    rows[3] = rows[3].replace("3.5", "inf")
    signal, remarks = read_signal(write(tmp_path, rows))
    told = " ".join(remarks)
    assert "1 values of load are no numbers and are taken as missing: 'broken' in row 4" in told
    assert "1 infinite values of load" in told
    assert np.flatnonzero(np.isnan(signal.values[:, 0])).tolist() == [2, 3]
    site = [f"{line},site A," for line in lines(5)]
    signal, remarks = read_signal(write(tmp_path, site, "date,load,wind,site,empty"))
    assert signal.channels == ("load", "wind")
    assert any("Column site is not used: it holds text" in remark for remark in remarks)
    assert any("Column empty is not used: it has no value at all" in remark for remark in remarks)


def test_wild_values_are_told(tmp_path: Path) -> None:
    rows = lines(30)
    rows[7] = rows[7].replace("7.5", "1e9")
    _, remarks = read_signal(write(tmp_path, rows))
    assert len(remarks) == 1
    assert "1 values of load are more than 100 times as far" in remarks[0]


@pytest.mark.parametrize(
    ("rows", "options", "match"),
    [
        (["2024-01-01,1,2", "yesterday,1,2"], {}, "'yesterday' in row 3"),
        (["2024-01-01,a,b"], {}, "no column of numbers"),
        (["2024-01-01,1,b"], {"attributes": ["wind"]}, "channel 'wind' .* holds text"),
        (["2024-01-01,1,"], {"attributes": ["wind"]}, "'wind' .* has no value at all"),
        (
            ["2024-01-01,1,2"],
            {"attributes": ["load", "wnd"]},
            r"lacks 1 of 2 channels: wnd.*wind\?",
        ),
        (["2024-01-01,1,2"], {"timestamp": "dat"}, r"no column 'dat' of times. Did you mean date"),
        (["2024-01-01,1,2", "2024-01-02,1,2", "2024-12-01,1,2"], {}, "333 steps are missing"),
        (["2024-01-01,1,2", "2024-01-02,1,2,3"], {}, "1 of 2 rows .* cannot be read"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, rows: list[str], options: dict[str, object], match: str
) -> None:
    with pytest.raises(DataError, match=match):
        read_signal(write(tmp_path, rows), **options)


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    x = np.arange(12.0).reshape(6, 2)
    times = np.datetime64("2024-01-01") + np.arange(6) * np.timedelta64(1, "D")
    np.savez(path, x=x, times=times, channels=["a", "b"])
    signal, remarks = read_signal(path)
    assert remarks == ()
    assert signal.step_us == 24 * HOUR_US
    assert signal.channels == ("a", "b")
    np.savez(path, x=x, offsets=[0, 2, 6], parts=["train", "test"], ids=["p", "q"])
    signal, _ = read_signal(path)
    assert signal.parts == ("train", "test")
    assert by_series(signal).rows.tolist() == [[0, 2, 2, 2], [2, 2, 2, 6]]
    assert read_signal(path, attributes=["channel 2"])[0].values[:, 0].tolist() == [
        1,
        3,
        5,
        7,
        9,
        11,
    ]
    for arrays, match in (
        ({"y": x}, "no array x"),
        ({"x": x, "offsets": [0, 7]}, "offsets from 0 to 7"),
        ({"x": x, "channels": ["a"]}, r"channels \[1\]"),
        ({"x": x, "parts": ["spare"]}, "parts spare"),
        ({"x": np.array(["a", "b"])}, "type <U1"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=match):
            read_signal(path)
    np.savez(path, x=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="cannot be read as an archive"):
        read_signal(path)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read as an archive"):
        read_signal(path)


def test_matlab_files(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    path = tmp_path / "x.mat"
    pieces = np.empty((1, 2), dtype=object)
    pieces[0, 0], pieces[0, 1] = np.ones((3, 4)), np.zeros((5, 4))
    io.savemat(path, {"traindata": pieces, "testdata": np.ones((2, 4))})
    signal, _ = read_signal(path)
    assert signal.ids == ("traindata 1", "traindata 2", "testdata")
    assert signal.parts == ("train", "train", "test")
    assert signal.lengths.tolist() == [3, 5, 2]
    assert signal.values[:3].all()
    assert not signal.values[3:8].any()
    io.savemat(path, {"a": np.ones((3, 4)), "b": np.ones((3, 5))})
    with pytest.raises(DataError, match="2 matrices of 4, 5 columns"):
        read_signal(path)
    path.write_bytes(b"MATLAB")
    with pytest.raises(DataError, match=r"cannot be read as a \.mat file"):
        read_signal(path)


def signal_of(lengths: list[int], times: list[int] | None = None) -> Signal:
    steps = sum(lengths)
    starts = times or [0] * len(lengths)
    at = [np.arange(n) * HOUR_US + start * HOUR_US for n, start in zip(lengths, starts)]
    return Signal(
        tuple(map(str, range(len(lengths)))),
        np.cumsum([0, *lengths]),
        np.zeros((steps, 1)),
        ("y",),
        np.concatenate(at),
    )


def test_a_cut_in_time_is_at_one_moment_for_all_series() -> None:
    signal = signal_of([100, 40], [0, 60])
    bounds = by_rows(signal, validation=0.1, test=0.2)
    assert signal.times_us is not None
    ends = [signal.times_us[bounds.rows[:, part] - 1] for part in (1, 2)]
    starts = [signal.times_us[bounds.rows[:, part]] for part in (1, 2)]
    assert all(end.max() < start.min() for end, start in zip(ends, starts))
    assert [bounds.steps(part) for part in range(3)] == [98, 14, 28]
    assert by_rows(signal_of([100]), validation=0.1, test=0.2).rows.tolist() == [[0, 70, 80, 100]]
    assert by_rows(signal_of([100]), counts=[50, 20, 10]).rows.tolist() == [[0, 50, 70, 80]]


def test_whole_series_go_to_the_parts() -> None:
    bounds = by_series(signal_of([5, 5, 5, 5, 5]), validation=0.2, test=0.2)
    assert [bounds.steps(part) for part in range(3)] == [15, 5, 5]
    assert len(PARTS) == 3


@pytest.mark.parametrize("counts", [[90, 10, 1], [50, 20], [-1, 50, 50]])
def test_counts_that_do_not_fit(counts: list[int]) -> None:
    with pytest.raises(UsageError, match="shortest series has 100 rows"):
        by_rows(signal_of([100]), counts=counts)


def test_shares_that_do_not_fit() -> None:
    with pytest.raises(UsageError, match=r"0\.5 for validation"):
        by_rows(signal_of([100]), validation=0.5, test=0.6)
