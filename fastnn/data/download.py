"""What data sets consist of, files and folders with their sums, and how these are downloaded.

The downloader is a few lines of the standard library: what pooch offers for it (seven packages)
knows neither a second address for the same file nor the sum of a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from fastnn import files
from fastnn.errors import FastnnError

#: seconds without a byte after which an address is given up
TIMEOUT = 30.0
#: seconds after which a download shows its progress
PATIENCE = 2.0
_BLOCK = 1 << 16


class DownloadError(FastnnError, OSError):
    """A data set is not on this machine and cannot be downloaded from its addresses."""


@dataclass(frozen=True)
class File:
    """One file of a set: its name, its size in bytes, its SHA-256 and where it can be had."""

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...]

    def fault(self, path: Path) -> str | None:
        """What is wrong with the file at `path`; None where it is as it should be."""
        size = path.stat().st_size
        if size != self.size:
            return f"expected {self.size:,} bytes, got {size:,}"
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return None if found == self.sha256 else f"expected sha256 {self.sha256}, got {found}"

    def fetch(self, url: str, target: Path) -> None:
        """Download to `target`, which appears only when it is complete and right."""
        with _temporary(target) as temporary:
            _download(url, temporary, self.size)
            fault = self.fault(temporary)
            if fault:
                raise DownloadError(fault)
            temporary.replace(target)


@dataclass(frozen=True)
class Tree:
    """A folder of files of one kind that comes in a tar archive.

    The bytes of archives made on request may change, the files in them don't: `sha256` is that of
    the list "<sha256 of the file>  <name>\\n" of all files in the order of their names.

    An archive is looked through before anything of it is unpacked: more files than there should be,
    or more than `most` bytes in all, are refused. Only files are unpacked, never links or devices,
    and of their names only the last part counts, so that no archive can write elsewhere.
    """

    name: str
    suffix: str
    count: int
    sha256: str
    urls: tuple[str, ...]
    most: int = 1 << 28

    def fault(self, path: Path) -> str | None:
        """What is wrong with the folder at `path`; None where it is as it should be."""
        names = sorted(name for name in os.listdir(path) if name.endswith(self.suffix))
        if len(names) != self.count:
            return f"expected {self.count:,} {self.suffix} files, got {len(names):,}"
        total = hashlib.sha256()
        for name in names:
            content = hashlib.sha256((path / name).read_bytes()).hexdigest()
            total.update(f"{content}  {name}\n".encode())
        found = total.hexdigest()
        return None if found == self.sha256 else f"expected sha256 {self.sha256}, got {found}"

    def fetch(self, url: str, target: Path) -> None:
        """Download the archive and unpack its files to `target`."""
        with _temporary(target) as archive, _temporary(target) as folder:
            _download(url, archive, most=self.most)
            folder.mkdir()
            self.unpack(archive, folder)
            fault = self.fault(folder)
            if fault:
                raise DownloadError(fault)
            shutil.rmtree(target, ignore_errors=True)
            try:
                folder.rename(target)
            except OSError:  # another process was first
                if not target.is_dir() or self.fault(target):
                    raise

    def unpack(self, archive: Path, folder: Path) -> None:
        """The files of an archive into an empty folder, once all of it has been looked through.

        Raises DownloadError for an archive that can't be read or is none of this set.
        """
        try:
            with tarfile.open(archive) as tar:
                for member in self._members(tar):
                    source = tar.extractfile(member)
                    if source is not None:
                        with source, (folder / member.name.split("/")[-1]).open("wb") as file:
                            shutil.copyfileobj(source, file)
        except DownloadError:
            raise
        except (
            tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError,
            ArithmeticError, RecursionError, MemoryError,
        ) as error:  # fmt: skip
            reason = files.one_line(error)
            raise DownloadError(f"not a readable tar archive ({reason})") from None

    def _members(self, tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
        """What is to be unpacked; the whole archive is read for it."""
        found: dict[str, tarfile.TarInfo] = {}
        size = 0
        for seen, member in enumerate(tar, 1):
            parts = member.name.split("/")
            wanted = self.name in parts[:-1] and parts[-1].endswith(self.suffix)
            size += member.size if member.isfile() else 0
            if seen > 100 * self.count + 1000 or tar.offset > 8 * self.most or size > self.most:
                raise DownloadError(
                    f"the archive has more than {self.count:,} files of {self.most:,} bytes in all"
                )
            if wanted and member.isfile():
                found[parts[-1]] = member
        if len(found) > self.count:
            raise DownloadError(f"expected {self.count:,} {self.suffix} files, got {len(found):,}")
        return list(found.values())


Part: TypeAlias = File | Tree


def unpack_all(archive: Path, target: Path) -> None:
    """All files of a tar archive, with their folders, to `target`, which appears only when it is
    complete. Links, devices and names that lead out of it are refused.

    Raises DownloadError for an archive that can't be read.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(target) as folder:
        folder.mkdir()
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        except (
            tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError,
            ArithmeticError, RecursionError, MemoryError,
        ) as error:  # fmt: skip
            reason = files.one_line(error)
            raise DownloadError(f"{archive}: not a readable tar archive ({reason})") from None
        try:
            folder.rename(target)
        except OSError:  # another process was first
            if not target.is_dir():
                raise


def _download(url: str, path: Path, size: int | None = None, most: int | None = None) -> None:
    """The bytes at `url` into the file `path`: `size` of them, or at most `most`."""
    if not url.startswith(("https://", "http://")):
        raise DownloadError("expected an address that begins with https:// or http://")
    request = urllib.request.Request(url, headers={"User-Agent": "fastnn"})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:  # it holds the connection
            raise DownloadError(str(error)) from None
    with answer, path.open("wb") as file:
        announced = answer.headers.get("Content-Length")
        expected = size if size is not None else int(announced) if announced else None
        limit = expected if most is None else min(most, most if expected is None else expected)
        received = _copy(answer, file, limit, url.rsplit("/", 1)[-1])
        if most is not None and (received > most or (expected or 0) > most):
            raise DownloadError(f"expected at most {most:,} bytes, got more")
    if expected is not None and received != expected:
        got = f"{received:,}" if received < expected else "more"
        raise DownloadError(f"expected {expected:,} bytes, got {got}")


def _copy(answer: IO[bytes], file: IO[bytes], expected: int | None, name: str) -> int:
    from tqdm import tqdm

    received = 0
    bar = tqdm(total=expected, unit="B", unit_scale=True, desc=name, delay=PATIENCE, leave=False)
    with bar:
        while block := answer.read(_BLOCK):
            file.write(block)
            received += len(block)
            bar.update(len(block))
            if expected is not None and received > expected:
                break
    return received


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A name of its own beside `target`; what is still there at the end is removed."""
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}-", dir=target.parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder) / target.name
