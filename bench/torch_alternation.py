"""Time of a torch operation and our kernel in turns, relative to both alone.

The ratio shows whether the threads of the two libraries disturb each other. Two OpenMP runtimes
that spin while they wait would take several times as long; the threads of our pool sleep instead.
``python bench/torch_alternation.py torch|ekmfast small|large [OUR_THREADS]`` imports the named
library first, and prints the median, least and greatest ratio of paired rounds. Small data fit into
the caches, from which each library evicts the other's data. A measurement with one thread of ours
shows how much this costs.
"""

import json
import os
import statistics
import sys
import time

THREADS = int(os.environ.get("EKMFAST_BENCH_THREADS", "2"))
ROUNDS = 15
SIZES = {"small": (100_000, 2_000, 40), "large": (1_000_000, 8_000, 8)}  # our rows, torch's, calls

if len(sys.argv) not in (3, 4) or sys.argv[2] not in SIZES:
    sys.exit(__doc__)
if sys.argv[1] == "torch":
    import torch

    import ekmfast
elif sys.argv[1] == "ekmfast":
    import ekmfast  # noqa: I001
    import torch
else:
    sys.exit(__doc__)

import numpy as np  # noqa: E402

torch.set_num_threads(THREADS)
OUR_ROWS, TORCH_ROWS, CALLS = SIZES[sys.argv[2]]
OUR_THREADS = int(sys.argv[3]) if len(sys.argv) == 4 else THREADS
rng = np.random.default_rng(0)
X = rng.standard_normal((OUR_ROWS, 8), dtype=np.float32)
C = X[:8].copy()
layer, images = torch.randn(256, 256), torch.randn(TORCH_ROWS, 256)


def ours() -> None:
    ekmfast.ekm_step(X, C, 0.5, n_threads=OUR_THREADS)


def theirs() -> None:
    torch.relu(images @ layer).sum().item()


def seconds(*turns) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        for turn in turns:
            turn()
    return time.perf_counter() - start


seconds(ours, theirs)
ratios = []
for _ in range(ROUNDS):
    alone = seconds(ours) + seconds(theirs)
    ratios.append(seconds(ours, theirs) / alone)
wanted = torch.relu(images.double() @ layer.double()).sum().item()
assert abs(torch.relu(images @ layer).sum().item() / wanted - 1) < 1e-4
print(
    json.dumps(
        {
            "first": sys.argv[1],
            "ratio_median": statistics.median(ratios),
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "rounds": ROUNDS,
            "size": sys.argv[2],
            "threads": THREADS,
            "our_threads": OUR_THREADS,
        }
    )
)
