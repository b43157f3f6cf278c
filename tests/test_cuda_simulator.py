"""Run the tests of the CUDA kernels in Numba's simulator, which must be on before Numba loads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(path.name for path in TESTS.glob("test_cuda*.py")
                                        if path.name not in ("test_cuda_simulator.py",
                                                             "test_cuda_ptx.py")))  # fmt: skip
def test_in_the_simulator(file):
    pytest.importorskip("numba_cuda")
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider",
         str(TESTS / file)],
        env=environment, cwd=TESTS.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 10
