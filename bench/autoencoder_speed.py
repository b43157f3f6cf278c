"""Speed of encoding and of the anomaly loss: exported models against the eager model.

    python bench/autoencoder_speed.py [--rounds 7] [--threads 2] [--images 1024]

The eager model is used as a PyTorch user would do it: ``model.eval()``, ``torch.inference_mode()``,
batches of the same size, concatenated results. The exported model is
``load(export(model, path)).encode(images)`` from a NumPy array, with all checks. All take turns in
one process, and ratios are taken within a round. The error is the largest difference from the eager
model, relative to the largest value. bfloat16 is timed only with ``--half``, since a CPU without
instructions for it takes 4 to 30 times as long. The script also times the encoding of a folder of
JPEG images, which are all read before encoding, or read one batch ahead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from records import RESULTS, markdown, write

from ekmfast.autoencoder import ConvAutoencoder, export, load
from ekmfast.datasets import load_image_folder, open_image_folder

# (image_size, in_channels, latent_dim, width) of the default model, and of the demo's.
MODELS = [(64, 3, 1024, 1.0), (32, 1, 128, 0.25)]
BATCHES = (1, 64, 256)
EAGER = "eager"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=1024, help="of 32 x 32 pixels")
    parser.add_argument("--half", action="store_true", help="time bfloat16 too")
    parser.add_argument("--out", type=Path, default=RESULTS / "autoencoder-speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for shape in MODELS:
        n_images = max(256, args.images * 32**2 // shape[0] ** 2)
        for batch_size in BATCHES:
            rows += compare(shape, batch_size, n_images, args.rounds, half=args.half)
            print(*rows[-8:], sep="\n", flush=True)
    rows += folder(args.rounds)
    settings = {n: v for n, v in vars(args).items() if n != "out"}
    settings |= {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    write(args.out, settings, rows, report(rows))
    return 0


def compare(
    shape: tuple[int, int, int, float], batch_size: int, n_images: int, rounds: int, *, half: bool
) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    size, channels, latent_dim, width = shape
    model = ConvAutoencoder(size, channels, latent_dim, width=width)
    images = np.random.default_rng(0).random((n_images, channels, size, size), np.float32)
    with torch.no_grad():
        model(torch.from_numpy(images[:64]))  # so that batch normalisations have averages
    model.eval()
    with tempfile.TemporaryDirectory() as name:
        script = load(export(model, Path(name) / "model.ts"))
        program = load(export(model, Path(name) / "model.pt2"))
        coarse = load(Path(name) / "model.ts", precision="bfloat16")
    tensor = torch.from_numpy(images)

    def eager(function: Callable[[torch.Tensor], torch.Tensor]) -> NDArray[Any]:
        with torch.inference_mode():
            parts = [function(part) for part in tensor.split(batch_size)]
            return torch.cat(parts).numpy()

    def eager_loss(x: torch.Tensor) -> torch.Tensor:
        return (model.decode(model.encode(x)) - x).square().flatten(1).mean(1)

    rows = []
    for task, plain in (("encode", model.encode), ("anomaly_loss", eager_loss)):
        works: dict[str, Callable[[], Any]] = {EAGER: lambda plain=plain: eager(plain)}
        for kind, loaded in (("TorchScript", script), ("pt2", program), ("bfloat16", coarse)):
            if kind == "bfloat16" and not half:
                continue
            method = getattr(loaded, task)
            works[kind] = lambda method=method: method(images, batch_size=batch_size)
        wanted = works[EAGER]()
        errors = {
            k: float(np.abs(w() - wanted).max() / np.abs(wanted).max()) for k, w in works.items()
        }
        for kind in ("TorchScript", "pt2"):
            assert errors[kind] < 1e-4, (kind, errors)
        assert errors.get("bfloat16", 0.0) < 0.1, errors
        seconds: dict[str, list[float]] = {kind: [] for kind in works}
        for _ in range(rounds):
            for kind, work in works.items():
                start = time.perf_counter()
                work()
                seconds[kind].append(time.perf_counter() - start)
        rows += [
            {
                "model": shape,
                "batch_size": batch_size,
                "task": task,
                "kind": kind,
                "microseconds": [1e6 * s / n_images for s in seconds[kind]],
                "ratio": [a / b for a, b in zip(seconds[EAGER], seconds[kind], strict=True)],
                "error": errors[kind],
            }
            for kind in works
        ]
    return rows


def folder(rounds: int, n_images: int = 400) -> list[dict[str, Any]]:
    """Time the encoding of a folder of JPEG images, which are read before or one batch ahead."""
    size, channels, latent_dim, width = MODELS[0]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        for i in range(n_images):
            small = rng.integers(0, 256, (24, 32, 3), np.uint8)
            Image.fromarray(small).resize((320, 240)).save(Path(name) / f"{i:04}.jpg")
        path = Path(name) / "model.ts"
        torch.manual_seed(0)
        model = load(export(ConvAutoencoder(size, channels, latent_dim, width=width).eval(), path))
        works = {
            "read": lambda: load_image_folder(name, size).images,
            "read, then encode": lambda: model.encode(load_image_folder(name, size).images),
            "read ahead": lambda: model.encode(open_image_folder(name, size), batch_size=64),
        }
        np.testing.assert_allclose(
            works["read ahead"](), works["read, then encode"](), rtol=1e-3, atol=1e-4
        )
        seconds: dict[str, list[float]] = {kind: [] for kind in works}
        for _ in range(rounds):
            for kind, work in works.items():
                start = time.perf_counter()
                work()
                seconds[kind].append(time.perf_counter() - start)
    base = seconds["read, then encode"]
    return [
        {
            "model": MODELS[0],
            "batch_size": 64,
            "task": "JPEG folder, 320 x 240",
            "kind": kind,
            "microseconds": [1e6 * s / n_images for s in seconds[kind]],
            "ratio": [a / b for a, b in zip(base, seconds[kind], strict=True)],
            "error": None,
        }
        for kind in works
    ]


def report(rows: list[dict[str, Any]]) -> str:
    table = []
    for row in rows:
        size, channels, latent_dim, width = row["model"]
        ratio, micro = row["ratio"], row["microseconds"]
        table.append(
            [
                f"{channels} x {size} x {size}, {latent_dim}, width {width:g}",
                row["batch_size"],
                row["task"],
                row["kind"],
                f"{median(micro):.0f}",
                f"{median(ratio):.2f} ({min(ratio):.2f} .. {max(ratio):.2f})",
                "" if row["error"] is None else f"{row['error']:.0e}",
            ]
        )
    head = ["model", "batch", "task", "", "microseconds an image", "times as fast", "error"]
    return markdown(head, table)


if __name__ == "__main__":
    sys.exit(main())
