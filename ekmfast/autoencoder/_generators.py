"""PyTorch's global generators of random numbers, seeded for one piece of work at a time."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# While one thread has seeded the generators, others that want to seed them wait: each would draw
# from the numbers of the other. The same thread may come again, such as for a training within a
# callable of the caller.
_lock = threading.RLock()


def _new_lock() -> None:
    global _lock
    _lock = threading.RLock()


# The child of a fork lacks the thread that may hold the lock.
os.register_at_fork(after_in_child=_new_lock)


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed the generators of the CPU and of a GPU within the context; then restore their states.

    The global ones are needed because layers, dropout and kornia cannot use other generators.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with _lock, torch.random.fork_rng(devices):
        # torch.manual_seed would also seed devices whose states are not restored.
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
