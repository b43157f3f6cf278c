"""A torch operation and our kernel in turns, against both alone: do their threads disturb?

Two OpenMP runtimes that spin while they wait cost each other several times the work; our own pool
sleeps. ``python bench/torch_alternation.py torch|ekmfast small|large [OUR_THREADS]`` imports the
named one first and prints the ratio of the turns to the sum of both alone: the median of paired
rounds, least, most. Small data lie in the caches, out of which the two drive each other whatever
their threads do: one thread of ours shows by how much.
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
