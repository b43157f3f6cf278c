"""Overhead of a pass on a Dask cluster, and its growth with the number of blocks.

    python bench/dask_overhead.py [--rounds 15] [--out FILE]

The cluster is a LocalCluster of one or two processes with one thread each, and blocks of float32
rows are persisted. Two things take turns: one pass of the statistics on the cluster, and the same
blocks in this process with the same number of threads. The time of a pass on the cluster is
modelled as

    fixed + blocks * per_block + rows * per_row,

whose constants are fitted by least squares of relative errors to some sizes; then the model is
compared with other sizes. If dask-ml is installed, an iteration of its KMeans on the same cluster
and blocks is timed too, by the difference of two fits.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import dask.array as da
import numpy as np
from distributed import Client, LocalCluster, wait
from numpy.typing import NDArray
from records import RESULTS, markdown, write

from ekmfast import blocks
from ekmfast.rows.blockwise import Pass
from ekmfast.rows.dask import DaskSource
from ekmfast.rows.source import LocalSource

D, K = 16, 8
# (rows in a block, number of blocks); the model is fitted to the first list and predicts the
# second.
FITTED = [(1000, 2), (1000, 16), (1000, 64), (100_000, 2), (100_000, 16), (400_000, 4)]
PREDICTED = [(1000, 128), (1000, 256), (200_000, 8), (100_000, 32), (400_000, 16)]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS / "dask-overhead")
    args = parser.parse_args()
    rows = []
    for n_workers in (1, 2):
        with (
            LocalCluster(
                n_workers=n_workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",
                memory_limit=0,
            ) as cluster,
            Client(cluster) as client,
        ):
            for fitted, sizes in ((True, FITTED), (False, PREDICTED)):
                for block_rows, n_blocks in sizes:
                    row = measure(client, block_rows, n_blocks, n_workers, args.rounds)
                    rows.append(row | {"fitted": fitted})
                    print(rows[-1], flush=True)
    models = {w: fit_model([r for r in rows if r["workers"] == w and r["fitted"]]) for w in (1, 2)}
    for row in rows:
        row["model"] = float(terms(row) @ models[row["workers"]])
    settings = {"rounds": args.rounds, "d": D, "k": K, "threads": "1 a worker"}
    settings["models"] = {w: model.tolist() for w, model in models.items()}
    write(args.out, settings, rows, report(rows, models))
    return 0


def measure(
    client: Client, block_rows: int, n_blocks: int, n_workers: int, rounds: int
) -> dict[str, Any]:
    X = da.random.default_rng(0).standard_normal(
        (block_rows * n_blocks, D), chunks=(block_rows, D), dtype=np.float32
    )
    X = X.persist()
    wait(X)
    arrays = [np.array(X.blocks[i, 0].compute()) for i in range(n_blocks)]
    centroids = arrays[0][None, :K].astype(np.float64)
    call = partial(Pass(np.zeros(D)), centroids=centroids, alpha=np.array([0.2]), rescue=False)
    local = partial(
        Pass(np.zeros(D), n_threads=n_workers),
        centroids=centroids,
        alpha=np.array([0.2]),
        rescue=False,
    )
    here = LocalSource(blocks.from_arrays(arrays), n_workers)
    there = DaskSource(X, None, 1)
    assert there.sum(call).sum_wx.tobytes() == here.sum(local).sum_wx.tobytes()
    on_cluster, in_process = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        there.sum(call)
        middle = time.perf_counter()
        for block_number, array in enumerate(arrays):
            local(blocks.Block(array, None, ""), block_number)
        on_cluster.append(middle - start)
        in_process.append(time.perf_counter() - middle)
    return {
        "workers": n_workers,
        "block_rows": block_rows,
        "blocks": n_blocks,
        "cluster": on_cluster,
        "local": in_process,
        "dask_ml": dask_ml(X) if n_workers == 2 and block_rows >= 100_000 else None,
    }


def dask_ml(X: Any) -> float | None:
    """Seconds of one iteration of dask-ml's KMeans; None if it is not installed."""
    try:
        from dask_ml.cluster import KMeans
    except ImportError:
        return None
    init: NDArray[Any] = np.asarray(X[:K].compute())
    seconds = {}
    for n_iter in (2, 2, 12):  # the first fit is a warm-up
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = KMeans(K, init=init, max_iter=n_iter, tol=0).fit(X)
        seconds[n_iter] = time.perf_counter() - start
        assert fitted.n_iter_ >= n_iter - 1
    return (seconds[12] - seconds[2]) / 10


def terms(row: dict[str, Any]) -> NDArray[np.float64]:
    return np.array([1.0, row["blocks"], row["blocks"] * row["block_rows"]])


def fit_model(rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    """Constants of the model in seconds: fixed, per block, per row."""
    measured = np.array([median(row["cluster"]) for row in rows])
    A = np.array([terms(row) for row in rows])
    return np.linalg.lstsq(A / measured[:, None], np.ones(len(rows)), rcond=None)[0]


def spread(values: list[float]) -> str:
    return f"{median(values):.1f} ({min(values):.1f} .. {max(values):.1f})"


def report(rows: list[dict[str, Any]], models: dict[int, NDArray[np.float64]]) -> str:
    lines = [
        f"{w} worker(s): {1e3 * a:.1f} ms + {1e3 * b:.2f} ms a block + {1e9 * c:.2f} ns a row"
        for w, (a, b, c) in models.items()
    ]
    table = []
    for row in rows:
        over = median(a - b for a, b in zip(row["cluster"], row["local"], strict=True))
        pass_ms, local_ms = 1e3 * median(row["cluster"]), 1e3 * median(row["local"])
        peer = row["dask_ml"]
        table.append(
            [
                row["workers"],
                f"{row['blocks']} x {row['block_rows']:,}",
                spread([1e3 * seconds for seconds in row["cluster"]]),
                f"{local_ms:.1f}",
                f"{1e3 * over:.1f}",
                f"{1e3 * row['model']:.1f} ({row['model'] / (pass_ms / 1e3) - 1:+.0%})",
                "fitted" if row["fitted"] else "predicted",
                "" if peer is None else f"{1e3 * peer:.0f} ({1e3 * peer / pass_ms:.1f} x)",
            ]
        )
    head = (
        "workers | blocks x rows | ms a pass | ms in one process | ms beyond | ms by the model | "
    )
    head += "which was | dask-ml KMeans, ms an iteration"
    return (
        "Persisted float32 blocks, "
        f"D = {D}, K = {K}.\n\n"
        + "\n".join(f"- {line}" for line in lines)
        + "\n\n"
        + markdown([cell.strip() for cell in head.split("|")], table)
    )


if __name__ == "__main__":
    sys.exit(main())
