"""Files are written completely or not at all, and no temporary files are left."""

import errno
import gc
import os
import resource
import signal
import stat
import subprocess
import sys

import numpy as np
import pytest

from ekmfast import _files
from ekmfast._files import check_output, open_input, replace_file, write_csv

# Other processes import only this module, since importing all of ekmfast takes long.
ALONE = f"""
import os, signal, sys
sys.path.insert(0, {os.path.dirname(_files.__file__)!r})
from _files import check_output, replace_file
"""
# On network file systems, for instance, a file must have a name from the beginning.
NAMED = "del os.O_TMPFILE\n"


@pytest.fixture(params=["hidden", "named"])
def temporaries(request, monkeypatch):
    """Both kinds of temporary files, without and with a name."""
    if request.param == "named":
        monkeypatch.delattr(os, "O_TMPFILE")
    return request.param


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_file_is_written_and_replaced(tmp_path, temporaries):
    path = tmp_path / "a"
    for text in (b"one", b"another"):
        replace_file(path, lambda file, text=text: file.write(text))
        assert content(tmp_path) == {"a": text}
    replace_file(os.fsencode(path), lambda file: None)
    assert content(tmp_path) == {"a": b""}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_goes_wrong_leaves_the_old_file(tmp_path, temporaries, error):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fill(file):
        file.write(b"half" * 10_000)
        file.flush()
        raise error

    with pytest.raises(error):
        replace_file(path, fill)
    assert content(tmp_path) == {"a": b"old"}
    with pytest.raises(error):
        replace_file(tmp_path / "new", fill)
    assert content(tmp_path) == {"a": b"old"}


# NumPy 2.0 leaves the archive open when `savez` fails, and closing it later fails again.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_file_that_cannot_grow_is_named(tmp_path, temporaries):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            replace_file(path, lambda file: np.savez(file, a=np.zeros(100_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert raised.value.filename == str(path)
    assert content(tmp_path) == {"a": b"old"}
    del raised
    gc.collect()  # within this test


