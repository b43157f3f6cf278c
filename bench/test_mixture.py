"""An iteration of expectation maximization against scikit-learn's ``GaussianMixture``.

The time of the peer's iteration is the difference of two fits from the same parameters that differ
only in ``max_iter``. Ours is one pass over the rows and the next mixture from its sums, always from
the same parameters. Both take turns in one process, with as many threads.
"""

import time
import warnings

import numpy as np
import pytest
from conftest import N_THREADS
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from ekmfast.fit.mixture.rows import ScaledRows
from ekmfast.fit.mixture.step import maximization
from ekmfast.fit.mixture.student import StudentMixture

OUR_ITERATIONS = 5
ROUNDS = 5
FEW, MANY = 1, 4

# (N, K, D)
MIXTURES = [(2_000, 5, 10), (20_000, 8, 16), (100_000, 10, 20), (50_000, 10, 64)]


class MixtureProblem:
    """Overlapping Gaussians with shapes, and a mixture from which iterations begin."""

    def __init__(self, shape, dtype, kind, degrees):
        n, k, d = shape
        rng = np.random.default_rng(0)
        # Three standard deviations apart: well separated ones would converge too soon.
        means = 1.5 * rng.standard_normal((k, d)) * np.sqrt(2 / d)
        halves = np.eye(d) + 0.3 * rng.standard_normal((k, d, d)) / np.sqrt(d)
        labels = rng.integers(0, k, n)
        noise = np.einsum("nd,nde->ne", rng.standard_normal((n, d)), halves[labels])
        self.X = (means[labels] + noise).astype(dtype)
        self.shape, self.kind = shape, kind
        scatters = np.broadcast_to(np.eye(d), (k, d, d)) if kind == "full" else np.ones((k, d))
        starts = means + 0.1 * rng.standard_normal((k, d))
        self.start = StudentMixture(
            np.full(k, 1 / k), starts, scatters.copy(), kind, degrees, np.ones(k)
        )[None]
        self.rows = ScaledRows(self.X, None, np.zeros(d), 1.0, N_THREADS)

    def iterate(self):
        sums = self.rows.expectation(self.start)
        return sums, maximization(self.start, sums)

    def peer_fit(self, max_iter):
        start = self.start[0]
        model = GaussianMixture(
            len(start.weights),
            covariance_type=self.kind,
            weights_init=start.weights,
            means_init=start.means,
            precisions_init=1 / start.scatters if self.kind == "diag" else start.scatters,
            max_iter=max_iter,
            tol=np.finfo(float).tiny,
            reg_covar=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(self.X)
        assert model.n_iter_ == max_iter
        return model

    def check(self):
        """Compare the parameters after one iteration, without shrinkage, with the peer's."""
        sums, _ = self.iterate()
        peer = self.peer_fit(1)
        shift = sums.first[0] / sums.mass[0][:, None]
        tolerance = 1e-4 if self.X.dtype == np.float32 else 1e-9
        np.testing.assert_allclose(self.start.means[0] + shift, peer.means_, atol=tolerance)
        mass = sums.mass[0].reshape(-1, *(1,) * (sums.second.ndim - 2))
        outer = shift**2 if self.kind == "diag" else shift[:, :, None] * shift[:, None]
        second = sums.second[0] / mass - outer
        np.testing.assert_allclose(second, peer.covariances_, atol=10 * tolerance)


def seconds(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["full", "diag"])
@pytest.mark.parametrize("shape", MIXTURES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.benchmark(group="mixture: one iteration")
def test_gaussian_iteration(benchmark, record_ratio, shape, kind, dtype):
    problem = MixtureProblem(shape, dtype, kind, np.inf)
    problem.check()
    times = []

    def time_peer():
        short = seconds(problem.peer_fit, FEW)
        times.append((seconds(problem.peer_fit, MANY) - short) / (MANY - FEW))
        time.sleep(0.1)  # until the peer's threads sleep
        problem.iterate()

    def ours():
        for _ in range(OUR_ITERATIONS):
            problem.iterate()

    benchmark.pedantic(ours, setup=time_peer, rounds=ROUNDS)
    if benchmark.stats is None:  # under --benchmark-disable
        return
    benchmark.extra_info["iterations_per_round"] = OUR_ITERATIONS
    our_times = [t / OUR_ITERATIONS for t in benchmark.stats.stats.data]
    record_ratio(benchmark, f"GaussianMixture, {kind}", problem, times, our_times)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("degrees", [8.0, np.inf])
@pytest.mark.parametrize("kind", ["full", "diag"])
@pytest.mark.parametrize("shape", MIXTURES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.benchmark(group="mixture: sums of a pass")
def test_pass(benchmark, record_share, shape, kind, degrees, dtype):
    problem = MixtureProblem(shape, dtype, kind, degrees)
    sums = benchmark(problem.rows.expectation, problem.start)
    n, k, d = shape
    assert sums.mass.sum() == pytest.approx(n, rel=1e-5)
    # A triangle of multiply-adds for the distances and one for the moments; of variances, one
    # multiply-add a number for z, ||z||^2, c and both moments.
    operations = 2 * n * k * d * (d + 1) if kind == "full" else 10 * n * k * d
    record_share(benchmark, problem, operations, n * d)
