"""Files: whole or not at all, errors of fastnn's, nothing left behind."""

from __future__ import annotations

import fcntl
import gzip
import io
import os
import socket
import stat
import struct
import threading
from pathlib import Path

import numpy as np
import pytest

from fastnn import files, nn
from fastnn.data.audio import read_audio
from fastnn.data.conll2003 import read_conll
from fastnn.data.mnist import read_idx
from fastnn.data.ptb import load_ptb
from fastnn.data.text import Vocabulary
from fastnn.errors import CheckpointError, DataError, FastnnError
from fastnn.train.callbacks import CSVLogger, ModelCheckpoint
from fastnn.train.history import History

READERS = (
    read_audio, read_conll, read_idx, Vocabulary.load, lambda path: nn.Linear(2, 2).load(path),
)  # fmt: skip
WRITERS = (
    Vocabulary("ab").save,
    lambda path: nn.Linear(2, 2).save(path),
    lambda path: History().to_csv(path),
    lambda path: CSVLogger(path).on_train_begin({}),
)


def listed(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("access", [*READERS, *WRITERS])
@pytest.mark.parametrize(
    "path", ["", "a\0b", "x" * 300, 7, None, "~nobody-of-this-name/x", "\udcff\udcff\ud800", "/"]
)
def test_bad_paths(access, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FastnnError) as caught:
        access(path)
    assert "\n" not in str(caught.value)
    assert listed(tmp_path) == []


@pytest.mark.parametrize("access", [*READERS, *WRITERS])
def test_pipes_sockets_devices_and_folders_are_refused(access, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    os.symlink("pipe", tmp_path / "link")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    before = listed(tmp_path)
    for name, kind in (
        ("pipe", "a pipe"), ("link", "a pipe"), ("folder", "a folder"), ("socket", "a socket"),
        ("/dev/null", "a device"),
    ):  # fmt: skip
        with pytest.raises(FastnnError, match=f"it is {kind}"):
            access(tmp_path / name)
    listening.close()
    assert listed(tmp_path) == before
    assert stat.S_ISFIFO(os.lstat(tmp_path / "pipe").st_mode)
    assert stat.S_ISCHR(os.lstat("/dev/null").st_mode)


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    nn.Linear(2, 2).save("~/deep/m")
    nn.Linear(2, 2).load("~/deep/m")
    Vocabulary("ab").save("~/v")
    assert Vocabulary.load("~/v") == Vocabulary("ab")
    assert ModelCheckpoint("~/{epoch}").path_for(0, {}) == tmp_path / "1"
    assert listed(tmp_path) == ["deep", "v"]


def test_links_stay_and_their_targets_are_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    os.symlink("real/m", tmp_path / "latest")
    for fill in (1.0, 2.0):
        model = nn.Linear(2, 2)
        model.weight = np.full((2, 2), fill)
        model.save(tmp_path / "latest")
        assert (tmp_path / "latest").is_symlink()
        assert listed(tmp_path / "real") == ["m"]
        loaded = nn.Linear(2, 2).load(tmp_path / "real" / "m")
        np.testing.assert_array_equal(loaded.weight.value, model.weight.value)
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(CheckpointError, match="link"):
        nn.Linear(2, 2).save(tmp_path / "loop")


def test_permissions_are_kept(tmp_path):
    path = tmp_path / "m"
    for mode in (0o600, 0o640, 0o444):
        nn.Linear(2, 2).save(path)
        path.chmod(mode)
        nn.Linear(2, 2).save(path)
        assert stat.S_IMODE(path.stat().st_mode) == mode
    old = os.umask(0o027)
    try:
        nn.Linear(2, 2).save(tmp_path / "new")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


def test_what_killed_writers_left_goes_and_nothing_else(tmp_path):
    path = tmp_path / "m"
    ours = [f".m.{k:012x}{files.TEMPORARY}" for k in range(3)]
    others = [
        f".n.{0:012x}{files.TEMPORARY}", ".m.short" + files.TEMPORARY, ".m.0123456789ab.tmp", "m2",
        f".m.{7:012x}{files.TEMPORARY}",
    ]  # fmt: skip
    for name in (*ours, *others):
        (tmp_path / name).write_bytes(b"x")
    os.mkdir(tmp_path / f".m.{9:012x}{files.TEMPORARY}")
    with (tmp_path / others[-1]).open("rb") as living:  # a writer that goes on
        fcntl.flock(living, fcntl.LOCK_EX)
        nn.Linear(2, 2).save(path)
        assert set(listed(tmp_path)) == {"m", f".m.{9:012x}{files.TEMPORARY}", *others}
    nn.Linear(2, 2).save(path)
    assert others[-1] not in listed(tmp_path)


def test_many_writers_of_one_file(tmp_path):
    path, failures = tmp_path / "m", []

    def save() -> None:
        try:
            for k in range(40):
                files.write(path, bytes([k]) * 5000)
        except FastnnError as error:
            failures.append(error)

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert listed(tmp_path) == ["m"]
    assert len(set(path.read_bytes())) == 1


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_full_disk_leaves_the_old_file(call, tmp_path, monkeypatch):
    path = tmp_path / "m"
    files.write(path, b"old")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    if call == "chmod":  # a file system without permissions
        files.write(path, b"new")
        assert path.read_bytes() == b"new"
    else:
        with pytest.raises(DataError, match="No space left"):
            files.write(path, b"new")
        assert path.read_bytes() == b"old"
    assert listed(tmp_path) == ["m"]


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O")])
@pytest.mark.parametrize("access", READERS)
def test_folders_that_cannot_be_read(access, error, tmp_path, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(files.os, "stat", refuse)
    with pytest.raises(FastnnError, match=error.strerror):
        access(tmp_path / "x")


def test_no_home(monkeypatch):
    from fastnn.data import sources

    def nobody(*arguments: object) -> None:
        raise RuntimeError("Could not determine home directory.")

    for name in ("FASTNN_DATA_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(Path, "expanduser", nobody)
    with pytest.raises(DataError, match=r"no home folder.*FASTNN_DATA_CACHE"):
        sources.data_cache()
    with pytest.raises(DataError, match="home folder in '~/x' cannot be found"):
        files.as_path("~/x")


def test_no_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(DataError, match="the standard input cannot be read: it is closed; give a"):
        files.read_input()


def test_text_that_is_not_unicode(tmp_path):
    for name in ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"):
        (tmp_path / name).write_bytes(b"caf\xe9 \n")
    with pytest.raises(DataError, match=r"expected UTF-8, got byte 0xe9 at place 3; convert it"):
        load_ptb(folder=tmp_path)
    for content, remedy in (
        (gzip.compress(b"a"), "unpack it with gunzip"),
        ("é".encode("utf-16"), "with iconv -f utf-16 -t utf-8"),
        ("aé".encode()[:-1], "it ends within a character: is it truncated"),
    ):
        (tmp_path / "text").write_bytes(content)
        with pytest.raises(DataError, match=remedy):
            files.read_text(tmp_path / "text")


def test_sizes_that_a_header_claims_are_not_believed(tmp_path):
    """Neither allocated nor read: the file is small."""
    path = tmp_path / "x"
    for content in (
        b"\0\0\x08\3" + struct.pack(">3I", 2**31, 2**31, 2**31),
        gzip.compress(b"\0\0\x08\3" + struct.pack(">3I", 60000, 28000, 28) + bytes(9)),
        b"\0\0\x08\xff" + b"\xff" * 2000,
        gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 1 << 27) + bytes(1 << 27)),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError):
            read_idx(path)
    assert read_idx(path, most=1 << 27).nbytes == 1 << 27
    path.write_bytes(gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 5) + bytes(6)))
    with pytest.raises(DataError, match="got more"):
        read_idx(path)


def test_standard_input_in_another_encoding_is_refused(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("é\r\nb\n".encode())))
    assert files.read_input() == "é\nb\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("é".encode("latin1"))))
    with pytest.raises(DataError, match="standard input: expected UTF-8, got byte 0xe9 at place 0"):
        files.read_input()
