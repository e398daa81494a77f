"""Files: what is damaged is refused, nothing is lost while writing, and no pickle is read."""

import ast
import errno
import os
import resource
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from dfaccel._files import checksum, difference, read_tensors, write_files, write_tensors

ARRAYS = {"a": torch.arange(1000.0), "b": torch.ones(3, dtype=torch.float64)}
HEADER = {"kind": "test", "values": {"x": 1.5, "name": "Plummer"}}


def contents(folder):
    """Every file of a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def path(tmp_path):
    """A file of tensors."""
    write_tensors(tmp_path / "some.safetensors", ARRAYS, HEADER)
    return tmp_path / "some.safetensors"


def test_checksum_tells_apart():
    values = [np.zeros(3), np.zeros((3, 1)), np.zeros(3, np.float32), np.array([0, 0, -0.0]), "zeros", torch.ones(3)]
    assert len({checksum(v) for v in values}) == len(values)
    assert checksum(np.ones(3)) == checksum(torch.ones(3, dtype=torch.float64)) != checksum(torch.ones(3))
    assert checksum(np.ones((2, 3)).T) == checksum(np.ones((3, 2)))


def test_difference_names_the_first_key():
    there, here = {"width": 8, "depth": {"a": 1}}, {"width": 8, "depth": {"a": 2}}
    assert difference("spec", there, here) == "its spec depth a is 1, here it is 2"
    assert difference("seed", None, 2) == "its seed is None, here it is 2"


def test_missing(tmp_path):
    for path in (tmp_path / "nowhere.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"{path} does not exist"):
            read_tensors(path)


@pytest.mark.parametrize("length", [0, 4, 8, 100, 0.3, 0.9, -1])
def test_truncated(path, length):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(length * len(whole)) if isinstance(length, float) else length])
    with pytest.raises(ValueError, match=r"some.safetensors is not a complete safetensors file.*make or download it"):
        read_tensors(path)


def test_altered_bytes_are_noticed_or_harmless(path):
    """Every byte of the header and 300 of the arrays, one at a time: an error that names the file, or no change."""
    whole = path.read_bytes()
    n_header = 8 + int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    spots = [*range(n_header), *rng.integers(n_header, len(whole), 300)]
    noticed = 0
    for spot in spots:
        path.write_bytes(whole[:spot] + bytes([whole[spot] ^ 1 << rng.integers(8)]) + whole[spot + 1 :])
        try:
            tensors, header = read_tensors(path)
        except ValueError as error:
            noticed += path.name in str(error)
        else:
            assert header["values"] == HEADER["values"]
            assert all(torch.equal(tensors[n], a) for n, a in ARRAYS.items())
    assert noticed > 0.97 * len(spots)


# ---- nothing lost while writing ----


@contextmanager
def full_disk(monkeypatch, kind):
    """A disk that turns out to be full on flushing, a device that always is, or a quota of 2 kB."""
    original, limits = tempfile.mkstemp, resource.getrlimit(resource.RLIMIT_FSIZE)

    def fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def mkstemp(**options):
        handle, name = original(**options)
        os.dup2(os.open("/dev/full", os.O_WRONLY), handle)
        return handle, name

    with monkeypatch.context() as patch:
        if kind == "flush":
            patch.setattr(os, "fsync", fsync)
        elif kind == "device":
            patch.setattr(tempfile, "mkstemp", mkstemp)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("kind", ["flush", "quota", *(["device"] if Path("/dev/full").exists() else [])])
@pytest.mark.parametrize("old", [True, False])
def test_full_disk(tmp_path, monkeypatch, kind, old):
    files = {tmp_path / name: name.encode() * 1000 for name in ("one", "two")}
    if old:
        write_files(files)
    with full_disk(monkeypatch, kind), pytest.raises(OSError, match="No space left on device|File too large"):
        write_files(dict.fromkeys(files, b"else " * 1000))
    expected = {path.name: content for path, content in files.items()} if old else {}
    assert contents(tmp_path) == expected  # and no temporary file is left to fill the disk


def test_read_only_folder():
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top) / "old"
        write_files({folder / "one": b"first"})
        for path in (folder, folder.parent):
            path.chmod(0o555)
        os.seteuid(user or 65534)  # root may write anywhere: be somebody else for a while
        try:
            for path in (folder / "one", Path(top) / "new" / "one"):
                with pytest.raises(PermissionError):
                    write_files({path: b"second"})
        finally:
            os.seteuid(user)
            for path in (folder.parent, folder):
                path.chmod(0o755)
        assert contents(folder) == {"one": b"first"}


KILLED = """
import os, signal, sys
from pathlib import Path
from dfaccel import _files
count = 0
def before(function, n):
    def wrapped(*a, **k):
        global count
        count += 1
        if count == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*a, **k)
    return wrapped
for n, folder in enumerate(map(Path, sys.argv[1:]), 1):
    if os.fork() == 0:
        for owner, name in ((os, "fsync"), (_files.Path, "replace"), (_files.Path, "unlink"), (_files.Path, "chmod")):
            setattr(owner, name, before(getattr(owner, name), n))
        _files.write_files({folder / "one": b"new", folder / "two": b"of the new"})
        os._exit(0)
    print(os.wait()[1])
"""


@pytest.mark.slow
def test_killed_while_writing(tmp_path):
    """Killed before the 1st, 2nd, 3rd ... step of replacing old files: the first is whole, the second tells of it."""
    folders = [tmp_path / str(n) for n in range(1, 12)]
    for folder in folders:
        write_files({folder / "one": b"old", folder / "two": b"of the old"})
    command = [sys.executable, "-c", KILLED, *map(str, folders)]
    statuses = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    killed = [os.waitstatus_to_exitcode(int(s)) == -signal.SIGKILL for s in statuses]
    assert killed[:5] == [True] * 5
    assert not killed[-1]  # control: undisturbed, it comes to its end
    found = [contents(folder) for folder in folders]
    assert all(files.get("two", b"of the " + files["one"]) == b"of the " + files["one"] for files in found)
    order = [(b"old", b"new").index(files["one"]) for files in found]
    assert order == sorted(order)
    assert (order[0], order[-1]) == (0, 1)


def test_write_is_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "new"
    write_files({folder / "one": b"first", folder / "two": b"of the first"})
    write_files({folder / "one": b"second"})
    assert contents(folder) == {"one": b"second", "two": b"of the first"}
    (folder / "below").mkdir()
    for path in (folder / "below", folder / "one" / "below"):
        with pytest.raises(OSError, match="exists|directory"):
            write_files({path: b"third"})
    assert sorted(path.name for path in folder.iterdir()) == ["below", "one", "two"]


# ---- no pickle ----


def test_no_pickle_is_read_anywhere(root):
    """Neither by the package nor by the benchmarks: torch.load, torch.save, numpy.load with pickles, joblib, shelve."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    calls = {"torch.load", "torch.save", "np.load", "numpy.load"}
    files = sorted([*(root / "dfaccel").rglob("*.py"), *(root / "benchmarks").glob("*.py"), root / "models/train.py"])
    assert len(files) > 10
    nodes = [(path, node) for path in files for node in ast.walk(ast.parse(path.read_text()))]
    for path, node in nodes:
        text = f"{path}, line {getattr(node, 'lineno', None)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not forbidden & {name.split(".")[0] for name in names}, text
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in calls:
            safe = {"weights_only=True", "allow_pickle=False"}
            assert safe & {ast.unparse(keyword) for keyword in node.keywords}, text
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", text
