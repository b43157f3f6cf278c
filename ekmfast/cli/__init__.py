"""The ``ekmfast`` command."""

from __future__ import annotations

import argparse
import csv
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from ekmfast._files import write_csv
from ekmfast._version import __version__
from ekmfast.cli import images as _cli_images
from ekmfast.cli.output import (
    STANDARD_OUTPUT,
    STDOUT,
    check_outputs,
    printing,
    say,
    say_clusters,
    text_path,
    write_figure,
)

# What the user can mend.
TOLD = (ImportError, OSError, ValueError, MemoryError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, default=None
        Arguments; None for those of the process.

    Returns
    -------
    int
        Exit code: 0, 1 for an error that the user can mend (told in one line on stderr), 130
        when interrupted, 141 when the reader of its output has gone. Wrong usage leaves through
        ``SystemExit`` with code 2.

    Examples
    --------
    >>> from ekmfast.cli import main
    >>> main(["info"])  # doctest: +ELLIPSIS
    version ...
    0
    """
    try:
        try:
            return _run(argv)
        finally:  # after --help too
            if sys.stdout is not None:
                with printing():
                    sys.stdout.flush()
    except KeyboardInterrupt:
        print("ekmfast: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _give_up_stdout()
        return 141
    except OSError as error:
        if error.filename != STANDARD_OUTPUT:
            raise
        _give_up_stdout()
        return _fail(error)


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command == "demo" and (arguments.images is None) != (arguments.anomalies is None):
        parser.error("--images and --anomalies go together")
    commands = {"info": _info, "demo": _demo, "cluster": _cluster, "path": _path}
    commands |= dict.fromkeys(("train", "encode", "anomaly"), _images)
    # A table that goes to stdout has it for itself.
    has_table = getattr(arguments, "out", None) == STDOUT
    with redirect_stdout(sys.stderr) if has_table else nullcontext():
        return commands[arguments.command](arguments)


def _give_up_stdout() -> None:
    """Nothing more can be printed, not even by the interpreter as it ends."""
    with suppress(OSError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        raise error
    text = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        name = os.fsdecode(error.filename)
        text = f"{name}: {error.strerror}"
        if isinstance(error, FileNotFoundError) and os.path.islink(name):
            text += f": the link leads to {os.readlink(name)!r}, which is not there"
    elif isinstance(error, MemoryError):
        text = text or "out of memory"
    print(f"ekmfast: error: {' '.join(text.split())}", file=sys.stderr)
    return 1


def _info(_: argparse.Namespace) -> int:
    from ekmfast import show_config

    with printing():
        show_config()
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from ekmfast import demo

    # Only what the user can mend is told in a line: a missing package, the folders. Whatever goes
    # wrong later is a fault of the program, and its traceback is wanted.
    try:
        demo.check_requirements()
        data = demo.load_data(arguments.images, arguments.anomalies, quick=arguments.quick)
        arguments.out.mkdir(parents=True, exist_ok=True)
    except TOLD as error:
        return _fail(error)
    demo.run(data, arguments.out, seed=arguments.seed, quick=arguments.quick)
    return 0


def _cluster(arguments: argparse.Namespace) -> int:
    from sklearn.pipeline import make_pipeline

    from ekmfast import EKMeans
    from ekmfast.metrics import cluster_sizes
    from ekmfast.persist.file import save

    # What the user asked for may be impossible: read, fit and written under one roof, told in a
    # line. Other kinds of errors are faults of the program.
    try:
        check_outputs(
            arguments.save, texts=[arguments.out], plot=arguments.plot, inputs=[arguments.data]
        )
        options = {} if arguments.alpha is None else {"alpha": arguments.alpha}
        model = EKMeans(arguments.clusters, random_state=arguments.seed, **options)
        with _told_warnings():
            X, names, scaler = _read(arguments)
            model.fit(X)
        sizes = cluster_sizes(model.labels_, arguments.clusters)
        say("data", f"{len(X)} rows, {len(names)} columns")
        say_clusters(model, sizes)
        if arguments.out is not None:
            write_csv(arguments.out, ["label"], ([label] for label in model.labels_))
            say("labels", arguments.out)
        if arguments.save is not None:
            save(model if scaler is None else make_pipeline(scaler, model), arguments.save)
            scaled = "" if scaler is None else " (a pipeline, which standardizes by itself)"
            say("model", f"{arguments.save}{scaled}")
        if arguments.plot is not None:
            write_figure(arguments.plot, _plot_clusters(X, names, model, sizes))
            say("picture", arguments.plot)
    except TOLD as error:
        return _fail(error)
    return 0


def _path(arguments: argparse.Namespace) -> int:
    import ekmfast

    try:
        check_outputs(plot=arguments.plot, inputs=[arguments.data])
        with _told_warnings():
            X, _, _ = _read(arguments)
            path = ekmfast.alpha_path(
                X, arguments.clusters, arguments.alphas, random_state=arguments.seed
            )
        with printing():
            print("       alpha  x dvariance  likelihood  agreement  clusters     objective  sizes")
            for a, alpha in enumerate(path.alphas):
                sizes = " ".join(f"{size:.0f}" for size in sorted(path.sizes[a], reverse=True))
                print(
                    f"{'*' if a == path.best else ' '} {alpha:10.5g}  "
                    f"{alpha / path.dvariance:11.4g}  {path.likelihood[a]:10.4f}  "
                    f"{path.agreement[a]:9.3f}  {path.n_clusters_effective[a]:8d}  "
                    f"{path.objective[a]:12.6g}  {sizes}"
                    f"{'' if path.converged[a] else '  (not converged)'}"
                )
            print("* largest likelihood")
        if arguments.plot is not None:
            from ekmfast.plotting import plot_alpha_path

            write_figure(arguments.plot, plot_alpha_path(path)[0].figure)
            say("picture", arguments.plot)
    except TOLD as error:
        return _fail(error)
    return 0


def _images(arguments: argparse.Namespace) -> int:
    # As for _cluster: the folder, the model, what was asked for may be impossible.
    try:
        with _told_warnings():
            getattr(_cli_images, arguments.command)(arguments)
    except (*TOLD, FloatingPointError) as error:
        return _fail(error)
    return 0


def _read(arguments: argparse.Namespace) -> tuple[Any, list[str], Any]:
    """The rows, the names of their columns, and what standardized them, if anything."""
    from ekmfast.data.tables import read_table

    columns = None
    if arguments.columns is not None:
        columns = next(csv.reader([arguments.columns], skipinitialspace=True), [""])
    X, names = read_table(arguments.data, columns, header=arguments.header)
    if len(X) < arguments.clusters:
        raise ValueError(f"{arguments.data}: {len(X)} rows, fewer than --clusters")
    if not arguments.standardize:
        return X, names, None
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    with np.errstate(over="ignore", invalid="ignore"):
        scaler.fit(X)
    # scale_ is 1 where var_ is infinite.
    usable = np.isfinite(scaler.mean_) & np.isfinite(scaler.var_)
    if not usable.all():
        name = names[int(usable.argmin())]
        raise ValueError(f"{arguments.data}, column {name!r}: values too large to standardize")
    return scaler.transform(X), names, scaler


def _plot_clusters(X: Any, names: list[str], model: Any, sizes: Any) -> Any:
    """The samples in their plane: their two columns, or the two principal components."""
    import numpy as np

    from ekmfast.plotting import new_figure, plot_clusters

    figure, axes = new_figure(6, 5)
    ax = axes[0, 0]
    labels, centroids = model.labels_, model.cluster_centers_
    if len(names) == 1:
        X = np.column_stack([X, np.arange(len(X))])
        centroids = np.column_stack([centroids, np.full(len(centroids), len(X) / 2)])
        names = [*names, "row"]
    elif len(names) > 2:
        from sklearn.decomposition import PCA

        plane = PCA(2, random_state=0).fit(X)
        X, centroids = plane.transform(X), plane.transform(centroids)
        shares = plane.explained_variance_ratio_
        names = [f"principal component {i + 1} ({100 * s:.0f} %)" for i, s in enumerate(shares)]
    plot_clusters(X, labels, centroids, ax)
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    handles, ticks = ax.get_legend_handles_labels()
    if len(ticks) <= 20:
        texts = [f"{k}: {sizes[int(k)]}" for k in ticks]
        ax.legend(handles, texts, title="cluster: samples", markerscale=2, fontsize=8,
                  loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)  # fmt: skip
    return figure


@contextmanager
def _told_warnings() -> Iterator[None]:
    """Warnings as lines of the command, without the place in the code that they come from."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_, **__: print(
            f"ekmfast: warning: {message}", file=sys.stderr
        )
        yield


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ekmfast", description="Equilibrium K-means for imbalanced data."
    )
    parser.add_argument("--version", action="version", version=f"ekmfast {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="train an autoencoder, cluster its codes, find anomalies, write a report",
        description="Train a small autoencoder, cluster the codes of three classes drawn in unequal"
        " numbers, tell anomalies by their reconstruction, and write a report. Without --images:"
        " 5,000 handwritten digits, and 100 faces as anomalies, that come with Python packages.",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default: %(default)s"
    )
    demo.add_argument("--seed", type=_seed, default=0, metavar="N", help="default: %(default)s")
    demo.add_argument(
        "--images", type=Path, metavar="DIR", help="normal images, one sub-folder a class"
    )
    demo.add_argument("--anomalies", type=Path, metavar="DIR", help="anomalous images")
    demo.add_argument(
        "--quick",
        action="store_true",
        help="little data and one epoch, to see that everything runs; the figures mean nothing",
    )

    data = argparse.ArgumentParser(add_help=False)
    data.add_argument(
        "data",
        type=lambda text: Path("/dev/stdin" if text == "-" else text),
        metavar="DATA",
        help=".npy, .npz or text with a line a sample (.csv); - for text from stdin",
    )
    data.add_argument("--clusters", type=_count, required=True, metavar="K")
    data.add_argument(
        "--columns", metavar="A,B", help="names, or numbers from 0, of the columns; default: all"
    )
    data.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of text holds names; default: whether it looks so",
    )
    data.add_argument(
        "--standardize", action="store_true", help="bring each column to mean 0 and deviation 1"
    )
    data.add_argument("--seed", type=_seed, default=0, metavar="N", help="default: %(default)s")

    cluster = commands.add_parser(
        "cluster",
        parents=[data],
        help="cluster the rows of a file",
        description="Cluster the rows of a file with equilibrium k-means.",
    )
    cluster.add_argument(
        "--alpha", type=_alpha, metavar="A", help="a number > 0, dvariance or auto"
    )
    cluster.add_argument(
        "--out", type=text_path, metavar="CSV", help="write the labels; - for stdout"
    )
    cluster.add_argument(
        "--save",
        type=Path,
        metavar="FILE",
        help="write the model, with its scaling if --standardize: ekmfast.load",
    )
    cluster.add_argument("--plot", type=Path, metavar="PICTURE", help="draw the clusters")

    path = commands.add_parser(
        "path",
        parents=[data],
        help="cluster the rows of a file at many alphas, to choose one",
        description="Cluster the rows of a file at many alphas and tell the results apart.",
    )
    path.add_argument(
        "--alphas", type=_alphas, metavar="A,B", help="default: multiples of the rule dvariance"
    )
    path.add_argument("--plot", type=Path, metavar="PICTURE", help="draw the path")

    types = {"count": _count, "positive": _positive, "seed": _seed, "share": _share}
    _cli_images.add_parsers(commands, types)

    commands.add_parser("info", help="show version, instruction set, threads and compiler")
    return parser


def _seed(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= value < 2**32 - 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 4294966295")
    return value


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer >= 1")
    return int(text)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number > 0")
    return value


def _share(text: str) -> float:
    value = _positive(text)
    if value > 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share in (0, 0.5]")
    return value


def _alpha(text: str) -> str | float:
    return text if text in ("auto", "dvariance") else _positive(text)


def _alphas(text: str) -> list[float]:
    return [_positive(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
