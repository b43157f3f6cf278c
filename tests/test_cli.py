"""The command line and the demo."""

import csv
import json
import os
import re
import socket
import subprocess
import sys

import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

import ekmfast
from ekmfast import EKMeans, __version__, cli, study
from ekmfast.data.tables import read_table
from ekmfast.persist.file import load
from ekmfast.study.report import readings

FILES = ["anomalies.png", "confusion.png", "labels.csv", "map.png", "metrics.json", "model.ts"]
FILES += ["path.png", "pipeline.ts", "report.html", "sizes.png", "training.png", "tsne.png"]
METHODS = ["ekm", "dvariance", "tuned", "tuned_0.1x", "tuned_10x", "stable_10x", "naive_10x"]
METHODS += ["stable_100x", "naive_100x", "kmeans"]


@pytest.fixture(scope="module")
def quick(torchscript, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    assert cli.main(["demo", "--quick", "--seed", "3", "--out", str(out)]) == 0
    return out, json.loads((out / "metrics.json").read_text())


def test_demo_writes_its_files(quick):
    out, _ = quick
    assert sorted(file.name for file in out.iterdir()) == FILES


def test_demo_writes_its_metrics(quick):
    _, metrics = quick
    assert metrics["seed"] == 3
    assert metrics["quick"] is True
    assert metrics["versions"]["ekmfast"] == __version__
    assert {"pretrain", "finetune", "cluster", "anomalies", "total"} <= set(metrics["seconds"])
    assert 0 <= metrics["finetune"]["accuracy"] <= 1
    assert 0 <= metrics["finetune"]["accuracy_augmented"] <= 1
    assert set(metrics["anomaly"]) >= {"normal_loss", "anomaly_loss", "auc"}
    detectors = metrics["anomaly"]["detectors"]
    assert set(detectors) == {"reconstruction", "codes", "both"}
    assert detectors["reconstruction"]["auc"] == pytest.approx(metrics["anomaly"]["auc"])
    assert metrics["pipeline"]["equal_labels"] == 1
    assert metrics["pipeline"]["outputs"]["memberships"] == [44, 3]
    assert [len(row["recall"]) for row in metrics["deep"].values()] == [3, 3, 3]
    for draw, sizes in {"2:1:1": [40, 20, 20], "20:1:1": [40, 2, 2]}.items():
        rows = metrics["clustering"][draw]
        assert set(rows) == set(METHODS)
        for row in rows.values():
            assert row["true_sizes"] == sizes
            assert sum(row["sizes"]) == sum(sizes)
            assert {"alpha", "ari", "nmi", "accuracy", "objective"} <= set(row)
        assert rows["tuned_10x"]["alpha"] == pytest.approx(10 * rows["tuned"]["alpha"])
        # The path passes the paper's alpha at its middle and must find there what that call found.
        middle = metrics["path"][draw][1]
        assert middle["multiple"] == pytest.approx(1)
        assert middle["ari"] == pytest.approx(rows["dvariance"]["ari"])


def test_demo_writes_a_row_for_each_clustered_image(quick):
    out, metrics = quick
    with (out / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert b"\r" not in (out / "labels.csv").read_bytes()
    assert len(rows) == 80 + 44
    for method in METHODS:
        sizes = np.bincount([int(r[method]) for r in rows if r["draw"] == "2:1:1"], minlength=3)
        assert sizes.tolist() == metrics["clustering"]["2:1:1"][method]["sizes"]


def test_report_needs_no_other_file(quick):
    page = (quick[0] / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 7
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "{{" not in page
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().split()


def test_demo_repeats_itself(quick, tmp_path):
    out, metrics = quick
    assert cli.main(["demo", "--quick", "--seed", "3", "--out", str(tmp_path)]) == 0
    again = json.loads((tmp_path / "metrics.json").read_text())
    del metrics["seconds"], again["seconds"]
    assert again == metrics
    assert (tmp_path / "labels.csv").read_bytes() == (out / "labels.csv").read_bytes()


def test_an_unusable_out_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "load_digits", lambda **_: None)
    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--quick", "--out", str(tmp_path / "file" / "out")]) == 1
    assert capsys.readouterr().err.startswith("ekmfast: error: ")


def test_a_missing_extra_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert cli.main(["demo"]) == 1
    assert 'pip install "ekmfast[demo]"' in capsys.readouterr().err


def test_an_interrupt_is_told(torchscript, monkeypatch, capsys):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(study, "load_digits", interrupt)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == "ekmfast: interrupted\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such"],
        ["study"],
        ["study", "x", "--shares", "2"],
        ["study", "x", "--shares", "2:0:1"],
        ["study", "x", "--grey", "--colour"],
        ["demo", "--seed", "-1"],
        ["demo", "--seed", "a"],
        ["cluster", "x.csv"],
        ["cluster", "--clusters", "2"],
        ["cluster", "x.csv", "--clusters", "0"],
        ["cluster", "x.csv", "--clusters", "2", "--alpha", "inf"],
        ["cluster", "x.csv", "--clusters", "2", "--alpha", "variance"],
        ["cluster", "x.csv", "--clusters", "autos"],
        ["cluster", "x.csv", "--clusters", "2", "--max-clusters", "5"],
        ["cluster", "x.csv", "--clusters", "auto", "--max-clusters", "0"],
        ["cluster", "x.csv", "--clusters", "2", "--shapes", "oval"],
        ["cluster", "x.csv", "--clusters", "2", "--shapes", "full", "--alpha", "2"],
        ["path", "x.csv", "--clusters", "auto"],
        ["path", "x.csv", "--clusters", "2", "--alphas", "1,,2"],
    ],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        cli.main(arguments)
    assert raised.value.code == 2
    assert "usage: ekmfast" in capsys.readouterr().err


