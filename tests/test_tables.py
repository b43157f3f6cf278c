"""Tables are read once and completely, and no row is lost."""

import os
import re
import threading

import numpy as np
import pytest

from ekmfast.data.tables import read_table


def table(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def through_a_pipe(content):
    """The path of a pipe that gives the content once, as /dev/stdin and <(...) do."""
    end, start = os.pipe()

    def write():
        with open(start, "wb") as file:
            file.write(content)

    writer = threading.Thread(target=write)
    writer.start()
    return end, writer


@pytest.mark.parametrize("header", ["", "a,b\n", "\n\na,b\n"])
def test_a_pipe_is_read_from_beginning_to_end(header):
    X = np.random.default_rng(0).normal(size=(5000, 2))
    text = header + "".join(f"{a!r},{b!r}\n" for a, b in X.tolist())
    end, writer = through_a_pipe(text.encode())
    try:
        read, _ = read_table(f"/dev/fd/{end}")
    finally:
        os.close(end)
        writer.join()
    np.testing.assert_array_equal(read, X)


def test_a_bad_line_of_a_pipe_is_told():
    end, writer = through_a_pipe(b"a,b\n" + 5000 * b"1,2\n" + b"1,x\n")
    try:
        with pytest.raises(ValueError, match="line 5002, column 'b': 'x' is not a number"):
            read_table(f"/dev/fd/{end}")
    finally:
        os.close(end)
        writer.join()


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("a,b\r1,2\r3,4\r", ["a", "b"], [[1, 2], [3, 4]]),
        ("a,b\r\n1,2\n3,4", ["a", "b"], [[1, 2], [3, 4]]),
        ('"a\nof b",c\n1,2\n', ["a\nof b", "c"], [[1, 2]]),
        ('"a\r\n\r\nof b","c ""d"""\r\n1,2\r\n', ["a\r\n\r\nof b", 'c "d"'], [[1, 2]]),
        ("a,b\n \n1,2\n\t\n\n3,4\n  ", ["a", "b"], [[1, 2], [3, 4]]),
        ("a\tb\n1\t2\n \n", ["a", "b"], [[1, 2]]),
        ("größe,b\n1,2\n".encode("utf-16"), ["größe", "b"], [[1, 2]]),
        ("größe,b\n1,2\n", ["größe", "b"], [[1, 2]]),
        (",0,1\n.5,1.5,2\n3,2.5,3\n", ["0", "0", "1"], [[0.5, 1.5, 2], [3, 2.5, 3]]),
        ("1 , -2e-3\n+3,.5\n", ["0", "1"], [[1, -0.002], [3, 0.5]]),
    ],
)
def test_odd_text_is_read(tmp_path, text, names, rows):
    X, found = read_table(table(tmp_path, text))
    assert (X.tolist(), found) == (rows, names)
    assert X.flags.c_contiguous
    assert X.flags.writeable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3", "line 3 has 1 cells: must be 2"),
        ("a,b\n1,2\n3,4,\n", "line 3 has 3 cells: must be 2"),
        ("a,b\n1,2\n\n3,4\n# the end\n", "line 5 has 1 cells: must be 2"),
        ("# of today\na,b\n1,2\n", "line 2 has 2 cells: must be 1; comments are not skipped"),
        ("a,b\n1,2\n3,\0004\n", "line 3 holds a NUL byte: not text"),
        ('a,b\n1,2\n3,"4\n5,6\n7,8\n', "line 3: a quote is not closed"),
        ('a,b\n1,2\n3,"4\n' + 50_000 * "5,6\n", "line 3: a quote is not closed"),
        ('a,b\n"1,2\n', "line 2: a quote is not closed"),
        ('a,b\n1,"2"3\n', """line 2: ',' expected after '"'"""),
        ("a,b\n1,2\n\n3,\ufeff4\n", "line 4, column 'b': '\\ufeff4' is not a number"),
        ("größe,b\n1,2\n".encode("latin-1"), "line 1: not text in UTF-8"),
        ("a,b\n1,2\nä,3\n".encode("latin-1"), "line 3: not text in UTF-8"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "not text in UTF-8 or UTF-16"),
        (",a\n", "no rows"),
        ('a\n1\n""\n2\n', "line 3, column 'a': the value is missing"),
        ("a;b\n1,5;2\n", "line 2, column 'a': '1,5' has a decimal comma; it must be a point"),
        ("1,5;2,5\n3,5;4\n", "line 1, column '0': '1,5' has a decimal comma"),
        ("1,5\t2,5\n", "line 1, column '0': '1,5' has a decimal comma"),
        ("a;b\n1.5;-1,2e-7\n", "line 2, column 'b': '-1,2e-7' has a decimal comma"),
        ("1 2\n3 4\n", "line 2, column '1 2': '3 4' is not a number; cells are parted by commas"),
        ("a,when\n1,2024-01-31\n", "line 2, column 'when': '2024-01-31' is not a number; choose"),
        ("a,b\n1,1e999\n", "line 2, column 'b': inf is not a finite number"),
        (b"\x93NUMPY\x01\x00", "is a NumPy file: its name must end in .npy"),
    ],
)
def test_text_that_does_not_parse_as_a_whole_is_refused(tmp_path, text, message):
    path = table(tmp_path, text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {re.escape(message)}"):
        read_table(path)


def test_columns_that_are_not_read_may_hold_anything_but_must_be_there(tmp_path):
    path = table(tmp_path, 'a,b,c\n1,x,2\n3,"y,\n_",4\n')
    X, names = read_table(path, ["c", "a"])
    assert (X.tolist(), names) == ([[2, 1], [4, 3]], ["c", "a"])
    with pytest.raises(ValueError, match="line 3 has 2 cells: must be 3"):
        read_table(table(tmp_path, "a,b,c\n1,x,2\n3,4\n"), ["a"])


@pytest.mark.parametrize(
    "text",
    ["2019,2020\n15,16.5\n", "2019,2020\n1,2\n", "0,1\n.5,2.5\n", "0\n.5\n", "3,4,5\n1,1,1\n"],
)
def test_a_line_of_numbers_is_data_or_names_as_told(tmp_path, text):
    path = table(tmp_path, text)
    first, second = (line.split(",") for line in text.split())
    with pytest.warns(UserWarning, match=r"t\.csv: line 1 \(.* read as a row of data; .*--header"):
        X, names = read_table(path)
    assert len(X) == 2
    for header, rows in ((False, [first, second]), (True, [second])):
        X, names = read_table(path, header=header)
        np.testing.assert_array_equal(X, np.array(rows, float))
        assert names == (first if header else [str(i) for i in range(len(first))])


# First rows with cells that are missing values or not names, each above a row of numbers.
ROWS_NO_NAMES = [
    (",2.5\n1.5,3\n4.5,5\n", "line 1, column '0': the value is missing (''"),
    (",-2\n1,3\n", "line 1, column '0': the value is missing (''"),
    (",1e5\n1,3\n", "line 1, column '0': the value is missing (''"),
    (",nan\n1,3\n", "line 1, column '0': the value is missing (''"),
    (",NA\n1,3\n", "line 1, column '0': the value is missing (''"),
    (",2,NA\n1,3,4\n", "line 1, column '0': the value is missing (''"),
    (",\n1,2\n", "line 1, column '0': the value is missing (''"),
    ("NA,NA\n1,2\n3,4\n", "line 1, column '0': the value is missing ('NA'"),
    ("NA,2\n1,2\n", "line 1, column '0': the value is missing ('NA'"),
    ("nan,nan\n1,2\n", "line 1, column '0': the value is missing"),
    ("#N/A,2\n1,2\n", "line 1, column '0': the value is missing ('#N/A'"),
    ("<NA>,<NA>\n1,2\n", "line 1, column '0': the value is missing ('<NA>'"),
    ("#DIV/0!,2\n1,2\n", "line 1, column '0': the value is missing ('#DIV/0!'"),
    ("-,-\n1,2\n", "line 1, column '0': the value is missing ('-'"),
    ("--,.\n1,2\n", "line 1, column '0': the value is missing ('--'"),
    ("?\n1\n2\n", "line 1, column '0': the value is missing ('?'"),
    ('""\n1\n2\n', "line 1, column '0': the value is missing (''"),
    (";1.5\n1;2\n", "line 1, column '0': the value is missing (''"),
    ("inf,inf\n1,2\n", "line 1, column '0': inf is not a finite number"),
]


@pytest.mark.parametrize(("text", "message"), ROWS_NO_NAMES)
def test_a_first_row_without_values_is_not_lost(tmp_path, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(table(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (",2\n1.5,3\n", None),
        (",2,1\n1.5,3,4\n", None),
        ("x,2.5\n1,3\n", None),
        ("1.5.2,2.5\n1,3\n", None),
        ("2020-01,2020-02\n1,3\n", None),
        ("1_000,2_000\n1,3\n", None),
        ("#1,2\n1,3\n", None),
        ("label,400.5,401\n1,3,4\n", None),
        ("ann,NA,NA\nbob,1.8,80\n", ["1", "2"]),
        ("NA,ann\n3,bob\n", ["0"]),
    ],
)
def test_names_that_may_be_data_are_told(tmp_path, text, columns):
    path = table(tmp_path, text)
    warning = r"t\.csv: line 1 \(.*\) is taken as names; .* say --no-header \(if not, --header\)"
    with pytest.warns(UserWarning, match=warning):
        assert len(read_table(path, columns)[0]) == 1
    X, _ = read_table(path, columns, header=True)
    assert len(X) == 1
    with pytest.raises(ValueError, match="line 1, column"):
        read_table(path, columns, header=False)


@pytest.mark.parametrize(
    "text",
    [
        "RI,Na,Mg\n1,2,3\n",
        ",a,b\n.5,2,3\n",
        "a,0,1\n1,2,3\n",
        "label,400,401\n1,3,4\n",
        "a,,b\n1,2,3\n",
        "a\n1\n",
        "é\n1\n",
    ],
)
def test_usual_names_are_taken_without_a_word(tmp_path, text):
    assert len(read_table(table(tmp_path, text))[0]) == 1


@pytest.mark.parametrize("text", ['x,y\n"3", "4"\n', '"x", "y"\n3, 4\n', '"x"; "y"\n "3"; 4\n'])
def test_spaces_may_stand_before_quotes(tmp_path, text):
    X, names = read_table(table(tmp_path, text))
    assert (X.tolist(), names) == ([[3, 4]], ["x", "y"])
    assert read_table(table(tmp_path, 'a\n1\n  \n "2"\n'))[0].tolist() == [[1], [2]]
    with pytest.raises(ValueError, match="line 3, column 'a': the value is missing"):
        read_table(table(tmp_path, 'a\n1\n ""\n2\n'))


@pytest.mark.parametrize("text", ["1,2\n3,4\n", "5.1,3.5\n4.9,3.0\n", "0\n1\n", "3,1\n.5,2\n"])
def test_usual_rows_are_not_taken_for_names(tmp_path, text):
    assert len(read_table(table(tmp_path, text))[0]) == 2


def test_names_may_be_said_to_be_there_or_not(tmp_path):
    path = table(tmp_path, "a,b\n1,2\n")
    with pytest.raises(ValueError, match="line 1, column '0': 'a' is not a number"):
        read_table(path, header=False)
    with pytest.raises(ValueError, match="no rows"):
        read_table(table(tmp_path, "1,2\n"), header=True)
    np.save(tmp_path / "t.npy", np.eye(2))
    with pytest.raises(ValueError, match="only text has a line of names"):
        read_table(tmp_path / "t.npy", header=True)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("names", [",a,b", '"",a,b', "Unnamed: 0,a,b"])
def test_an_index_is_left_out_with_a_word(tmp_path, names, first):
    path = table(tmp_path, f"{names}\n{first},5,6\n{first + 1},7,8\n{first + 2},9,9\n")
    with pytest.warns(UserWarning, match="first column, unnamed, counts the rows and is left out"):
        X, found = read_table(path)
    assert (X.tolist(), found) == ([[5, 6], [7, 8], [9, 9]], ["a", "b"])
    X, _ = read_table(path, ["0", "b"])
    assert X.tolist() == [[first, 6], [first + 1, 8], [first + 2, 9]]


def test_an_index_with_gaps_is_read_with_a_word(tmp_path):
    with pytest.warns(UserWarning, match="first column, unnamed, is read; is it an index"):
        X, names = read_table(table(tmp_path, ",a\n0,5\n3,7\n"))
    assert (X.tolist(), names) == ([[0, 5], [3, 7]], ["0", "a"])


def test_an_index_above_numbers_is_left_out(tmp_path):
    with pytest.warns(UserWarning, match="is left out"):
        X, names = read_table(table(tmp_path, ",0,1\n0,5,6\n1,7,8\n"))
    assert (X.tolist(), names) == ([[5, 6], [7, 8]], ["0", "1"])


@pytest.mark.parametrize("first", [0, 1])
def test_a_column_that_counts_the_rows_is_read_with_a_word(tmp_path, first):
    rows = [[first + i, 5.0 - i] for i in range(3)]
    path = table(tmp_path, "id,a\n" + "".join(f"{i},{a}\n" for i, a in rows))
    with pytest.warns(UserWarning, match="first column, 'id', counts the rows and is read; is it"):
        X, names = read_table(path)
    assert (X.tolist(), names) == (rows, ["id", "a"])
    assert read_table(path, ["id"])[0].tolist() == [[first], [first + 1], [first + 2]]


@pytest.mark.parametrize(
    "text", ["index,a\n0,5\n1,6\n", ",a\n.5,5\n2,6\n", "0,5\n1,7\n", '""\n0\n1\n']
)
def test_columns_with_a_name_or_other_values_stay(tmp_path, text):
    X, _ = read_table(table(tmp_path, text), header=text[0] != "0")
    assert X.shape == (2, 1 if text[0] == '"' else 2)


def test_codes_are_read_from_what_encode_writes(tmp_path):
    path = table(tmp_path, "path,label,z0,z1\na.png,0,.5,1\nb.png,1,2,3\n")
    with pytest.warns(UserWarning, match="the columns path, label are left out"):
        X, names = read_table(path)
    assert (X.tolist(), names) == ([[0.5, 1], [2, 3]], ["z0", "z1"])
    assert read_table(path, ["label"])[0].tolist() == [[0], [1]]
    codes = np.eye(3, dtype=np.float32)
    np.savez(tmp_path / "t.npz", codes=codes, path=["a", "b", "c"], label=[0, 1, 2])
    with pytest.warns(UserWarning, match="the array codes is read, label, path left out"):
        X, _ = read_table(tmp_path / "t.npz")
    assert X.dtype == np.float32
    np.testing.assert_array_equal(X, codes)


@pytest.mark.parametrize("name", ["T.CSV", "T.NPY", "T.NPZ"])
def test_suffixes_may_be_in_capitals(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        if name == "T.CSV":
            file.write(b"1,0\n0,1\n")
        else:
            (np.save if name == "T.NPY" else np.savez)(file, np.eye(2))
    assert read_table(path)[0].tolist() == [[1, 0], [0, 1]]


def test_missing_values_are_read_as_nan_where_they_may_be(tmp_path):
    path = table(tmp_path, "a,b,c\n1,, NA\n#N/A,NaN,2\n3,-,4\n")
    X, names = read_table(path, missing=True)
    np.testing.assert_array_equal(X, [[1, np.nan, np.nan], [np.nan, np.nan, 2], [3, np.nan, 4]])
    assert names == ["a", "b", "c"]
    np.testing.assert_array_equal(read_table(path, ["c"], missing=True)[0], [[np.nan], [2], [4]])
    np.testing.assert_array_equal(
        read_table(table(tmp_path, "1,\n2,3\n"), missing=True)[0], [[1, np.nan], [2, 3]]
    )
    for text, message in (
        ("a,b\n1,\n2,inf\n", "line 3, column 'b': inf is not a finite number"),
        ("a,b\n1,\n,x\n", "line 3, column 'b': 'x' is not a number"),
        ("a,b\n1,\n2\n", "line 3 has 1 cells: must be 2"),
    ):
        with pytest.raises(ValueError, match=message):
            read_table(table(tmp_path, text), missing=True)
    np.save(tmp_path / "x.npy", [[1, np.nan], [2, 3]])
    assert np.isnan(read_table(tmp_path / "x.npy", missing=True)[0]).sum() == 1
    np.save(tmp_path / "x.npy", [[1, np.nan], [np.inf, 3]])
    with pytest.raises(ValueError, match="row 1, column '0': inf is not a finite number"):
        read_table(tmp_path / "x.npy", missing=True)
