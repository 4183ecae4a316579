"""A trace on disk is the trace, or refused; it is never half there."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

import hiddenstate
from hiddenstate.diagnose.tracing import file as trace_file
from hiddenstate.diagnose.tracing.record import Trace
from hiddenstate.errors import ArtifactError


@pytest.fixture(scope="module")
def found() -> Trace:
    torch.manual_seed(0)
    layer = nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2).double().train()
    packed = pack_sequence([torch.randn(n, 3).double() for n in (5, 2, 2)])
    return hiddenstate.trace(layer, packed, lambda out: out[0].data.sum(), lengths=[5, 2, 2])


def saved(found: Trace, folder: Path) -> Path:
    found.save(folder / "trace.npz")
    return folder / "trace.npz"


def test_what_is_read_is_what_was_written(found: Trace, tmp_path: Path) -> None:
    again = Trace.load(saved(found, tmp_path))
    assert (again.loss, again.remarks, again.axes) == (found.loss, found.remarks, found.axes)
    assert again.lengths is not None
    assert np.array_equal(again.lengths, [5, 2, 2])
    for left, right in zip(found.outputs, again.outputs, strict=True):
        assert np.array_equal(left, right)
    for one, two in zip(found.layers, again.layers, strict=True):
        for name in ("name", "cell", "reverse", "kernel", "difference"):
            assert getattr(one, name) == getattr(two, name)
        for (name, _, left), (_, _, right) in zip(one.arrays(), two.arrays(), strict=True):
            assert left.dtype == right.dtype, name
            assert np.array_equal(left, right), name
    plain = hiddenstate.trace(nn.RNN(3, 4), torch.zeros(2, 5, 3))
    again = Trace.load(saved(plain, tmp_path))
    assert (again.loss, again.lengths, again.layers[0].gradients) == (None, None, None)


def test_numpy_reads_it_alone(found: Trace, tmp_path: Path) -> None:
    with np.load(saved(found, tmp_path), allow_pickle=False) as archive:
        assert np.array_equal(archive["lstm.l1/gates/f"], found.layer("lstm.l1").gates.f)
        assert json.loads(archive["about"].tobytes())["axes"]["lstm.l0/states/h"] == "B T P"


def test_a_damaged_file_is_refused_wherever_it_is_cut(found: Trace, tmp_path: Path) -> None:
    path = saved(found, tmp_path)
    content = path.read_bytes()
    for cut in np.linspace(0, len(content) - 1, 25, dtype=int):
        path.write_bytes(content[:cut])
        with pytest.raises(ArtifactError, match="cannot be read as a trace"):
            Trace.load(path)
    for place in np.linspace(100, len(content) - 1, 40, dtype=int):
        path.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
        with contextlib.suppress(ArtifactError):  # some bytes of the zip format are of no account
            Trace.load(path)


def test_sizes_and_types_are_checked(found: Trace, tmp_path: Path) -> None:
    path = saved(found, tmp_path)
    with np.load(path) as archive:
        arrays = dict(archive)

    def about(**changes: Any) -> Any:
        told = json.loads(arrays["about"].tobytes()) | changes
        return np.frombuffer(json.dumps(told).encode(), np.uint8)

    wrong: list[dict[str, Any]] = [
        {"lstm.l0/gates/f": arrays["lstm.l0/gates/f"][:, :-1]},
        {"lstm.l0/params/w_h": arrays["lstm.l0/params/w_h"].T},
        {"lstm.l1/states/c": arrays["lstm.l1/states/c"].astype(np.int64)},
        {"lstm.l1/lengths": arrays["lstm.l1/lengths"] + 1},
        {"lstm.l1/lengths": arrays["lstm.l1/lengths"].astype(float)},
        {"about": about(version=2)},
        {"about": about(format="another")},
        {"about": about(layers=[{"name": "lstm.l0"}])},
        {"about": np.frombuffer(b"{", np.uint8)},
    ]
    for change in wrong:
        np.savez(path, **(arrays | change))
        with pytest.raises(ArtifactError, match="cannot be read as a trace"):
            Trace.load(path)
    for lost in arrays:
        if lost != "lengths":
            np.savez(path, **{name: each for name, each in arrays.items() if name != lost})
            with pytest.raises(ArtifactError):
                Trace.load(path)


def test_neither_pickles_nor_bombs_are_opened(found: Trace, tmp_path: Path) -> None:
    path = saved(found, tmp_path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez_compressed(path, **arrays)
    with pytest.raises(ArtifactError, match="is compressed"):
        Trace.load(path)
    np.savez(path, **(arrays | {"outputs/0": np.array([object()], dtype=object)}))
    with pytest.raises(ArtifactError, match="allow_pickle"):
        Trace.load(path)
    path.write_bytes(pickle.dumps({"about": 1}))
    with pytest.raises(ArtifactError):
        Trace.load(path)
    huge = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2**40,)}
    np.lib.format.write_array_header_1_0(huge, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("about.npy", huge.getvalue())
    with pytest.raises(ArtifactError):
        Trace.load(path)
    with pytest.raises(ArtifactError, match="There is no file"):
        Trace.load(tmp_path / "none.npz")


def test_nothing_is_half_written(
    found: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(found, tmp_path)
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(trace_file.np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        found.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
