"""Shapes, data, measured limits and facts of the machine, which all benchmarks share."""

import os
import statistics

import limits
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from ekmfast import _core, show_config

N_THREADS = int(os.environ.get("EKMFAST_BENCH_THREADS", "2"))

# (N, K, D): some are limited by memory, some by arithmetic; some have many samples, some many
# features.
SHAPES = [
    (1_000_000, 3, 2),
    (1_000_000, 8, 8),
    (200_000, 16, 32),
    (100_000, 64, 128),
    (50_000, 3, 1024),
    (50_000, 512, 128),
]

RATIOS = pytest.StashKey[list]()


def shape_id(shape):
    return "x".join(f"{n // 1000}k" if n >= 10_000 else str(n) for n in shape)


class Problem:
    """Imbalanced overlapping Gaussians, random rows as centroids, and the exact next centroids."""

    def __init__(self, shape, dtype, sharpness=1.0):
        n, k, d = shape
        rng = np.random.default_rng(0)
        sizes = 1.0 / np.arange(1, k + 1)
        # Centres are three standard deviations apart in any dimension. If clusters were well
        # separated, hard k-means would converge in two iterations and could not be timed.
        means = 1.5 * rng.standard_normal((k, d), dtype=np.float32) * np.sqrt(np.float32(2 / d))
        labels = rng.choice(k, size=n, p=sizes / sizes.sum())
        X = rng.standard_normal((n, d), dtype=np.float32)
        X += means[labels]
        self.X = X.astype(dtype, copy=False)
        self.centroids = self.X[rng.choice(n, size=k, replace=False)].copy()
        # The rule alpha="dvariance" at scale 2, for d = 1/2 ||.||^2.
        self.alpha = float(sharpness * 2.0 / (0.5 * X.var(axis=0, dtype=np.float64).sum()))
        self.shape = shape

    def parts(self):
        """Yield slices, rows, 1/2 ||x - c||^2 and Eq. 38, computed in float64 from the formula."""
        C = self.centroids.astype(np.float64)
        rows = max(1, 4_000_000 // (len(C) + C.shape[1]))
        for start in range(0, len(self.X), rows):
            X = self.X[start : start + rows].astype(np.float64)
            d = 0.5 * ((X**2).sum(1)[:, None] + (C**2).sum(1) - 2 * X @ C.T)
            p = np.exp(-self.alpha * (d - d.min(axis=1, keepdims=True)))
            p /= p.sum(axis=1, keepdims=True)
            w = p * (1 - self.alpha * (d - (p * d).sum(axis=1, keepdims=True)))
            yield slice(start, start + rows), X, d, w

    def solve(self):
        """Compute the centroids of Eq. 39, and how much the weights of each centroid cancel."""
        numerator = denominator = magnitude = 0.0
        for _, X, _, w in self.parts():
            numerator = numerator + w.T @ X
            denominator = denominator + w.sum(axis=0)
            magnitude = magnitude + np.abs(w).sum(axis=0)
        self.answer = numerator / denominator[:, None]
        self.cancellation = magnitude / np.abs(denominator)
        return self

    def check_centroids(self, centroids, tolerance=None):
        """Compare with Eq. 39, in units of the data; cancelling weights allow larger errors."""
        if tolerance is None:
            tolerance = 1e-4 if self.X.dtype == np.float32 else 1e-9
        error = np.abs(centroids - self.answer).max(axis=1) / self.cancellation
        assert error.max() <= tolerance * self.X.std(dtype=np.float64)


_last: list = [None, None]


@pytest.fixture
def problem(request):
    """The problem for a ``(shape, dtype, sharpness)``; only the last one stays in memory."""
    if _last[0] != request.param:
        _last[:] = [None, None]
        _last[:] = [request.param, Problem(*request.param).solve()]
    return _last[1]


@pytest.fixture(autouse=True)
def same_threads():
    """Let BLAS and OpenMP, which the peers use, have as many threads as our kernels."""
    with threadpool_limits(N_THREADS):
        yield


@pytest.fixture
def isa(request):
    """Use the kernels of the instruction set in the test's parameter."""
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture
def record_share():
    """Record a time as a share of the machine's limits, which are measured right after it."""

    def record(benchmark, problem, operations, numbers):
        if benchmark.stats is None:  # under --benchmark-disable
            return
        isa, dtype = _core.isa(), str(problem.X.dtype)
        seconds = benchmark.stats.stats.median
        peak, bandwidth = limits.multiply_adds(isa, dtype, N_THREADS), limits.reads(isa, N_THREADS)
        moved = numbers * problem.X.itemsize
        benchmark.extra_info.update(
            isa=isa,
            dtype=dtype,
            shape=problem.shape,
            gflops=operations / seconds / 1e9,
            gflops_limit=peak / 1e9,
            share_of_gflops=operations / seconds / peak,
            gb_s=moved / seconds / 1e9,
            gb_s_limit=bandwidth / 1e9,
            share_of_gb_s=moved / seconds / bandwidth,
        )

    return record


@pytest.fixture
def record_ratio(request):
    """Record ``peer time / our time`` of paired rounds, for the JSON and the final summary."""

    def record(benchmark, peer, problem, peer_times, our_times):
        ratios = sorted(p / o for p, o in zip(peer_times, our_times, strict=True))
        entry = {
            "peer": peer,
            "shape": shape_id(problem.shape),
            "dtype": str(problem.X.dtype),
            "ratio_median": statistics.median(ratios),
            "ratio_min": ratios[0],
            "ratio_max": ratios[-1],
            "rounds": len(ratios),
            "peer_ms": 1e3 * statistics.median(peer_times),
            "our_ms": 1e3 * statistics.median(our_times),
        }
        benchmark.extra_info.setdefault("ratios", []).append(entry)
        request.config.stash.setdefault(RATIOS, []).append(entry)

    return record


def pytest_terminal_summary(terminalreporter, config):
    entries = config.stash.get(RATIOS, [])
    if not entries:
        return
    terminalreporter.section(f"peer time / our time, {N_THREADS} threads")
    line = "{:26} {:>12} {:8} {:>10} {:>9} {:>8}  {}"
    terminalreporter.write_line(
        line.format(
            "peer", "N x K x D", "", "peer ms", "ours ms", "ratio", "(least .. most, rounds)"
        )
    )
    for e in entries:
        spread = f"({e['ratio_min']:.1f} .. {e['ratio_max']:.1f}, {e['rounds']})"
        terminalreporter.write_line(
            line.format(
                e["peer"],
                e["shape"],
                e["dtype"],
                f"{e['peer_ms']:.1f}",
                f"{e['our_ms']:.2f}",
                f"{e['ratio_median']:.2f}",
                spread,
            )
        )


def pytest_benchmark_update_machine_info(config, machine_info):
    """Record facts that may explain a time, without the host's name and the list of CPU flags."""
    machine_info.pop("node", None)
    machine_info.get("cpu", {}).pop("flags", None)
    machine_info["cpu_count"] = os.cpu_count()
    machine_info["load_average"] = os.getloadavg()
    machine_info["ekmfast"] = show_config("dict") | {"bench_threads": N_THREADS}
    # The time of scikit-learn's Lloyd depends on which kernels BLAS chose for this processor.
    machine_info["blas"] = sorted(
        {
            f"{b['internal_api']} {b['version']} {b['architecture']}"
            for b in threadpool_info()
            if b["user_api"] == "blas" and "architecture" in b
        }
    )
