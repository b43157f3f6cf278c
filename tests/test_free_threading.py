"""Eight threads at once, with and without the GIL: the bits of one thread."""

import subprocess
import sys
import sysconfig
import threading

import numpy as np
import pytest
import threadpoolctl

import ekmfast
from ekmfast import EKMeans, MiniBatchEKMeans, assign, blocks, compute_weights, ekm_statistics, load
from ekmfast import save as save_model

N_THREADS = 8
ROUNDS = 10
RNG = np.random.default_rng(0)
# Large enough that a pass uses two threads of the pool (see useful_threads in ekm.cpp).
X = np.vstack([RNG.normal(at, 1, (n, 4)) for at, n in ((0, 20_000), (6, 3_000), (-7, 1_000))])
C = RNG.normal(size=(6, 4))
WEIGHT = RNG.random(len(X))
X.flags.writeable = WEIGHT.flags.writeable = False  # all threads read the same arrays


def at_once(work):
    """``work(number)`` in eight threads that begin together; its results, in order."""
    together = threading.Barrier(N_THREADS, timeout=60)
    results, errors = [None] * N_THREADS, []

    def run(number):
        try:
            together.wait()
            results[number] = work(number)
        except BaseException as error:  # handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)  # a deadlock, not a measure of speed
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]
    return results


def check_equal(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has the GIL"
)
def test_the_gil_stays_disabled():
    # A module that needs the GIL would enable it, with a warning, which is an error here.
    code = "import sys, ekmfast; ekmfast.EKMeans; sys.exit(sys._is_gil_enabled())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def kernels(n_threads):
    sums = ekm_statistics(X, C, 0.5, sample_weight=WEIGHT, n_threads=n_threads)
    return (
        sums.sum_wx,
        sums.sum_w,
        sums.objective,
        *assign(X, C, n_threads=n_threads),
        compute_weights(X, C, 0.5, n_threads=n_threads),
    )


def test_kernels_on_one_array():
    expected = kernels(1)

    def work(number):
        return [kernels(1 + (number + i) % 4) for i in range(ROUNDS)]

    for results in at_once(work):
        for got in results:
            check_equal(got, expected)


def fitted(model):
    return model.cluster_centers_, model.labels_, model.alpha_, model.objective_, model.n_iter_


def test_every_thread_fits_its_own_estimator():
    # Different problems, so that mixed-up results would be seen.
    def work(number):
        model = EKMeans(2 + number % 3, random_state=number, max_iter=30, tol=1e-2)
        return fitted(model.fit(X, sample_weight=WEIGHT if number % 2 else None))

    expected = [work(number) for number in range(N_THREADS)]
    for got, alone in zip(at_once(work), expected, strict=True):
        check_equal(got, alone)


def test_all_threads_use_one_fitted_estimator(tmp_path):
    model = EKMeans(3, random_state=0).fit(X)
    save_model(model, tmp_path / "model.npz")

    def work(_=0):
        loaded = load(tmp_path / "model.npz")
        return (
            model.predict(X),
            model.transform(X),
            model.membership(X),
            np.array(model.score(X)),
            loaded.predict(X),
        )

    expected = work()
    for got in at_once(work):
        check_equal(got, expected)


def test_one_set_of_blocks_and_batches():
    data = blocks.from_arrays(np.array_split(X, 7))

    def work(number):
        if number % 2:
            model = EKMeans(3, random_state=number, max_iter=30, tol=1e-2).fit(data)
            return model.cluster_centers_, model.objective_
        model = MiniBatchEKMeans(3, batch_size=2000, max_iter=5, random_state=number, tol=1e-2)
        return model.fit(X).cluster_centers_, model.labels_

    expected = [work(number) for number in range(N_THREADS)]
    for got, alone in zip(at_once(work), expected, strict=True):
        check_equal(got, alone)


def test_thread_counts_that_change_meanwhile():
    """The default number of threads belongs to the process; no bit depends on it."""
    before = ekmfast.rows.threads.get_num_threads()
    expected = kernels(None)

    def work(number):
        if number % 2:
            return [kernels(None) for _ in range(ROUNDS)]
        for count in range(1, 40):
            with threadpoolctl.threadpool_limits(1 + count % 5, user_api="ekmfast"):
                assert 1 <= ekmfast.rows.threads.get_num_threads() <= 5
        return []

    try:
        for results in at_once(work):
            for got in results:
                check_equal(got, expected)
    finally:
        ekmfast._core.set_num_threads(before)
