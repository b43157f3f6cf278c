"""Our kernel and torch's in turns, in separate processes; see torch_alternation.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
SCRIPT = Path(__file__).with_name("torch_alternation.py")


@pytest.mark.parametrize("arguments", [("small", "1"), ("small",), ("large",)], ids="-".join)
@pytest.mark.parametrize("first", ["torch", "ekmfast"])
@pytest.mark.benchmark(group="in turns with torch")
def test_in_turns_with_torch(benchmark, first, arguments):
    """The time is that of a process; the result is the ratio that the process prints."""

    def run():
        done = subprocess.run(
            [sys.executable, SCRIPT, first, *arguments], capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    result = benchmark.pedantic(run, rounds=1)
    benchmark.extra_info.update(result)
    assert result["ratio_median"] > 0.5  # a smaller ratio would mean that the clock is wrong
