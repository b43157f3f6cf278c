"""Only the same fit continues from a checkpoint, and a damaged checkpoint is refused."""

import io
import json
import os
import sys

import numpy as np
import pytest
from test_blocks import START, clusters, split

from ekmfast import EKMeans, FuzzyCMeans, HardKMeans, MaximumEntropyKMeans, blocks
from ekmfast.fit.checkpoint import Checkpoint
from ekmfast.fit.solver import WholeRun


def in_blocks(X, weight=None):
    at = len(X) // 3
    return blocks.from_arrays(split(X, at), None if weight is None else split(weight, at))


@pytest.mark.parametrize(
    ("first", "second", "differs"),
    [
        (
            FuzzyCMeans(3),
            FuzzyCMeans(3, fuzzifier=3.0),
            r"fuzzifier \(2\.0 in the file, 3\.0 in this fit\)",
        ),
        (
            MaximumEntropyKMeans(3, alpha=1.0),
            EKMeans(3, alpha=1.0),
            "weighting .'maximum-entropy' in the file, 'equilibrium' in this fit",
        ),
        (
            EKMeans(3, alpha=1.0),
            HardKMeans(3),
            "weighting .'equilibrium' in the file, 'hard' in this fit",
        ),
        (
            EKMeans(3, alpha=0.3),
            EKMeans(3, alpha=0.2),
            r"alpha \(0\.3 in the file, 0\.2 in this fit\)",
        ),
        (
            EKMeans(3, alpha=0.3),
            EKMeans(3, alpha=0.3, tol=0.01),
            r"tol \(0\.0001 in the file, 0\.01",
        ),
        (
            EKMeans(3, alpha=0.3, init="random", n_init=6),
            EKMeans(3, alpha=0.3, init="random", n_init=7),
            r"the number of starts \(n_init\) \(6 in the file, 7 in this fit\)",
        ),
        (
            EKMeans(3, alpha=0.3, init="random"),
            EKMeans(2, alpha=0.3, init="random"),
            r"n_clusters \(3 in the file, 2 in this fit\)",
        ),
        (
            EKMeans(3, alpha=0.3, init=START),
            EKMeans(3, alpha=0.3, init=START + 1e-9),
            r"the first centroids ",
        ),
    ],
)
def test_the_file_of_another_estimator_is_refused_by_what_differs(tmp_path, first, second, differs):
    data, path = in_blocks(clusters(500)), tmp_path / "fit.ckpt"
    for model in (first, second):
        if isinstance(model.init, str) and model.init == "auto":
            model.set_params(init=START)
    first.set_params(random_state=0).fit(data, checkpoint=path)
    with pytest.raises(
        ValueError, match=rf"fit\.ckpt belongs to another fit: it differs in .*{differs}"
    ):
        second.set_params(random_state=0).fit(data, checkpoint=path)


def test_the_file_of_other_data_is_refused(tmp_path, monkeypatch):
    # The sample has fewer rows than the data; the checksum must cover all rows.
    monkeypatch.setattr("ekmfast.rows.blockwise.SAMPLE_ROWS", 50)
    X = clusters(600).astype(np.float32).astype(np.float64)
    s = np.linspace(1, 2, 600)
    model = EKMeans(3, alpha=0.3, init=START, random_state=0)
    mirrored = X.min(axis=0) + X.max(axis=0) - X
    swapped = X.copy()
    swapped[[3, 9]] = X[[9, 3]]
    for number, (weight, others) in enumerate(
        [
            (None, [in_blocks(mirrored), in_blocks(swapped), blocks.from_arrays([X])]),
            (s, [in_blocks(X, s[::-1].copy()), in_blocks(X)]),
        ]
    ):
        path = tmp_path / f"{number}.ckpt"
        model.fit(in_blocks(X, weight), checkpoint=path)
        for other in others:
            with pytest.raises(ValueError, match="differs in the checksum of X and sample_weight"):
                model.fit(other, checkpoint=path)
        for other, differs in (
            (
                X.astype(np.float32),
                r"the dtype of X \('float64' in the file, 'float32' in this fit\)",
            ),
            (X[1:], r"the number of rows \(600 in the file, 599 in this fit\)"),
        ):
            with pytest.raises(ValueError, match=differs):
                model.fit(in_blocks(other), checkpoint=path)
        model.fit(in_blocks(X, weight), checkpoint=path)  # the same again


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_that_max_iter_ended_goes_on_with_more(tmp_path):
    data, path = in_blocks(clusters(3000, seed=3)), tmp_path / "fit.ckpt"
    model = EKMeans(3, alpha=0.1, tol=1e-12, random_state=0)
    whole = model.fit(data)
    bits, n_iter = whole.cluster_centers_.tobytes(), whole.n_iter_
    assert n_iter > 6
    model.set_params(max_iter=4).fit(data, checkpoint=path, checkpoint_every=2)
    assert not model.converged_
    model.set_params(max_iter=300).fit(data, checkpoint=path)
    assert (model.cluster_centers_.tobytes(), model.n_iter_) == (bits, n_iter)
    with pytest.raises(ValueError, match=r"fit\.ckpt is at pass \d+, beyond max_iter=3: raise"):
        model.set_params(max_iter=3).fit(data, checkpoint=path)


