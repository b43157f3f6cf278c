"""What a pass starts on the GPU, recorded once and repeated by the driver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import finalize

from ekmfast.rows.cuda.compiler import NAME, SIMULATED, cuda
from ekmfast.rows.cuda.layer import run_on, stream_handle

if not SIMULATED:
    from cuda.bindings import driver

# numba-cuda-mlir was not tried.
POSSIBLE = not SIMULATED and NAME == "numba-cuda"


def _checked(result: tuple[Any, ...]) -> Any:
    if result[0]:
        raise RuntimeError(f"a pass could not be recorded or repeated: {result[0].name}")
    return result[1] if len(result) > 1 else None


class Recording:
    """A CUDA graph of the kernels and copies that a function starts.

    Starting them one by one takes Python longer than the GPU needs to run them, where rows or
    centroids are few. The function must have run before, so that all kernels are compiled and all
    arrays exist, and each repetition uses the same arrays.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        # The default stream cannot be recorded. It waits for all streams but those with this flag,
        # so that other threads could not use it while another kind of stream is recorded.
        flag = driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        stream = _checked(driver.cuStreamCreate(flag))
        run_on(cuda.external_stream(int(stream)))
        try:
            mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
            _checked(driver.cuStreamBeginCapture(stream, mode))
            try:
                work()
            finally:
                ended = driver.cuStreamEndCapture(stream)
            graph = _checked(ended)
        finally:
            run_on(0)
            driver.cuStreamDestroy(stream)
        try:
            self._executable = _checked(driver.cuGraphInstantiate(graph, 0))
        finally:
            driver.cuGraphDestroy(graph)
        finalize(self, driver.cuGraphExecDestroy, self._executable)

    def repeat(self) -> None:
        """Start the work again on the current stream."""
        _checked(driver.cuGraphLaunch(self._executable, stream_handle()))
