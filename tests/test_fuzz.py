"""The fuzzer of the binding (fuzz.py), and the faults that it has found."""

import os
import re
import subprocess
import sys
from pathlib import Path

import fuzz
import numpy as np
import pytest

import ekmfast
from ekmfast import _core, ekm_statistics, kernels

FUZZ = Path(fuzz.__file__)
CALLS = 4000
C = np.zeros((2, 3))


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(ekmfast.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=600,  # a call that does not return, not a measure of speed
        **options,
    )


def test_calls_with_arguments_of_all_kinds(tmp_path):
    log = tmp_path / "number"
    done = run("-X", "faulthandler", FUZZ, "--calls", CALLS, "--log", log)
    assert done.returncode == 0, f"call {log.read_text().strip()} of seed 0: {done.stderr}"
    ends = dict(re.findall(r"^(\S+ (?:returned|refused)) +(\d+)$", done.stdout, re.MULTILINE))
    assert sum(map(int, ends.values())) == CALLS
    # Each function has both taken and refused arguments.
    assert ends.keys() == {
        f"{name} {end}" for name in fuzz.MAKERS for end in ("returned", "refused")
    }


def test_every_function_is_called():
    text = FUZZ.read_text()
    compiled = {name for name in dir(_core) if callable(getattr(_core, name)) and name[0] != "_"}
    assert compiled <= set(re.findall(r"_core\.(\w+)", text))
    public = set(kernels.__all__) - {"Statistics"}  # what functions return
    assert public <= set(re.findall(r"kernels\.(\w+)", text))


def call_of(function):
    memory = fuzz.Memory()
    a = fuzz.Arguments(np.random.default_rng(0), memory)
    a.n, a.k, a.d = 20, 3, 4
    call = fuzz.core_weights(a)
    memory.before = [room.copy() for room in memory.rooms]
    call.function = function
    fuzz.attempt(call)
    memory.check(call.written())


def test_the_fuzzer_takes_what_is_right():
    call_of(_core.weights)


def test_the_fuzzer_notices_a_wrong_result():
    def wrong(out, **others):
        _core.weights(out=out, **others)
        out[7, 1] += 1e-3

    with pytest.raises(fuzz.FaultError, match="weights is wrong by"):
        call_of(wrong)


@pytest.mark.parametrize("name", ["X", "centroids"])
def test_the_fuzzer_notices_a_changed_input(name):
    def wrong(**arguments):
        _core.weights(**arguments)
        arguments[name].view(np.uint8)[0, 0] ^= 1  # the last bit of a number

    with pytest.raises(fuzz.FaultError, match="was changed"):
        call_of(wrong)


def test_the_fuzzer_notices_a_refusal_of_good_arguments():
    def wrong(**arguments):
        raise ValueError("no")

    with pytest.raises(fuzz.FaultError, match="good arguments were refused"):
        call_of(wrong)


@pytest.mark.skipif(sys.platform != "linux", reason="the fuzzer guards pages only on Linux")
def test_a_read_beyond_an_array_ends_the_fuzzer():
    code = f"""
import sys; sys.path.insert(0, {str(FUZZ.parent)!r})
import ctypes, fuzz
room = fuzz.Memory().guarded[0]
ctypes.string_at(room.ctypes.data + room.size - 1, 1)
print("inside", flush=True)
ctypes.string_at(room.ctypes.data + room.size, 1)
"""
    done = run("-c", code)
    assert done.stdout == "inside\n"
    assert done.returncode < 0  # a signal


# --------------------------------------------------------------------------------------------------
# Faults that were found


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_labels_that_overlap_the_distances_are_refused(dtype):
    """Labels are read again, as indices of centroids, after distances were written over them."""
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(dtype)
    room = np.zeros(400, np.uint8)
    labels = room[:80].view(np.int32)
    for start in (0, 8, 72):
        with pytest.raises(ValueError, match="must not overlap"):
            _core.assign(X, C, labels, room[start : start + X[:, 0].nbytes].view(dtype), 1)
    _core.assign(X, C, labels, room[80 : 80 + X[:, 0].nbytes].view(dtype), 1)


def solver():
    made = _core.Solver(C[None].copy(), np.ones(1), 0, 0, 0, 2, False, None, None)
    return made, made.get_run(0)


@pytest.mark.parametrize("past", [[(None, None)], [(C, None)], [(C, C[:1])], [(C,)], [C], [7], 7])
def test_states_whose_past_does_not_fit_are_refused(past):
    """The next step would read beyond their arrays."""
    made, state = solver()
    with pytest.raises((ValueError, TypeError)):
        made.set_run(0, {**state, "past": past})
    made.set_run(0, {**state, "past": [(C, C)]})


@pytest.mark.parametrize("name", ["n_iter", "n_jumps", "n_still", "n_halvings"])
def test_states_whose_counts_would_overflow_are_refused(name):
    made, state = solver()
    for count in (-1, 2**63 - 1):
        with pytest.raises(ValueError, match=name):
            made.set_run(0, {**state, name: count})
    with pytest.raises(TypeError, match=name):
        made.set_run(0, {**state, name: 2**63})


@pytest.mark.parametrize("name", ["alpha", "history", "done", "centroids", "step", "past"])
def test_states_of_wrong_types_are_refused(name):
    made, state = solver()
    with pytest.raises(TypeError):
        made.set_run(0, {**state, name: object()})


def test_unaligned_sums_are_refused():
    def shifted(*shape):
        return np.ndarray(shape, np.float64, np.zeros(200, np.uint8), 1)

    with pytest.raises(ValueError, match="must be aligned"):
        _core.plausible_update(3, shifted(2, 3), np.ones(2), False)
    for which in range(6):
        sums = [np.ones(1), np.ones((1, 2, 3)), *np.ones((3, 1, 2)), np.ones(1)]
        sums[which] = shifted(*sums[which].shape)
        with pytest.raises(ValueError, match="must be aligned"):
            _core.plausible_sums(3, *sums, False)
    with pytest.raises(ValueError, match="must be aligned"):
        _core.exp2_kernel(shifted(3))


def test_a_weight_so_small_that_its_products_are_zero_is_named():
    with pytest.raises(ValueError, match="sample_weight of at most"):
        ekm_statistics([[0.0, 0.0]], [[0.1, 0.0], [0.2, 0.0]], 1.0, sample_weight=[5e-324])
