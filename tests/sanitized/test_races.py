"""ThreadSanitizer on the thread pool and on the kernels, in a program without Python."""

import pytest
from builds import try_to_run
from test_isa_files import ROOT

CHECKS = ROOT / "tests" / "native" / "check_threads.cpp"


@pytest.fixture(scope="module")
def program(threads_build):
    return threads_build.link("checks", CHECKS)


def test_threads_do_not_race(program):
    done = try_to_run(program)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("\n0 wrong\n")


def test_threads_may_compute_while_the_process_ends(program):
    done = try_to_run(program, "exit")
    assert (done.returncode, done.stdout) == (0, "main returns\n"), done.stderr


def test_a_planted_race_is_reported(threads_build, changed):
    """A list that several threads use, without its lock: all else is as in the first test."""
    lock = "    std::lock_guard<std::mutex> lock(mutex_);\n    if (!free_"
    unlocked = changed("ordered_sum.cpp", lock, "    if (!free_")
    done = try_to_run(threads_build.link("planted", CHECKS, instead=(unlocked,)))
    assert done.returncode != 0
    assert "ThreadSanitizer: data race" in done.stderr
