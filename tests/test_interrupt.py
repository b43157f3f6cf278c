"""Signals during a call: Ctrl-C ends it, and handlers may call the package."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from ekmfast import EKMeans, ekm_step
from ekmfast.fit.solver import solve
from ekmfast.rows.array import ArrayRows

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(100_000, 64))
# Some 350 Gflop in one call: seconds, of which a test sees a few tenths.
MANY = RNG.normal(size=(200, 64, 64))
SMALL = X[:20_000, :16].copy(), MANY[0, :8, :16].copy()


@pytest.fixture(autouse=True)
def python_handles_ctrl_c():
    """What a shell starts in the background has Ctrl-C ignored, and Python leaves it at that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class EnoughError(Exception):
    pass


@pytest.fixture
def every_fifty_ms():
    """Calls a function 20 times a second, from the handler of a signal."""
    before = signal.getsignal(signal.SIGALRM)

    def start(handler):
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)

    yield start
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_ctrl_c_ends_a_call():
    before = ekm_step(*SMALL, 1.0, n_threads=2)[0]
    timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ekm_step(X, MANY, 1.0, n_threads=2)
    timer.join()
    np.testing.assert_array_equal(ekm_step(*SMALL, 1.0, n_threads=2)[0], before)


@pytest.mark.parametrize("n_threads", [1, 2])
def test_handlers_run_during_a_call(every_fifty_ms, n_threads):
    calls = []
    before = ekm_step(*SMALL, 1.0, n_threads=2)[0]

    def handler():
        calls.append(ekm_step(*SMALL, 1.0, n_threads=2)[0])  # a kernel called during another one
        if len(calls) == 3:
            raise EnoughError

    every_fifty_ms(handler)
    with pytest.raises(EnoughError):
        # If handlers ran only at the end of the single call, it would return.
        ekm_step(X, MANY, 1.0, n_threads=n_threads)
    assert all((found == before).all() for found in calls)


def test_ctrl_c_ends_a_fit():
    timer = threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT))
    model = EKMeans(64, alpha="dvariance", n_init=50, max_iter=100_000, tol=0.0, random_state=0)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    timer.join()
    assert not hasattr(model, "cluster_centers_")
    two = np.concatenate([X[:500, :2], X[500:550, :2] + 9])
    model.set_params(n_clusters=2, n_init=1, tol=1e-3).fit(two)
    assert sorted(np.bincount(model.labels_)) == [50, 500]


def test_a_call_in_another_thread_is_left_alone(every_fifty_ms):
    caught, found = [], []

    def handler():
        caught.append(True)

    def work():
        found.extend(ekm_step(X, MANY[:20], 1.0, n_threads=1)[0] for _ in range(2))

    every_fifty_ms(handler)
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    assert caught
    np.testing.assert_array_equal(found[0], found[1])