def some_runs():
    rng = np.random.default_rng(0)
    runs = []
    for i in range(3):
        run = WholeRun(rng.normal(size=(2, 3)), 0.5)
        run.objective, run.history, run.n_iter = 3.5, [4.5, 3.5], 2
        run.step = rng.normal(size=(2, 3))
        run.leap = rng.normal(size=(2, 3)) if i else None
        run.past.append((rng.normal(size=(2, 3)), rng.normal(size=(2, 3))))
        runs.append(run)
    return runs


def contents(runs):
    """Everything in the runs, in a form that can be compared."""
    found = []
    for run in runs:
        for name, value in sorted(vars(run).items()):
            if name == "past":
                value = [np.asarray(part).tobytes() for pair in value for part in pair]
            found.append((name, value.tobytes() if isinstance(value, np.ndarray) else value))
    return found


def test_no_mutation_of_a_file_is_taken_for_its_content(tmp_path):
    path = tmp_path / "fit.ckpt"
    checkpoint = Checkpoint(path, 1, fit={"tol": 1.0}, report=None)
    checkpoint.write(some_runs())
    good, expected = path.read_bytes(), contents(some_runs())
    assert contents(checkpoint.read(300)) == expected
    rng = np.random.default_rng(1)
    mutants = []
    for _ in range(150):
        mutant = bytearray(good)
        mutant[rng.integers(len(good))] ^= int(rng.integers(1, 256))
        mutants.append(bytes(mutant))
    # Without the directory at its end, an archive cannot be read.
    for at in range(good.index(b"PK\x01\x02"), len(good), 4):
        mutants.append(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
    mutants += [good[:at] for at in range(0, len(good), 197)]
    refused = []
    for mutant in mutants:
        path.write_bytes(mutant)
        try:
            assert contents(checkpoint.read(300)) == expected  # only a time stamp has changed
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > len(mutants) / 2
    assert all("fit.ckpt cannot be read: " in message for message in refused)


def test_an_archive_that_lacks_an_array_is_refused(tmp_path):
    path = tmp_path / "fit.ckpt"
    checkpoint = Checkpoint(path, 1, fit={"tol": 1.0}, report=None)
    checkpoint.write(some_runs())
    with np.load(path) as archive:
        arrays = dict(archive)
    del arrays["1.leap"]
    with path.open("wb") as file:
        np.savez(file, **arrays)
    with pytest.raises(ValueError, match="its contents are not those that were written; remove"):
        checkpoint.read(300)


def test_a_file_of_the_first_format_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "fit.ckpt"
    header = {"format": "ekmfast checkpoint 1", "fit": "0" * 64, "n_passes": 3, "runs": []}
    archive = io.BytesIO()
    np.savez(archive, header=np.frombuffer(json.dumps(header).encode(), np.uint8))
    path.write_bytes(archive.getvalue())
    with pytest.raises(
        ValueError, match=r"fit\.ckpt .*written by ekmfast 0\.1\.0.* start the fit again"
    ):
        EKMeans(3, alpha=0.3, random_state=0).fit(in_blocks(clusters(100)), checkpoint=path)


def refused_before_reading(path, error, match):
    reads = []

    def read():
        reads.append(1)
        yield clusters(100)

    with pytest.raises(error, match=match):
        EKMeans(3, random_state=0).fit(blocks.from_factory(read), checkpoint=path)
    assert not reads


def test_a_place_that_cannot_be_written_is_noticed_before_the_first_pass(tmp_path):
    refused_before_reading(tmp_path, OSError, "checkpoint=.* is not a regular file")
    refused_before_reading(tmp_path / ("x" * 300), OSError, "checkpoint='.*x': no file can be")
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "gone" / "fit.ckpt")
    refused_before_reading(dangling, FileNotFoundError, "checkpoint='.*link': no file can be")
    assert os.listdir(tmp_path) == ["link"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody can write to")
def test_a_folder_that_nobody_can_write_to_is_noticed_before_the_first_pass():
    refused_before_reading("/proc/fit.ckpt", OSError, "checkpoint='/proc/fit.ckpt': no file can")