def test_info_and_version(capsys):
    assert cli.main(["info"]) == 0
    assert __version__ in capsys.readouterr().out
    with pytest.raises(SystemExit) as raised:
        cli.main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"ekmfast {__version__}\n"


# --- cluster and path ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Samples of three clusters, with two columns of text that are not used."""
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(c, 1, (n, 3)) for c, n in ((0, 300), (6, 20), (-6, 10))]).round(3)
    path = tmp_path_factory.mktemp("tables") / "data.csv"
    rows = [f"r{i},{a},{b},{c},kg" for i, (a, b, c) in enumerate(X)]
    path.write_text("\n".join(["name,a,b,c,unit", *rows]) + "\n")
    return path, X


def says(out, name):
    (value,) = re.findall(rf"^{name} +(.*)$", out, re.MULTILINE)
    return value


def test_cluster_writes_labels_model_and_picture(table, tmp_path, capsys):
    path, X = table
    arguments = ["cluster", str(path), "--clusters", "3", "--columns", "a,b,c", "--alpha", "0.5"]
    for option, name in (("--out", "l.csv"), ("--save", "m"), ("--plot", "p.png")):
        arguments += [option, str(tmp_path / name)]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    model = EKMeans(3, alpha=0.5, random_state=0).fit(X)
    assert says(out, "data") == "330 rows, 3 columns"
    assert says(out, "alpha") == "0.5"
    assert float(says(out, "objective")) == pytest.approx(model.objective_)
    assert says(out, "converged") == f"yes, {model.n_iter_} passes"
    assert says(out, "clusters") == "3 of 3 distinct"
    assert sorted(map(int, says(out, "sizes").split())) == [10, 20, 300]
    labels = (tmp_path / "l.csv").read_text().splitlines()
    assert labels == ["label", *map(str, model.labels_)]
    np.testing.assert_array_equal(load(tmp_path / "m").predict(X), model.labels_)
    assert (tmp_path / "p.png").read_bytes()[1:4] == b"PNG"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["l.csv", "m", "p.png"]