def test_permissions_of_an_older_file_are_kept(tmp_path, temporaries):
    path = tmp_path / "a"
    for mode in (0o600, 0o640, 0o777):
        path.write_bytes(b"old")
        path.chmod(mode)
        while_written = []
        replace_file(
            path, lambda file, modes=while_written: modes.append(os.fstat(file.fileno()).st_mode)
        )
        assert stat.S_IMODE(while_written.pop()) == mode
        assert stat.S_IMODE(path.stat().st_mode) == mode
    before = os.umask(0o027)
    try:
        replace_file(tmp_path / "b", lambda file: file.write(b"new"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o640


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_the_owner_of_an_older_file_is_kept(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    os.chown(path, 1234, 2345)
    replace_file(path, lambda file: file.write(b"new"))
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)


def test_links_are_followed(tmp_path, monkeypatch, temporaries):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/a")
    monkeypatch.chdir(tmp_path)
    for text in (b"one", b"two"):  # the target of the link does not exist at first
        replace_file("link", lambda file, text=text: file.write(text))
        assert (tmp_path / "link").is_symlink()
        assert content(tmp_path / "there") == {"a": text}
    (tmp_path / "astray").symlink_to("none/a")
    with pytest.raises(FileNotFoundError, match=r"no such folder .*none.*: 'astray'"):
        check_output("astray")


def test_what_is_written_can_be_mapped(tmp_path, temporaries):
    def fill(file):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": (3,)}
        )
        at = file.tell()
        rows = np.memmap(file, np.float32, "r+", at, (3,))
        rows[:] = 1, 2, 3
        rows.flush()

    replace_file(tmp_path / "a.npy", fill)
    assert np.load(tmp_path / "a.npy").tolist() == [1, 2, 3]


@pytest.mark.parametrize("named", ["", NAMED], ids=["hidden", "named"])
def test_a_killed_process_leaves_nothing_for_ever(tmp_path, named):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    program = f"""{ALONE}{named}
def fill(file):
    file.write(b"half" * 10_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
replace_file({str(path)!r}, fill)
"""
    for _ in range(2):
        died = subprocess.run([sys.executable, "-c", program], check=False)
        assert died.returncode == -signal.SIGKILL
        assert path.read_bytes() == b"old"
        assert len(content(tmp_path)) == (2 if named else 1)
    program = f"""{ALONE}{named}
replace_file({str(path)!r}, lambda file: file.write(b"new"))
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert content(tmp_path) == {"a": b"new"}


def test_the_temporary_of_a_living_process_stays(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE")

    def fill(file):
        file.write(b"outer")
        program = f"""{ALONE}{NAMED}
replace_file({str(tmp_path / "b")!r}, lambda file: file.write(b"inner"))
"""
        subprocess.run([sys.executable, "-c", program], check=True)

    replace_file(tmp_path / "a", fill)
    assert content(tmp_path) == {"a": b"outer", "b": b"inner"}


@pytest.mark.parametrize("named", ["", NAMED], ids=["hidden", "named"])
def test_one_killed_before_its_file_took_its_place_leaves_nothing_for_ever(tmp_path, named):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    program = f"""{ALONE}{named}
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
replace_file({str(path)!r}, lambda file: file.write(b"whole"))
"""
    died = subprocess.run([sys.executable, "-c", program], check=False)
    assert died.returncode == -signal.SIGKILL
    assert sorted(content(tmp_path).values()) == [b"old", b"whole"]
    replace_file(tmp_path / "b", lambda file: file.write(b"new"))
    assert content(tmp_path) == {"a": b"old", "b": b"new"}


def test_a_file_about_to_take_its_place_is_not_removed_by_others(
    tmp_path, monkeypatch, temporaries
):
    replace, seen = os.replace, []

    def replace_after_another(source, target):
        seen.append(sorted(content(tmp_path).values()))
        program = f"""{ALONE}{NAMED if temporaries == "named" else ""}
replace_file({str(tmp_path / "b")!r}, lambda file: file.write(b"inner"))
"""
        subprocess.run([sys.executable, "-c", program], check=True)
        replace(source, target)

    monkeypatch.setattr(_files.os, "replace", replace_after_another)
    replace_file(tmp_path / "a", lambda file: file.write(b"outer"))
    assert seen == [[b"outer"]]
    assert content(tmp_path) == {"a": b"outer", "b": b"inner"}


def test_what_is_no_temporary_of_ours_is_neither_waited_for_nor_removed(tmp_path, temporaries):
    folder = tmp_path / "shared"
    folder.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"mine")
    os.mkfifo(folder / ".ekmfast-pipe.tmp")
    (folder / ".ekmfast-link.tmp").symlink_to(tmp_path / "elsewhere")
    (folder / ".ekmfast-folder.tmp").mkdir()
    # In a process of its own, which waiting for the pipe would not end.
    program = f"""{ALONE}{NAMED if temporaries == "named" else ""}
replace_file({str(folder / "a")!r}, lambda file: file.write(b"new"))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    names = [".ekmfast-folder.tmp", ".ekmfast-link.tmp", ".ekmfast-pipe.tmp", "a"]
    assert sorted(os.listdir(folder)) == names
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_others_cannot_open_the_replacement_of_a_private_file(tmp_path, monkeypatch, temporaries):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o600)
    fchmod, modes = os.fchmod, []

    def noted(descriptor, mode):
        modes.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fchmod(descriptor, mode)

    monkeypatch.setattr(_files.os, "fchmod", noted)
    before = os.umask(0)
    try:
        replace_file(path, lambda file: file.write(b"new"))
        replace_file(tmp_path / "b", lambda file: file.write(b"new"))
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o666


