"""Speed of encoding and of the anomaly loss: exported models against the eager model.

    python bench/autoencoder_speed.py [--rounds 7] [--threads 2] [--images 1024]
        [--half] [--compiled]

The eager model is used as a PyTorch user would do it: ``model.eval()``, ``torch.inference_mode()``,
batches of the same size, concatenated results. The exported model is
``load(export(model, path)).encode(images)`` from a NumPy array, with all checks. Of ONNX Runtime
and OpenVINO (where they are installed), and of what AOTInductor compiles with ``--compiled`` (which
takes minutes), only the graph is called, without checks; the graph is cut so that it computes only
what is timed. All take turns in one process, and ratios are taken within a round. The error is the
largest difference from the eager model, relative to the largest value. bfloat16 is timed only with
``--half``, since a CPU without instructions for it takes 4 to 30 times as long. The script also
times the encoding of a folder of JPEG images, which are all read before encoding, or read one batch
ahead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from records import RESULTS, markdown, write

from ekmfast import export_onnx
from ekmfast.autoencoder import ConvAutoencoder, export, load
from ekmfast.autoencoder.export import Exported
from ekmfast.datasets import load_image_folder, open_image_folder

# (image_size, in_channels, latent_dim, width) of the default model, and of the demo's.
MODELS = [(64, 3, 1024, 1.0), (32, 1, 128, 0.25)]
BATCHES = (1, 64, 256)
EAGER = "eager"

Graph = Callable[[NDArray[Any]], NDArray[Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=1024, help="of 32 x 32 pixels")
    parser.add_argument("--half", action="store_true", help="time bfloat16 too")
    parser.add_argument("--compiled", action="store_true", help="time AOTInductor too")
    parser.add_argument("--out", type=Path, default=RESULTS / "autoencoder-speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for shape in MODELS:
        n_images = max(256, args.images * 32**2 // shape[0] ** 2)
        for batch_size in BATCHES:
            more = compare(
                shape,
                batch_size,
                n_images,
                args.rounds,
                half=args.half,
                others=partial(graphs, threads=args.threads, compiled=args.compiled),
            )
            print(*more, sep="\n", flush=True)
            rows += more
    rows += folder(args.rounds)
    settings = {n: v for n, v in vars(args).items() if n != "out"}
    settings |= {"torch": torch.__version__, "capability": torch.backends.cpu.get_cpu_capability()}
    for runtime in RUNTIMES:
        if find_spec(runtime):
            settings[runtime] = version(runtime)
    write(args.out, settings, rows, report(rows))
    return 0


class Task(torch.nn.Module):
    """The exported module, with one of its methods as the function that is called."""

    def __init__(self, model: ConvAutoencoder, task: str) -> None:
        super().__init__()
        self.exported = Exported(model).eval()
        self.task = task

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = getattr(self.exported, self.task)(x)
        return result


def onnx_runtime(path: Path, threads: int) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


def openvino(path: Path, threads: int) -> Graph:
    from openvino import Core

    # Its own choice of precision would be bfloat16 on processors that have it.
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = Core().compile_model(path, "CPU", settings)
    return lambda x: compiled([x])[0]


def aot_inductor(model: ConvAutoencoder, task: str, path: Path) -> Graph:
    x = torch.zeros(2, model.in_channels, model.image_size, model.image_size)
    program = torch.export.export(
        Task(model, task).eval(), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    run = torch._inductor.aoti_load_package(package)
    return lambda x: run(torch.from_numpy(x)).numpy()


def in_batches(graph: Graph, images: NDArray[Any], batch_size: int) -> NDArray[Any]:
    with torch.inference_mode():
        starts = range(0, len(images), batch_size)
        return np.concatenate([graph(images[start : start + batch_size]) for start in starts])


def compare(
    shape: tuple[int, int, int, float],
    batch_size: int,
    n_images: int,
    rounds: int,
    *,
    half: bool,
    others: Callable[[ConvAutoencoder, str, Path], dict[str, Graph]] = lambda *_: {},
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
        with tempfile.TemporaryDirectory() as name:
            for kind, graph in others(model, task, Path(name)).items():
                works[kind] = lambda graph=graph: in_batches(graph, images, batch_size)
        wanted = works[EAGER]()
        errors = {
            k: float(np.abs(w() - wanted).max() / np.abs(wanted).max()) for k, w in works.items()
        }
        for kind, error in errors.items():
            assert error < (0.1 if kind == "bfloat16" else 1e-4), (kind, errors)
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


def graphs(
    model: ConvAutoencoder, task: str, folder: Path, *, threads: int, compiled: bool
) -> dict[str, Graph]:
    """The runtimes that are installed, with a graph that computes the task alone."""
    found: dict[str, Graph] = {}
    if find_spec("onnx"):
        from onnx.utils import extract_model

        whole, part = folder / "model.onnx", folder / "part.onnx"
        export_onnx(model, whole)
        output = {"encode": "codes", "anomaly_loss": "anomaly_loss"}[task]
        extract_model(str(whole), str(part), ["images"], [output])
        for name, (kind, read) in RUNTIMES.items():
            if find_spec(name):
                found[kind] = read(part, threads)
    if compiled:
        found["AOTInductor"] = aot_inductor(model, task, folder / "compiled.pt2")
    return found


RUNTIMES = {"onnxruntime": ("ONNX Runtime", onnx_runtime), "openvino": ("OpenVINO", openvino)}


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
                f"{1e6 / median(micro):,.0f}",
                f"{median(ratio):.2f} ({min(ratio):.2f} .. {max(ratio):.2f})",
                "" if row["error"] is None else f"{row['error']:.0e}",
            ]
        )
    head = ["model", "batch", "task", "", "microseconds an image"]
    head += ["images a second", "times as fast", "error"]
    return markdown(head, table)


if __name__ == "__main__":
    sys.exit(main())
