"""Threads: after a fork, in parallel calls, within limits, and without the GIL."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import threadpoolctl

from ekmfast import EKMeans, ekm_step
from ekmfast.rows import threads as _threads
from ekmfast.rows.threads import SMALL, one_blas_thread

# Large enough that every call uses two threads (see useful_threads in ekm.cpp).
RNG = np.random.default_rng(0)
X = RNG.normal(size=(20_000, 16))
C = RNG.normal(size=(8, 16))


def step(n_threads=2):
    return ekm_step(X, C, 1.0, n_threads=n_threads)[0]


def step_of(X, C):
    return ekm_step(X, C, 1.0, n_threads=2)[0], _threads.get_num_threads()


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,  # a deadlock, not a measure of speed
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_call_after_fork():
    code = """
import os, numpy as np
from ekmfast import EKMeans, ekm_step
rng = np.random.default_rng(0)
X, C = rng.normal(size=(20_000, 16)), rng.normal(size=(8, 16))
before = ekm_step(X, C, 1.0, n_threads=2)[0]  # starts the pool
child = os.fork()
if child == 0:
    same = all((ekm_step(X, C, 1.0, n_threads=2)[0] == before).all() for _ in range(3))
    os._exit(0 if same else 7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert (ekm_step(X, C, 1.0, n_threads=2)[0] == before).all()  # the parent's pool still works
print("done")
"""
    # The fork comes with threads running, which is what is tested; Python 3.12 warns of it.
    assert run(code, PYTHONWARNINGS="ignore::DeprecationWarning") == "done"


def test_calls_side_by_side_give_the_same_bits():
    expected = step(1)
    with ThreadPoolExecutor(8) as pool:
        for got in pool.map(lambda _: step(2), range(64)):
            np.testing.assert_array_equal(got, expected)


def test_more_threads_than_processors():
    np.testing.assert_array_equal(step(64), step(1))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib(backend):
    expected = step(1)
    with joblib.parallel_config(backend, n_jobs=2):
        for got, _ in joblib.Parallel()(joblib.delayed(step_of)(X, C) for _ in range(4)):
            np.testing.assert_array_equal(got, expected)


def test_threadpool_limits():
    before = _threads.get_num_threads()
    with threadpoolctl.threadpool_limits(5):
        assert _threads.get_num_threads() == 5
        with threadpoolctl.threadpool_limits(1):
            assert _threads.get_num_threads() == 1
            assert _threads.check_n_threads(None) == 1
            assert _threads.check_n_threads(3) == 3  # what the caller says goes
        assert _threads.get_num_threads() == 5
    assert _threads.get_num_threads() == before
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        assert _threads.get_num_threads() == before


def test_limits_beyond_what_c_can_count():
    before = _threads.get_num_threads()
    with threadpoolctl.threadpool_limits(2**31 + 1, user_api="ekmfast"):
        assert _threads.get_num_threads() == 2**31 - 1
        np.testing.assert_array_equal(ekm_step(X, C, 1.0)[0], step(1))
    assert _threads.get_num_threads() == before


@pytest.mark.parametrize("n_threads", [0, -1, 2**31, 10**400, 10**5000], ids=range(5))
def test_n_threads_out_of_range(n_threads):
    most = " and <= 2147483647" if n_threads > 0 else ""
    with pytest.raises(ValueError, match=f"n_threads must be None or an integer >= 1{most}, got"):
        _threads.check_n_threads(n_threads)


def test_threadpool_info():
    [entry] = [e for e in threadpoolctl.threadpool_info() if e["user_api"] == "ekmfast"]
    assert entry["num_threads"] == _threads.get_num_threads()


@pytest.mark.parametrize(
    ("value", "threads"),
    [
        ("1", 1),
        ("3", 3),
        ("2,4", 2),
        ("0000000000005", 5),
        (5000 * "0" + "5", 5),
        ("2147483647", 2**31 - 1),
    ],
)
def test_omp_num_threads(value, threads):
    code = "import ekmfast; print(ekmfast.rows.threads.get_num_threads())"
    assert int(run(code, OMP_NUM_THREADS=value)) == threads


@pytest.mark.parametrize(
    "value", ["", "0", "-1", "many", "2147483648", "99999999999", 5000 * "9", "\u00b2", " , "]
)
def test_omp_num_threads_that_says_nothing(value):
    code = "import ekmfast; print(ekmfast.rows.threads.get_num_threads())"
    assert int(run(code, OMP_NUM_THREADS=value)) == joblib.cpu_count()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux's /proc")
def test_the_threads_asked_for_are_started():
    code = """
import os, numpy as np
from ekmfast import EKMeans, ekm_step
X, C = np.random.default_rng(0).normal(size=(20_000, 16)), np.eye(8, 16)
before = len(os.listdir("/proc/self/task"))
for n in (1, 3):
    ekm_step(X, C, 1.0, n_threads=n)
    print(len(os.listdir("/proc/self/task")) - before)
"""
    assert run(code).split() == ["0", "2"]


def test_the_lock_of_the_interpreter_is_released():
    # The watcher gets the GIL only where another thread releases it, since the interpreter is set
    # not to switch threads by itself.
    long_X = np.repeat(X, 20, axis=0)
    state, seen = ["outside"], set()

    def watch():
        while state[0] != "stop":
            seen.add(state[0])
            time.sleep(1e-4)

    interval = sys.getswitchinterval()
    watcher = threading.Thread(target=watch)
    sys.setswitchinterval(1000)
    try:
        watcher.start()
        for _ in range(5):
            state[0] = "inside"
            ekm_step(long_X, C, 1.0, n_threads=1)
            state[0] = "outside"
    finally:
        state[0] = "stop"
        sys.setswitchinterval(interval)
        watcher.join()
    assert "inside" in seen


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or len(os.sched_getaffinity(0)) < 2,
    reason="needs Linux and two processors",
)
def test_helpers_keep_off_the_callers_processor():
    code = """
import os, numpy as np
from ekmfast import EKMeans, ekm_step
X = np.random.default_rng(0).normal(size=(20_000, 16))
before = set(os.listdir("/proc/self/task"))
allowed = sorted(os.sched_getaffinity(0))
for here in allowed[:2]:  # moves, as the system may move it
    os.sched_setaffinity(0, {here})
    os.sched_setaffinity(0, allowed)
    ekm_step(X, X[:8], 1.0, n_threads=2)
    (helper,) = set(os.listdir("/proc/self/task")) - before
    others = os.sched_getaffinity(int(helper))
    assert others < set(allowed) and len(others) == len(allowed) - 1, others
    assert os.sched_getaffinity(0) == set(allowed)  # the caller's is its own affair
os.sched_setaffinity(0, allowed[:1])  # no other processor: the same bits all the same
one = ekm_step(X, X[:8], 1.0, n_threads=1)[0]
assert (ekm_step(X, X[:8], 1.0, n_threads=2)[0] == one).all()
print("done")
"""
    # Only threads of our pool may run, since threads of BLAS could not be distinguished.
    assert run(code, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1") == "done"


def test_helpers_that_come_late_change_nothing():
    """Other threads keep both processors busy, and every call gives the same bits."""
    expected = step(1)
    stop = threading.Event()

    def spin():
        a = np.ones(200_000)
        while not stop.is_set():
            np.sqrt(a)  # releases the GIL

    spinners = [threading.Thread(target=spin) for _ in range(3)]
    for thread in spinners:
        thread.start()
    try:
        for _ in range(200):
            np.testing.assert_array_equal(step(2), expected)
    finally:
        stop.set()
        for thread in spinners:
            thread.join()


class Blas:
    """A library with a number of threads."""

    num_threads = 5

    def set_num_threads(self, n_threads):
        self.num_threads = n_threads


@pytest.fixture
def blas(monkeypatch):
    found = Blas()
    monkeypatch.setattr(_threads, "_blas_libraries", lambda: [found])
    return found


def test_small_matrices_use_one_thread_of_the_blas(blas):
    def fail():
        with one_blas_thread(10):
            assert blas.num_threads == 1
            raise ZeroDivisionError

    with one_blas_thread(10):
        assert blas.num_threads == 1
        with pytest.raises(ZeroDivisionError):
            fail()
        assert blas.num_threads == 1
    assert blas.num_threads == 5
    with one_blas_thread(SMALL + 1):
        assert blas.num_threads == 5


def test_the_blas_has_its_threads_again_when_the_last_of_some_fits_ends(blas):
    inside, leave = threading.Barrier(3, timeout=60), [threading.Event() for _ in range(2)]

    def work(number):
        with one_blas_thread(10):
            inside.wait()
            leave[number].wait(60)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    inside.wait()
    for number in (0, 1):
        assert blas.num_threads == 1
        leave[number].set()
        threads[number].join(60)
    assert blas.num_threads == 5


def test_fits_use_one_thread_of_the_blas(blas, monkeypatch):
    eigh, during = np.linalg.eigh, []

    def watched(matrix):
        during.append(blas.num_threads)
        return eigh(matrix)

    monkeypatch.setattr(np.linalg, "eigh", watched)
    codes = RNG.normal(size=(300, 2)) @ RNG.normal(size=(2, 8)) + RNG.normal(size=(300, 8)) * 0.01
    EKMeans(2, random_state=0).fit(codes)
    assert during
    assert set(during) == {1}
    assert blas.num_threads == 5


def test_the_libraries_of_the_blas_are_those_of_threadpoolctl():
    found = threadpoolctl.ThreadpoolController().info()
    names = {library["filepath"] for library in found if library["user_api"] == "blas"}
    assert {library.filepath for library in _threads._blas_libraries()} <= names