def test_cluster_finds_the_number_and_shapes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    X = np.vstack([rng.normal(size=(300, 3)) * [5, 1, 1], rng.normal(6, 1, (60, 3))])
    np.save(tmp_path / "x.npy", X)
    arguments = ["cluster", str(tmp_path / "x.npy"), "--clusters", "auto", "--shapes", "auto"]
    for option, name in (("--out", "l.csv"), ("--save", "m"), ("--plot", "p.svg")):
        arguments += [option, str(tmp_path / name)]
    assert cli.main([*arguments, "--max-clusters", "4"]) == 0
    out = capsys.readouterr().out
    model = load(tmp_path / "m")
    assert (model.n_components, model.max_clusters) == ("auto", 4)
    kind, degrees = model.covariance_type_, model.degrees_of_freedom_
    assert says(out, "shapes") == f"{kind}, {degrees:g} degrees of freedom"
    assert float(says(out, "likelihood")) == pytest.approx(model.lower_bound_)
    assert says(out, "converged") == f"yes, {model.n_iter_} iterations"
    assert says(out, "clusters") == "2"
    assert sorted(map(int, says(out, "sizes").split())) == [60, 300]
    labels = (tmp_path / "l.csv").read_text().splitlines()
    assert labels == ["label", *map(str, model.predict(X))]
    assert "<svg" in (tmp_path / "p.svg").read_text()
    assert cli.main([*arguments[:4], "--shapes", "round"]) == 0
    assert says(capsys.readouterr().out, "clusters") == "2 of 2 distinct"


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A file of a long and a small cluster, and of 100 rows of neither; and its rows."""
    rng = np.random.default_rng(0)
    long, small = rng.normal(size=(400, 2)) * [6, 0.5], rng.normal((0, 8), 0.5, (80, 2))
    X = np.vstack([long, small, rng.uniform(-25, 25, (100, 2))])
    path = tmp_path_factory.mktemp("noisy") / "x.npy"
    np.save(path, X)
    return path, X


@pytest.mark.parametrize("clusters", ["2", "auto"])
def test_cluster_tells_rows_of_no_cluster(noisy, tmp_path, capsys, clusters):
    path, X = noisy
    arguments = ["cluster", str(path), "--clusters", clusters, "--shapes", "auto", "--background"]
    for option, name in (("--out", "l.csv"), ("--save", "m"), ("--plot", "p.svg")):
        arguments += [option, str(tmp_path / name)]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    model = load(tmp_path / "m")
    assert model.background is True
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    count = int((model.labels_ == -1).sum())
    assert 80 < count < 110
    assert says(out, "data") == "580 rows, 2 columns"
    assert says(out, "background") == f"{count} rows, share {model.background_weight_:.3g}"
    assert says(out, "clusters") == "2"
    assert sum(map(int, says(out, "sizes").split())) == 580 - count
    labels = (tmp_path / "l.csv").read_text().splitlines()
    assert labels == ["label", *map(str, model.labels_)]
    assert "-1" in labels
    assert "#bbbbbb" in (tmp_path / "p.svg").read_text()  # grey


def test_cluster_without_a_background_does_not_speak_of_one(noisy, capsys):
    assert cli.main(["cluster", str(noisy[0]), "--clusters", "2", "--shapes", "auto"]) == 0
    assert "background" not in capsys.readouterr().out


def test_cluster_draws_rows_of_no_cluster_in_one_column(noisy, tmp_path, capsys):
    arguments = ["cluster", str(noisy[0]), "--clusters", "1", "--columns", "1"]
    arguments += ["--shapes", "full", "--background", "--plot", str(tmp_path / "p.svg")]
    assert cli.main(arguments) == 0
    assert int(says(capsys.readouterr().out, "background").split()[0]) > 0
    assert "#bbbbbb" in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize("shapes", ["round", "diag"])
@pytest.mark.parametrize("columns", ["a", "a,b"])
def test_cluster_draws_one_and_two_columns(table, tmp_path, columns, shapes):
    arguments = ["cluster", str(table[0]), "--clusters", "2", "--columns", columns]
    arguments += ["--shapes", shapes]
    assert cli.main([*arguments, "--plot", str(tmp_path / "p.svg")]) == 0
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_cluster_standardizes(table, tmp_path, capsys):
    _, X = table
    X = np.column_stack([1000 + 50 * X[:, 0], X[:, 1], np.full(len(X), 7)]).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    arguments = ["cluster", str(tmp_path / "x.npy"), "--clusters", "3", "--standardize"]
    assert cli.main([*arguments, "--save", str(tmp_path / "m"), "--seed", "4"]) == 0
    assert says(capsys.readouterr().out, "model").endswith(
        "m (a pipeline, which standardizes by itself)"
    )
    scaler, model = load(tmp_path / "m")
    assert model.cluster_centers_.dtype == np.float32
    assert model.random_state == 4
    scaled = np.column_stack([(X[:, :2] - X[:, :2].mean(0)) / X[:, :2].std(0), np.zeros(len(X))])
    np.testing.assert_allclose(scaler.transform(X), scaled, atol=1e-4)
    np.testing.assert_allclose(model.cluster_centers_[:, 2], 0)


def test_a_saved_model_labels_the_rows_as_the_command_did(table, tmp_path):
    path, X = table
    arguments = ["cluster", str(path), "--clusters", "3", "--columns", "a,b,c", "--standardize"]
    assert cli.main([*arguments, "--save", f"{tmp_path}/m", "--out", f"{tmp_path}/l.csv"]) == 0
    labels = np.loadtxt(tmp_path / "l.csv", int, skiprows=1)
    np.testing.assert_array_equal(load(tmp_path / "m").predict(X), labels)


@pytest.mark.parametrize("shapes", ["round", "full"])
def test_a_model_saved_as_onnx_labels_the_rows_as_the_command_did(table, tmp_path, shapes):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path, X = table
    arguments = ["cluster", str(path), "--clusters", "3", "--columns", "a,b,c", "--standardize"]
    arguments += ["--shapes", shapes, "--save", f"{tmp_path}/m.onnx", "--out", f"{tmp_path}/l.csv"]
    assert cli.main(arguments) == 0
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (labels,) = session.run(["label"], {"X": np.asarray(X, np.float64)})
    np.testing.assert_array_equal(labels, np.loadtxt(tmp_path / "l.csv", int, skiprows=1))


def test_cluster_compares_rows_by_their_directions(table, tmp_path, capsys):
    _, X = table
    X = X + 20 * np.eye(3)[np.repeat([0, 1, 2], [300, 20, 10])]
    X[7] = 0
    np.save(tmp_path / "x.npy", X)
    arguments = ["cluster", str(tmp_path / "x.npy"), "--clusters", "3", "--metric", "cosine"]
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path / 'x.npy'}: row 7 is zero, and zeros have no direction" in error
    assert error.endswith("leave out such rows, or say --zero-rows label\n")
    for option, name in (("--out", "l.csv"), ("--save", "m"), ("--plot", "p.svg")):
        arguments += [option, str(tmp_path / name)]
    assert cli.main([*arguments, "--zero-rows", "label"]) == 0
    out = capsys.readouterr().out
    model = EKMeans(3, metric="cosine", zero_rows="label", random_state=0).fit(X)
    assert says(out, "data") == "330 rows, 3 columns, 1 row of zeros"
    assert float(says(out, "objective")) == pytest.approx(model.objective_)
    assert sorted(map(int, says(out, "sizes").split())) == [10, 20, 299]
    labels = (tmp_path / "l.csv").read_text().splitlines()
    assert labels == ["label", *map(str, model.labels_)]
    assert labels[8] == "-1"
    np.testing.assert_array_equal(load(tmp_path / "m").predict(X), model.labels_)
    assert "<svg" in (tmp_path / "p.svg").read_text()


@pytest.mark.parametrize("standardize", [False, True])
def test_cluster_takes_missing_values(table, tmp_path, capsys, standardize):
    _, X = table
    gone = np.random.default_rng(1).random(X.shape) < 0.1
    gone[gone.all(axis=1)] = False
    words = np.resize(["", " NA", "nan", "?"], X.shape)
    cells = np.where(gone, words, X.astype(str))
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a,b,c", *map(",".join, cells)]) + "\n")
    arguments = ["cluster", str(path), "--clusters", "3", *["--standardize"][:standardize]]
    assert cli.main(arguments) == 1
    assert "the value is missing" in capsys.readouterr().err
    arguments += ["--missing", "partial"]
    for option, name in (("--out", "l.csv"), ("--save", "m"), ("--plot", "p.svg")):
        arguments += [option, str(tmp_path / name)]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    some = np.where(gone, np.nan, X)
    scaled = StandardScaler().fit_transform(some) if standardize else some
    model = EKMeans(3, missing="partial", random_state=0).fit(scaled)
    assert says(out, "data") == f"330 rows, 3 columns, {gone.sum()} values missing"
    assert float(says(out, "objective")) == pytest.approx(model.objective_)
    labels = np.loadtxt(tmp_path / "l.csv", int, skiprows=1)
    np.testing.assert_array_equal(labels, model.labels_)
    np.testing.assert_array_equal(load(tmp_path / "m").predict(some), labels)
    assert "<svg" in (tmp_path / "p.svg").read_text()


def test_path_takes_the_options_of_rows(table, tmp_path, capsys):
    _, X = table
    rows = X.copy()
    rows[0, 0] = np.nan
    np.save(tmp_path / "x.npy", rows)
    arguments = ["path", str(tmp_path / "x.npy"), "--clusters", "3", "--missing", "partial"]
    assert cli.main(arguments) == 0
    (best,) = (line for line in capsys.readouterr().out.splitlines()[1:-1] if line[0] == "*")
    path = ekmfast.alpha_path(rows, 3, missing="partial", random_state=0)
    assert float(best.split()[1]) == pytest.approx(path.alphas[path.best], rel=1e-3)
    rows[0] = 0
    np.save(tmp_path / "x.npy", rows)
    arguments[4:] = ["--metric", "cosine", "--zero-rows", "label"]
    assert cli.main(arguments) == 0
    (best,) = (line for line in capsys.readouterr().out.splitlines()[1:-1] if line[0] == "*")
    path = ekmfast.alpha_path(rows, 3, metric="cosine", zero_rows="label", random_state=0)
    assert float(best.split()[1]) == pytest.approx(path.alphas[path.best], rel=1e-3)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--missing", "partial", "--shapes", "auto"], 2, "--missing partial is an option of"),
        (["--metric", "cosine", "--shapes", "full"], 2, "--metric cosine is an option of"),
        (["--background"], 2, "--background is an option of mixtures only: say --shapes auto"),
        (["--background", "--shapes", "round"], 2, "say --shapes auto, full, tied, diag or"),
        (
            ["--background", "--shapes", "auto", "--metric", "cosine"],
            2,
            "--metric cosine is an option of --shapes round only",
        ),
        (
            ["--missing", "partial", "--metric", "cosine"],
            2,
            "--missing partial is an option of --metric euclidean only",
        ),
        (["--zero-rows", "label"], 2, "--zero-rows label is an option of --metric cosine only"),
        (["--zero-rows", "label", "--shapes", "full"], 2, "--zero-rows label is an option of"),
        (
            ["--missing", "partial", "--standardize"],
            1,
            "t.csv, column 'b': all values are missing",
        ),
        (["--missing", "partial"], 1, "t.csv, column 'b': all values are missing"),
        (["--missing", "mean"], 2, "invalid choice: 'mean'"),
    ],
)
def test_options_of_rows_that_cannot_be(tmp_path, capsys, options, code, message):
    (tmp_path / "t.csv").write_text("a,b\n1,\n2,\n4,NA\n")
    try:
        found = cli.main(["cluster", str(tmp_path / "t.csv"), "--clusters", "2", *options])
    except SystemExit as exit_:
        found = exit_.code
    assert found == code
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["cluster", "path"])
@pytest.mark.parametrize(
    ("options", "rows", "message"),
    [
        ([], "1,2\n0,0\n3,4\n", "row 1 is zero, and zeros have no direction: leave out such rows"),
        (["--standardize"], "1,2\n2,3\n3,4\n", "row 1 is zero once standardized, and zeros have"),
        ([], "0,0\n0,0\n0,0\n", "--metric cosine needs a row that is not zero"),
        (["--zero-rows", "label"], "0,0\n0,0\n0,0\n", "--metric cosine needs a row that is not"),
    ],
)
def test_rows_of_zeros_that_cannot_be(tmp_path, capsys, command, options, rows, message):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + rows)
    assert cli.main([command, str(path), "--clusters", "2", "--metric", "cosine", *options]) == 1
    assert f"{path}: {message}" in capsys.readouterr().err


def test_path_refuses_options_of_rows_without_effect(table, capsys):
    path, _ = table
    with pytest.raises(SystemExit, match="2"):
        cli.main(["path", str(path), "--clusters", "3", "--zero-rows", "label"])
    assert "--zero-rows label is an option of --metric cosine only" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["1e200", "-1.7e308"])
def test_columns_too_large_to_standardize_are_named(tmp_path, capsys, value):
    path = tmp_path / "t.csv"
    path.write_text(f"x,far\n1,{value}\n2,{value}\n3,1\n5,2\n")
    arguments = ["cluster", str(path), "--clusters", "2", "--standardize"]
    assert cli.main(arguments) == 1
    message = f"ekmfast: error: {path}, column 'far': values too large to standardize\n"
    assert capsys.readouterr().err == message


def test_a_file_is_read_on_from_where_stdin_stands(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a comment\nof two lines\nx,y\n1,2\n3,4\n5,7\n")
    with path.open("rb") as file:
        file.seek(len("a comment\nof two lines\n"))
        done = command("cluster", "-", "--clusters", "2", stdin=file, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert says(done.stdout, "data") == "3 rows, 2 columns"


def test_a_socket_may_be_stdin():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"x,y\n1,2\n3,4\n5,7\n")
        ours.shutdown(socket.SHUT_WR)
        done = command("cluster", "-", "--clusters", "2", stdin=theirs, stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert says(done.stdout, "data") == "3 rows, 2 columns"


@pytest.mark.parametrize("name", ["out.csv", "-"])
def test_lines_of_labels_end_as_text_files_do(table, tmp_path, name):
    options = ["--clusters", "3", "--columns", "a,b,c", "--out", name]
    with (tmp_path / "stdout").open("wb") as stdout:
        command("cluster", table[0], *options, stdout=stdout, cwd=tmp_path)
    written = (tmp_path / ("stdout" if name == "-" else name)).read_bytes()
    assert re.fullmatch(rb"label\n([012]\n)+", written)


def test_cluster_tells_warnings_in_a_line(table, capsys):
    arguments = ["cluster", str(table[0]), "--clusters", "3", "--columns", "a"]
    assert cli.main([*arguments, "--alpha", "1e-6"]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"ekmfast: warning: only 1 of 3 centroids .*\n", printed.err)
    assert says(printed.out, "clusters") == "1 of 3 distinct"


def test_letters_that_no_font_has_are_told_in_a_line(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "t.csv").write_text("\U00012000,b\n0,1\n2,3\n9,9\n8,9\n", encoding="utf-8")
    arguments = ["cluster", str(tmp_path / "t.csv"), "--clusters", "2"]
    assert cli.main([*arguments, "--plot", str(tmp_path / "p.png")]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"ekmfast: warning: Glyph 73728 .* missing from font.*", line)


def test_a_path_of_one_cluster_has_no_likelihood(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("a,b\n" + "1,1\n" * 5)
    assert cli.main(["path", str(tmp_path / "t.csv"), "--clusters", "2"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "* no likelihood to choose by: there is one cluster at every alpha"


def test_the_package_and_its_commands_can_be_run():
    for name in ("ekmfast", "ekmfast.cli"):
        done = subprocess.run(
            [sys.executable, "-m", name, "--version"], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"ekmfast {ekmfast.__version__}\n"


def test_path_prints_a_line_an_alpha_and_draws(table, tmp_path, capsys):
    path, X = table
    arguments = ["path", str(path), "--clusters", "3", "--columns", "a,b,c", "--seed", "2"]
    assert cli.main([*arguments, "--plot", str(tmp_path / "path.png")]) == 0
    head, *lines, note, picture = capsys.readouterr().out.splitlines()
    expected = ekmfast.alpha_path(X, 3, random_state=2)
    assert head.split()[0] == "alpha"
    assert [float(line[1:].split()[0]) for line in lines] == pytest.approx(
        expected.alphas, rel=1e-3
    )
    assert [line[0] == "*" for line in lines].index(True) == expected.best
    assert sum(line[0] == "*" for line in lines) == 1
    best = np.sort(expected.sizes[expected.best])[::-1]
    assert lines[expected.best].endswith("  " + " ".join(f"{size:.0f}" for size in best))
    assert note == "* largest likelihood"
    assert picture.split() == ["picture", str(tmp_path / "path.png")]
    assert (tmp_path / "path.png").stat().st_size > 1000


def test_path_takes_alphas(table, capsys):
    arguments = ["path", str(table[0]), "--clusters", "2", "--columns", "1", "--alphas", "0.5,.25"]
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()[1:3]
    assert [float(line[1:].split()[0]) for line in lines] == [0.25, 0.5]


def test_path_takes_wanted_sizes(table, capsys):
    path, X = table
    arguments = ["path", str(path), "--clusters", "3", "--columns", "a,b,c", "--seed", "2"]
    assert cli.main([*arguments, "--sizes", "1,1,1"]) == 0
    _, *lines, note = capsys.readouterr().out.splitlines()
    expected = ekmfast.alpha_path(X, 3, target_sizes=(1, 1, 1), random_state=2)
    assert [line[0] == "*" for line in lines].index(True) == expected.best
    error = 100 * expected.size_errors[expected.best]
    assert note == f"* nearest to the wanted sizes: {error:.3g} % of the rows belong elsewhere"
    assert cli.main([*arguments, "--sizes", "1,1"]) == 1
    assert "target_sizes must be n_clusters=3 finite numbers > 0" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["cluster", "path"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clusters", "3"], r"data\.csv: line 2, column 'name': 'r0' is not a number"),
        (["--clusters", "3", "--columns", "a,d"], "no column 'd': there are name, a, b, c, unit"),
        (["--clusters", "3", "--columns", ""], "no column '': there are name, a, b, c, unit"),
        (["--clusters", "331", "--columns", "a"], r"data\.csv: 330 rows, fewer than --clusters"),
        (["--clusters", "3", "--plot", "none/p.png"], "none/p.png: no such folder 'none'"),
        (["--clusters", "3", "--plot", "p.nope"], r"p\.nope: the name must end in one of .*png"),
        (["--clusters", "3", "--plot", "/"], "/: is a folder"),
    ],
)
def test_what_cannot_be_done_is_one_line(table, capsys, command, options, message):
    assert cli.main([command, str(table[0]), *options]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.match(f"ekmfast: error: .*{message}", printed.err)
    assert printed.err.count("\n") == 1


def test_what_would_be_written_over_is_refused(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(EKMeans, "fit", lambda *_: pytest.fail("fitted"))
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data.csv"
    data.write_bytes(table[0].read_bytes())
    (tmp_path / "link").symlink_to(data)
    (tmp_path / "file").write_text("")
    for options, message in (
        (["--out", "data.csv"], "data.csv: is an input"),
        (["--save", "./link"], "link: is an input"),
        (["--out", "x", "--save", "./x"], "x: is asked for twice"),
        (["--save", "p.png", "--plot", "p.png"], "p.png: is asked for twice"),
        (["--save", "none/m"], "none/m: no such folder 'none'"),
        (["--save", "file/m"], "file/m: Not a directory"),
        (["--save", "/dev/null"], "/dev/null: is not a regular file"),
        (["--out", "a" * 300], "File name too long"),
    ):
        assert cli.main(["cluster", str(data), "--clusters", "2", "--columns", "a", *options]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert message in printed.err
        assert printed.err.count("\n") == 1
    assert data.read_bytes() == table[0].read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data.csv", "file", "link"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_goes_wrong_leaves_the_old_files(table, tmp_path, monkeypatch, capsys, error):
    def full(*_):
        raise error

    monkeypatch.setattr("ekmfast._files.os.fsync", full)
    arguments = ["cluster", str(table[0]), "--clusters", "2", "--columns", "a"]
    for option, name in (("--out", "l.csv"), ("--save", "m"), ("--plot", "p.png")):
        (tmp_path / name).write_bytes(b"old")
        code = cli.main([*arguments, option, str(tmp_path / name)])
        message = capsys.readouterr().err
        if isinstance(error, OSError):
            assert code == 1
            assert message == f"ekmfast: error: {tmp_path / name}: No space left on device\n"
        else:
            assert (code, message) == (130, "ekmfast: interrupted\n")
        assert (tmp_path / name).read_bytes() == b"old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["l.csv", "m", "p.png"]


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "ekmfast.cli", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,
    )


def test_a_table_goes_through_pipes(table):
    arguments = ["cluster", "-", "--clusters", "3", "--columns", "a,b,c", "--out", "-"]
    with table[0].open() as file:
        done = command(*arguments, stdin=file, stdout=subprocess.PIPE)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "label"
    assert sorted(np.bincount([int(line) for line in lines[1:]])) == [10, 20, 300]
    assert says(done.stderr, "data") == "330 rows, 3 columns"


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["info"], ["--version"], ["cluster", "--help"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_device_is_one_line(arguments, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = command(*arguments, stdout=full, env=environment)
    if arguments[0] == "info" or not unbuffered:  # argparse ignores errors of its own printing
        assert done.stderr == "ekmfast: error: standard output: No space left on device\n"
        assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_ends_the_command_quietly():
    end, start = os.pipe()
    os.close(end)
    try:
        done = command("info", stdout=start)
    finally:
        os.close(start)
    assert (done.returncode, done.stderr) == (141, "")


def test_codes_of_another_command_are_clustered(tmp_path, capsys):
    X = np.vstack([np.zeros((9, 2)), np.ones((3, 2)) * 9]) + np.arange(12)[:, None] / 50
    np.savez(tmp_path / "c.npz", codes=X, path=np.full(12, "a"), label=np.arange(12))
    rows = [f"a,0,{a},{b}" for a, b in X]
    (tmp_path / "c.csv").write_text("\n".join(["path,label,z0,z1", *rows]) + "\n")
    for name, message in (
        ("c.npz", "the array codes is read"),
        ("c.csv", "the columns path, label"),
    ):
        assert cli.main(["cluster", str(tmp_path / name), "--clusters", "2"]) == 0
        printed = capsys.readouterr()
        assert printed.err.startswith(f"ekmfast: warning: {tmp_path / name}: {message}")
        assert says(printed.out, "data") == "12 rows, 2 columns"
        assert says(printed.out, "sizes") in ("9 3", "3 9")


def test_a_link_that_leads_nowhere_is_told(tmp_path, capsys):
    (tmp_path / "l.csv").symlink_to("gone")
    assert cli.main(["cluster", str(tmp_path / "l.csv"), "--clusters", "2"]) == 1
    assert "l.csv: No such file or directory: the link points to 'gone'" in capsys.readouterr().err


def test_names_of_columns_may_hold_commas(tmp_path, capsys):
    (tmp_path / "t.csv").write_text('"a, b",c\n1,2\n3,4\n9,9\n')
    arguments = ["cluster", str(tmp_path / "t.csv"), "--clusters", "2", "--columns", '"a, b", c']
    assert cli.main(arguments) == 0
    assert says(capsys.readouterr().out, "data") == "3 rows, 2 columns"


def test_cluster_without_matplotlib_is_one_line(table, monkeypatch, capsys, tmp_path):
    arguments = ["cluster", str(table[0]), "--clusters", "2", "--columns", "a"]
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert cli.main([*arguments, "--plot", str(tmp_path / "p.png")]) == 1
    assert 'pip install "ekmfast[plot]"' in capsys.readouterr().err
    assert cli.main(arguments) == 0


def test_an_interrupted_fit_is_told(table, monkeypatch, capsys):
    def interrupt(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(EKMeans, "fit", interrupt)
    assert cli.main(["cluster", str(table[0]), "--clusters", "2", "--columns", "a"]) == 130
    assert capsys.readouterr().err == "ekmfast: interrupted\n"


# --- tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("1,2\n3,4\n", ["0", "1"], [[1, 2], [3, 4]]),
        ("x,y\n1,2\n", ["x", "y"], [[1, 2]]),
        ("\ufeffx,y\r\n1,2\r\n", ["x", "y"], [[1, 2]]),
        ('"x, y";z\n"1";-2e3\n\n3;.5\n', ["x, y", "z"], [[1, -2000], [3, 0.5]]),
        ("x\ty\n 1\t2 \n", ["x", "y"], [[1, 2]]),
        ("height\n1\n2", ["height"], [[1], [2]]),
        ("\n\n,y\n.5,1\n2,2\n", ["0", "y"], [[0.5, 1], [2, 2]]),
        ("2019,total\n1,2\n", ["2019", "total"], [[1, 2]]),
        ("7", ["0"], [[7]]),
    ],
)
def test_text_is_read(tmp_path, text, names, rows):
    (tmp_path / "t.csv").write_text(text, newline="")
    X, found = read_table(tmp_path / "t.csv")
    assert (X.tolist(), found) == (rows, names)


def test_columns_are_chosen_by_name_and_number(tmp_path):
    (tmp_path / "t.csv").write_text("a,2,b,b\n1,2,3,4\n5,6,7,8\n")
    X, names = read_table(tmp_path / "t.csv", ["2", "0", "3"])
    assert (X.tolist(), names) == ([[2, 1, 4], [6, 5, 8]], ["2", "a", "b"])
    np.save(tmp_path / "t.npy", X.astype(np.float32))
    X, names = read_table(tmp_path / "t.npy", ["1"])
    assert (X.tolist(), X.dtype, names) == ([[1], [5]], np.float32, ["1"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ("x,y\n", "no rows"),
        ("x,y\n1,2\n3,\n", "line 3, column 'y': the value is missing"),
        ("x,y\n\n1,2\n\n3,NaN\n", "line 5, column 'y': the value is missing"),
        ("1,\n2,3\n", "line 1, column '1': the value is missing"),
        ("x,y\n1,2\n3,-inf\n", "line 3, column 'y': -inf is not a finite number"),
        ("x,y\n1,2\n3,4,5\n", "line 3 has 3 cells: must be 2"),
        ("x,y\n1,2\n3\n", "line 3 has 1 cells: must be 2"),
        ("x,y,z\n1,2\n3,4\n", "line 2 has 2 cells: must be 3"),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", "line 1, column '2': 'setosa' is not a number"),
        ("x,y\n1,2\n3,1_0\n", "line 3, column 'y': '1_0' is not a number"),
        (b"x,y\n1,\xff\n", "line 2: not text in UTF-8"),
        (b"\x00\x01\x02", ""),
    ],
)
def test_bad_text_is_refused_by_line_and_column(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {re.escape(message)}"):
        read_table(path)


def test_bad_columns_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,b\n1,2,3\n")
    for column, message in (("b", "more than one column 'b'"), ("3", "no column '3'"), ("", "''")):
        with pytest.raises(ValueError, match=message):
            read_table(tmp_path / "t.csv", [column])


def test_arrays_are_read(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray([[1, 2], [3, 4]]))
    X, names = read_table(tmp_path / "a.npy")
    assert (X.tolist(), X.dtype, names) == ([[1, 2], [3, 4]], np.float64, ["0", "1"])
    np.savez(tmp_path / "b.npz", y=[0, 1], X=np.ones((2, 3), np.float32))
    assert read_table(tmp_path / "b.npz")[0].dtype == np.float32
    np.savez_compressed(tmp_path / "c.npz", points=[1.0, 2.0])
    assert read_table(tmp_path / "c.npz")[0].tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2)), r"has shape \(2, 2, 2\): must be \(rows, columns\)"),
        (np.zeros((2, 0)), "has shape"),
        (np.zeros((0, 2)), "no rows"),
        (np.zeros(2, complex), "dtype complex128"),
        (np.array([["a"]]), "dtype <U1"),
        (np.array([[1, np.nan]]), "row 0, column '1': nan is not a finite number"),
        (np.array([{}]), "it holds Python objects$"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=rf"a\.npy: .*{message}"):
        read_table(tmp_path / "a.npy")


def test_bad_archives_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=[1], y=[2])
    with pytest.raises(ValueError, match="holds the arrays x, y: must be one, or X, or codes"):
        read_table(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    (tmp_path / "c.npy").write_bytes(b"")
    (tmp_path / "d.npy").write_bytes(b"1,2\n3,4\n")
    np.save(tmp_path / "e.npy", [1.0, 2.0])
    header = (tmp_path / "e.npy").read_bytes().replace(b"(2,)", b"(2,(")
    (tmp_path / "e.npy").write_bytes(header)
    for name in ("b.npz", "c.npy", "d.npy", "e.npy"):
        with pytest.raises(ValueError, match=f"{name}: not a whole NumPy file"):
            read_table(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_table(tmp_path / "none.csv")


# --- the sentences follow the numbers ------------------------------------------------------


@pytest.mark.parametrize(
    ("ekm", "kmeans", "expected"),
    [(0.98, 0.25, "clearly better"), (0.25, 0.98, "clearly worse"), (0.97, 0.98, "about equal")],
)
def test_reading_of_a_draw(ekm, kmeans, expected):
    rows = {
        "ekm": {"ari": ekm, "accuracy": 0.9, "alpha": 2.0},
        "dvariance": {"ari": 0.5, "accuracy": 0.9, "alpha": 1.0},
        "kmeans": {"ari": kmeans, "accuracy": 0.9},
    }
    text = readings.draw_reading("20:1:1", rows)
    assert expected in text
    assert "2 times the paper's alpha" in text


@pytest.mark.parametrize(
    ("ari", "expected"),
    [(0.95, "finds the classes"), (0.88, "most of"), (0.5, "in part"), (-0.1, "does not find")],
)
def test_verdicts_follow_the_figures(ari, expected):
    assert expected in readings.verdict({"ari": ari, "accuracy": 0.96})


@pytest.mark.parametrize(
    ("to_origin", "converged", "expected"),
    [
        ([0, 0, 0], True, "every centroid to the origin"),
        ([0, 1, 1], True, "1 of 3 centroids"),
        ([1, 1, 1], False, "does not converge"),
        ([1, 1, 1], True, "converges too"),
    ],
)
def test_reading_of_the_naive_formula(to_origin, converged, expected):
    place = {"to_origin": to_origin, "to_each_other": [0.5, 0.5, 0.5]}
    row = {"ari": 0.5, "centroids": place, "converged": converged, "lost": 0.7, "sizes": [2, 1, 1]}
    text = readings.collapse_reading(dict.fromkeys(METHODS, row))
    assert text.count(expected) == 2
    assert text.count("the exponentials of 70 % of the images") == 2
    assert "do not all coincide" in text


@pytest.mark.parametrize(
    ("plain", "augmented", "expected"),
    [
        (0.98, 0.98, "Equally many"),
        (0.98, 0.99, "chance"),
        (0.9, 0.99, "45 more of 500 held-out images are"),
        (0.98, 0.982, "1 more of 500 held-out images is"),
        (0.982, 0.98, "1 fewer of 500 held-out images is"),
    ],
)
def test_reading_of_the_augmentation(plain, augmented, expected):
    scores = {"accuracy": plain, "accuracy_augmented": augmented, "n_validation": 500}
    assert expected in readings.finetune_reading(scores)
