"""The machine in words, and the most multiply-adds that it can do in a second."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.kernels.plan import AVX2

PACKAGES = ("torch", "numpy", "onnxruntime", "jax", "keras", "hiddenstate")
INSTRUCTIONS = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd")
# Many short tries over a second: one of them finds the machine undisturbed.
PEAK_STEPS, PEAK_TRIES, PAUSE_S = 2_000_000, 50, 0.01


def describe() -> dict[str, Any]:
    """Return processor, cores, instruction sets and versions."""
    processor, flags = platform.processor() or platform.machine(), set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        facts = dict(
            (part.strip() for part in line.split(":", 1))
            for line in cpuinfo.read_text().splitlines()
            if ":" in line
        )
        named = [facts.get(key) for key in ("model name", "cpu family", "model")]
        if all(named):
            processor = "{}, family {}, model {}".format(*named)
        flags = set(facts.get("flags", facts.get("Features", "")).split())
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "instruction sets": [name for name in INSTRUCTIONS if name in flags],
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


class Others:
    """How busy other processes keep the machine while this one only waits for its children."""

    def __init__(self) -> None:
        """Begin to watch."""
        self._began, self._all, self._own = time.perf_counter(), _busy_s(), _children_s()

    def cores(self) -> float | None:
        """Return the mean number of cores that others kept busy; None where it is not known."""
        busy = _busy_s()
        if busy is None or self._all is None:
            return None
        wall = time.perf_counter() - self._began
        return max(0.0, (busy - self._all - (_children_s() - self._own)) / wall)


def _busy_s() -> float | None:
    """Return the seconds of all cores' work since the start, what a hypervisor took included."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _, _, interrupts, soft, stolen, *_ = map(
        int, stat.read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _children_s() -> float:
    times = os.times()
    return times.children_user + times.children_system


def compiled(name: str, variant: str) -> ctypes.CDLL | None:
    """Compile a file of this folder for this machine and load it; None without a compiler."""
    flags = describe()["instruction sets"]
    lanes, options = 4, ["-mcpu=native"]
    if "avx2" in flags:
        lanes, options = 8, ["-mavx2", "-mfma"]
    if "avx512f" in flags and variant != AVX2:
        lanes, options = 16, ["-march=native", "-mprefer-vector-width=512"]
    source = Path(__file__).with_name(name)
    with tempfile.TemporaryDirectory() as folder:
        target = f"{folder}/peak.so"
        compiler = [os.environ.get("CXX", "c++"), "-std=c++20", "-O3", "-shared", "-fPIC"]
        try:
            subprocess.run(
                [*compiler, f"-DPEAK_LANES={lanes}", *options, str(source), "-o", target],
                check=True,
                capture_output=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        return ctypes.CDLL(target)


def peak_flops(threads: int, variant: str) -> float | None:
    """Measure floating-point operations a second on so many threads; None without a compiler."""
    library = compiled("peak.cpp", variant)
    if library is None:
        return None
    library.multiply_add.restype = ctypes.c_double
    library.multiply_add.argtypes = [ctypes.c_long]
    operations = PEAK_STEPS * library.lanes() * library.chains() * 2 * threads
    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(PEAK_TRIES):
            began = time.perf_counter()
            list(pool.map(library.multiply_add, [PEAK_STEPS] * threads))
            seconds.append(time.perf_counter() - began)
            time.sleep(PAUSE_S)
    return float(operations / min(seconds))