def test_a_temporary_taken_for_abandoned_is_made_anew(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_TMPFILE")
    lock, taken = _files.fcntl.flock, []

    def flock(file, operation):
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        lock(file, operation)

    monkeypatch.setattr(_files.fcntl, "flock", flock)
    replace_file(tmp_path / "a", lambda file: file.write(b"new"))
    assert len(taken) == 1
    assert content(tmp_path) == {"a": b"new"}


def test_what_cannot_be_written_is_refused_before(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        (".", "is a folder"),
        ("none/a", "no such folder"),
        ("file/a", "Not a directory"),
        ("pipe", "is not a regular file"),
        ("a" * 256, "File name too long"),
    ):
        for use in (check_output, lambda path: replace_file(path, pytest.fail)):
            with pytest.raises(OSError, match=message) as raised:
                use(tmp_path / name)
            assert raised.value.filename == str(tmp_path / name)
    for device in ("/dev/stdout", "/dev/fd/1", "/dev/null"):
        with pytest.raises(OSError, match="is not a regular file"):
            check_output(device)
        check_output(device, streams=True)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that takes no files")
def test_whether_a_folder_takes_files_is_tried_before(tmp_path):
    with pytest.raises(OSError, match="the folder '/proc' takes no new files") as raised:
        check_output("/proc/a")
    assert raised.value.filename == "/proc/a"
    (tmp_path / "a").write_bytes(b"old")
    for name in ("a", "b"):
        check_output(tmp_path / name)
    assert content(tmp_path) == {"a": b"old"}


def test_permissions_are_looked_at_before(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file").chmod(0o400)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "file").write_bytes(b"old")
    (tmp_path / "closed" / "file").chmod(0o666)
    (tmp_path / "closed").chmod(0o555)
    tmp_path.chmod(0o755)
    program = f"""{ALONE}
os.chdir({str(tmp_path)!r})
if os.getuid() == 0:
    os.setuid(65534)
for name in ("file", "closed/file", "closed/new"):
    try:
        check_output(name)
    except PermissionError as error:
        print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    (tmp_path / "closed").chmod(0o755)
    assert output == [
        "[Errno 13] its permissions forbid writing: 'file'",
        "[Errno 13] the folder 'closed' takes no new files: 'closed/file'",
        "[Errno 13] the folder 'closed' takes no new files: 'closed/new'",
    ]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_stream_is_written_in_its_turn(tmp_path, name):
    program = f"""{ALONE}
print("before")
replace_file({name!r}, lambda file: file.write(b"between\\n"), streams=True)
print("after")
"""
    command = [sys.executable, "-c", program]
    whole = "before\nbetween\nafter\n"
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == whole
    with (tmp_path / "out").open("w") as out:
        subprocess.run(command, check=True, stdout=out)
    assert content(tmp_path) == {"out": whole.encode()}


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full here")
def test_a_full_device_is_named():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        replace_file("/dev/full", lambda file: file.write(b"a"), streams=True)


def test_text_that_cannot_be_written_leaves_the_old_table(tmp_path):
    path = tmp_path / "a.csv"
    write_csv(path, ["a", "b"], [["x,y", 1.5], ["größe", 2]])
    assert path.read_bytes() == 'a,b\n"x,y",1.5\ngröße,2\n'.encode()
    with pytest.raises(UnicodeEncodeError):
        write_csv(path, ["a"], [["b\udcff"]])
    assert path.read_bytes().startswith(b"a,b\n")
    write_csv(path, ["a"], [["b\udcff"]], errors="surrogateescape")
    assert path.read_bytes() == b"a\nb\xff\n"


def test_an_open_file_is_read_on_and_others_from_their_beginning(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"one\ntwo\n")
    with path.open("rb", buffering=0) as file:
        file.seek(4)
        with open_input(f"/proc/self/fd/{file.fileno()}") as again:
            assert again.read() == b"two\n"
        assert file.read() == b""  # still open
    with open_input(path) as file:
        assert file.read() == b"one\ntwo\n"
    with pytest.raises(OSError, match="Bad file descriptor: '/dev/fd/987'"):
        open_input("/dev/fd/987")
    with pytest.raises(FileNotFoundError, match="none"):
        open_input(tmp_path / "none")


def test_without_locks_and_permissions_as_on_windows(tmp_path, monkeypatch):
    """Windows refuses to rename an open file, and lacks what the other systems use here."""
    monkeypatch.setattr(_files, "WINDOWS", True)
    for name in ("O_TMPFILE", "O_NOFOLLOW", "O_NONBLOCK", "fchmod", "fchown", "link"):
        monkeypatch.delattr(os, name)
    monkeypatch.delattr(_files, "fcntl")
    opened = []

    def replace(source, target, rename=os.replace):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(opened[-1])
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    (tmp_path / f"{_files.PREFIX}abandoned{_files.SUFFIX}").touch()
    path = tmp_path / "a"
    for text in (b"one\n", b"another\n"):
        replace_file(path, lambda file, text=text: opened.append(file.fileno()) or file.write(text))
        assert content(tmp_path) == {"a": text}
    with pytest.raises(ZeroDivisionError):
        replace_file(path, lambda file: file.write(b"half") / 0)
    assert content(tmp_path) == {"a": b"another\n"}
    check_output(path)
