"""The files of the cache of machine code: where they are, whom to trust, how they are written.

An entry is a file of machine code that ends with its own name (folder and file, where the hash of
all that it depends on is) and a checksum: one that was cut off, damaged, renamed or swapped is made
anew. It is written aside and then renamed, so processes may make the same one at the same time.

Machine code is run as it is, so an entry counts only if nobody but this user (or root) could have
written it: file and folder belong to one of them, and neither group nor others may write to them.
Where a folder is not like that, or this user may not look into it, a private one takes its place.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from pathlib import Path

log = logging.getLogger("fastnn")
#: length of the checksum at the end of a cache file
CHECKSUM_BYTES = 16
#: bytes of a kernel's name at most in that of its entry
LONGEST = 160
_noted: set[str] = set()
_folders: dict[tuple[Path, str], Path] = {}


def chosen() -> Path:
    """Where the cache is meant to be: `FASTNN_CACHE`, or fastnn's folder in the user's cache."""
    named = os.environ.get("FASTNN_CACHE")
    return Path(named) if named else _of_user()


def _of_user() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return Path(base) / "fastnn" if base else Path.home() / ".cache" / "fastnn"
    except RuntimeError:  # no home
        return _private()


def _private() -> Path:
    owner = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"fastnn-{owner}"


def folder(name: str) -> Path:
    """The folder of this name in the cache, or in a private one if the former can't be trusted."""
    place = chosen()
    found = _folders.get((place, name))
    if found is None or not _safe(found):
        for base in (place, _of_user(), _private()):
            found = base / name
            if _safe(found):
                break
            note(
                f"the kernel cache {found} is not used: it belongs to somebody else, others may "
                "write to it, or this user may not look into it. Set FASTNN_CACHE to a folder of "
                "your own"
            )
        else:
            found = Path(tempfile.mkdtemp(prefix="fastnn-")) / name
        _folders[place, name] = found
    return found


def note(text: str) -> None:
    """Say something once in a process."""
    if text not in _noted:
        _noted.add(text)
        log.warning("%s", text)


def _safe(path: Path) -> bool:
    """Whether there is nothing, or a folder that only this user or root could have written, and
    whose files this user can reach."""
    try:
        return trusted(os.lstat(path)) and os.access(path, os.X_OK)
    except PermissionError:
        return False
    except OSError:
        return True


def short(name: str) -> str:
    """A kernel's name as that of its entry begins: the whole could be longer than a file's may be.
    What tells kernels apart is the hash behind it.

    >>> short("relu_forward"), len(short("very_" * 100))
    ('relu_forward', 160)
    """
    return name.encode()[:LONGEST].decode(errors="ignore")


def trusted(status: os.stat_result) -> bool:
    """Whether a file or folder belongs to this user or root, and is not writable by others."""
    if not hasattr(os, "getuid"):
        return True
    if stat.S_ISLNK(status.st_mode):
        return False
    mine = status.st_uid in (os.getuid(), 0)
    return mine and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def read(path: Path) -> bytes | None:
    """The machine code in an entry; None where there is none, or not as it was written here."""
    try:
        with open(path, "rb") as file:
            if not (trusted(os.fstat(file.fileno())) and trusted(os.lstat(path.parent))):
                note(f"the cached kernel {path} is not used: others may have written to it")
                return None
            content = file.read()
    except OSError:
        return None
    end = _end(path)
    code, rest = content[: -len(end) - CHECKSUM_BYTES], content[-len(end) - CHECKSUM_BYTES :]
    return code if code and rest == end + _checksum(code + end) else None


def write(path: Path, code: bytes) -> None:
    """Write an entry; it appears at once and whole. Raises OSError where that is not possible."""
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    end = _end(path)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(code + end + _checksum(code + end))
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _end(path: Path) -> bytes:
    """What an entry says of itself."""
    return f"\nfastnn {path.parent.name}/{path.name}\n".encode()


def _checksum(code: bytes) -> bytes:
    return hashlib.blake2b(code, digest_size=CHECKSUM_BYTES).digest()