def run_python(code):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize(("n_samples", "n_problems"), [(100_000, 200), (300, 1)])
def test_daemon_threads_end_with_the_process(n_samples, n_problems, n_threads):
    """A thread is in a long call, or returns from short calls, while the interpreter exits."""
    done = run_python(f"""
        import threading, time
        import numpy as np
        from ekmfast import ekm_step

        rng = np.random.default_rng(0)
        X = rng.normal(size=({n_samples}, 64))
        centroids = rng.normal(size=({n_problems}, 16, 64))

        def work():
            while True:
                ekm_step(X, centroids, 1.0, n_threads={n_threads})

        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.25)
        print("end")
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_ctrl_c_ends_a_call_after_a_fork_in_another_thread():
    """A thread forks, and becomes the main thread of the child."""
    done = run_python("""
        import os, signal, threading, warnings
        import numpy as np
        from ekmfast import ekm_step

        rng = np.random.default_rng(0)
        X, centroids = rng.normal(size=(100_000, 64)), rng.normal(size=(200, 64, 64))
        # Python 3.12 and later: the fork beside a thread is what is tried here.
        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)

        def child():
            signal.signal(signal.SIGINT, signal.default_int_handler)
            threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
            try:
                ekm_step(X, centroids, 1.0, n_threads=1)
            except KeyboardInterrupt:
                os._exit(7)
            os._exit(0)

        def fork():
            pid = os.fork()
            if pid == 0:
                child()
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_child_forked_by_a_handler_finishes_the_call(n_threads):
    """The child has none of the pool's threads, and computes the whole result again."""
    done = run_python(f"""
        import os, signal, warnings
        import numpy as np
        from ekmfast import ekm_step

        rng = np.random.default_rng(0)
        X, centroids = rng.normal(size=(50_000, 64)), rng.normal(size=(40, 64, 64))
        expected = ekm_step(X, centroids, 1.0, n_threads=1)[0]
        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
        parent, children = os.getpid(), []

        def handler(*_):
            signal.setitimer(signal.ITIMER_REAL, 0)
            children.append(os.fork())

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        same = (ekm_step(X, centroids, 1.0, n_threads={n_threads})[0] == expected).all()
        if os.getpid() != parent:
            os._exit(7 if same else 1)
        print(same, os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True 7\n", "")


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_child_forked_by_a_handler_finishes_the_passes(n_threads):
    """Of many runs, which the threads of the pool make apart from each other or together."""
    done = run_python(f"""
        import os, signal, warnings
        import numpy as np
        from ekmfast.fit.solver import solve
        from ekmfast.rows.array import ArrayRows

        rng = np.random.default_rng(0)
        X = rng.normal(size=(3_000, 32))
        starts = rng.normal(size=(64, 40, 32))

        def ends(n_alphas, n_threads):
            alphas = np.repeat(np.linspace(0.1, 0.4, n_alphas), 64 // n_alphas)
            options = dict(tol=0.0, radius=1.0, resolution=1e-13, max_iter=12, compete=True)
            runs = solve(ArrayRows(X, None, n_threads), starts, alphas, **options)
            return np.stack([run.centroids for run in runs])

        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
        parent, children = os.getpid(), []

        def handler(*_):
            signal.setitimer(signal.ITIMER_REAL, 0)
            children.append(os.fork())

        signal.signal(signal.SIGALRM, handler)
        for n_alphas in (8, 1):
            expected = ends(n_alphas, 1)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            same = (ends(n_alphas, {n_threads}) == expected).all()
            if os.getpid() != parent:
                os._exit(7 if same else 1)
            print(same, os.waitstatus_to_exitcode(os.waitpid(children.pop(), 0)[1]))
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True 7\nTrue 7\n", "")


def test_a_child_forked_by_a_handler_finishes_the_passes_over_sparse_rows():
    """Each of them serves one run, so that some runs may have had one more than the others."""
    done = run_python("""
        import os, signal, time, warnings
        import numpy as np
        from scipy.sparse import csr_matrix
        from ekmfast import _core
        from ekmfast.fit.solver import solve
        from ekmfast.rows.sparse import SparseRows

        # So much work that the handler is called while threads share some of it.
        _core.set_isa("base")
        rng = np.random.default_rng(0)
        n, stored, d, k = 14_000, 1_000, 2_000, 70
        start = np.arange(0, n * stored + 1, stored)
        columns = np.tile(np.arange(stored, dtype=np.int32), n)
        X = csr_matrix((rng.normal(size=n * stored), columns, start), (n, d))
        starts = X[rng.integers(0, n, 3 * k)].toarray().reshape(3, k, d)

        def ends():
            options = dict(tol=0.0, radius=1.0, resolution=1e-13, max_iter=2, compete=True)
            runs = solve(SparseRows(X, None, 2), starts, 1e-2, **options)
            return np.stack([run.centroids for run in runs]), [run.n_iter for run in runs]

        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
        parent, children = os.getpid(), []

        def handler(*_):
            signal.setitimer(signal.ITIMER_REAL, 0)
            children.append(os.fork())

        signal.signal(signal.SIGALRM, handler)
        began = time.monotonic()
        expected = ends()
        signal.setitimer(signal.ITIMER_REAL, 0.4 * (time.monotonic() - began))
        found = ends()
        same = (found[0] == expected[0]).all() and found[1] == expected[1] == [2] * 3
        if os.getpid() != parent:
            os._exit(7 if same else 1)
        print(same, os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True 7\n", "")


@pytest.mark.parametrize("n_alphas", [8, 1])
def test_ctrl_c_ends_passes_of_many_runs(n_alphas):
    starts = MANY[:, :16, :]
    alphas = np.resize(np.linspace(0.1, 0.4, n_alphas), len(starts))
    threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        solve(
            ArrayRows(X[:9_000], None, 2),
            starts,
            alphas,
            tol=0.0,
            radius=1.0,
            resolution=1e-13,
            max_iter=100_000,
            compete=True,
        )


def test_ctrl_c_of_a_handler_that_forked_ends_the_childs_call():
    done = run_python("""
        import os, signal, warnings
        import numpy as np
        from ekmfast import ekm_step

        rng = np.random.default_rng(0)
        X, centroids = rng.normal(size=(50_000, 64)), rng.normal(size=(40, 64, 64))
        warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
        children = []

        def handler(*_):
            signal.setitimer(signal.ITIMER_REAL, 0)
            children.append(os.fork())
            if children[0] == 0:
                raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        try:
            ekm_step(X, centroids, 1.0, n_threads=2)
        except KeyboardInterrupt:
            again = ekm_step(X[:20_000], centroids[0], 1.0, n_threads=2)[0]  # a pool of its own
            os._exit(7 if np.isfinite(again).all() else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
        """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "7\n", "")
