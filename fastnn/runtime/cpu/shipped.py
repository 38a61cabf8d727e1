"""Object code that comes with the package: kernels of common nets, compiled when it was built.

A first training on a fresh machine starts with them, and Numba is not imported. A *pack* is a zip
file in `fastnn/objects`, one for each target. It says in `about.json` what it was compiled for and
by which code generators; its members are named like files of the cache, by a hash of all that a
kernel is made of. So code is used only if

- this CPU has every feature that its target asks for, on the same operating system;
- kernels compiled here would be made for the same kind of machine: width of vectors, number of
  registers, fused multiply-add, tile unit or products of pairs;
- kernel, generators and settings are those that it was compiled from. A change to a kernel or to
  what it calls leaves the shipped code of that kernel unused.

What is in the user's cache comes first. A damaged pack is left out with a note, and kernels are
compiled as if there were none. `FASTNN_SHIPPED=0` compiles everything here. `cli/shipping.py` makes
packs.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

from fastnn import switches
from fastnn.runtime import cache

#: number of the form of packs; one of another form is left out
FORM = 1
ABOUT = "about.json"
CHECKSUM_BYTES = 16
#: what can go wrong when a pack is read: all of it means that the pack is damaged
DAMAGE = (
    OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
#: what of a target decides which code its kernels are made of
KIND = ("name", "vector_bits", "has_fma", "registers", "tile_unit", "pairs")

_packs: dict[Any, Pack | None] = {}


class Pack:
    """Kernels that were compiled for one target.

    Attributes:
        path: the file.
        about: what it says of itself.
    """

    def __init__(self, path: Path):
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self.about: dict[str, Any] = json.loads(archive.read(ABOUT))
            self._names = frozenset(archive.namelist())
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def __len__(self) -> int:
        return sum(name.endswith(".o") for name in self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes | None:
        """A member's contents; None where there is none, or it is damaged, which is noted."""
        if name not in self._names:
            return None
        try:
            content = self._archive().read(name)
            code, end = content[:-CHECKSUM_BYTES], content[-CHECKSUM_BYTES:]
            if not code or end != checksum(name, code):
                raise ValueError("its checksum is another")
        except DAMAGE as error:
            _note(self.path, f"{name}: {error}")
            self._names -= {name}
            return None
        return code

    def _archive(self) -> zipfile.ZipFile:
        """The file, opened by this process: forked ones share the place in a file."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1]


def folder() -> Path:
    """Where packs are."""
    return Path(__file__).resolve().parents[2] / "objects"


def wanted() -> bool:
    """Whether shipped code is used: not with `FASTNN_SHIPPED=0`."""
    return switches.on("FASTNN_SHIPPED", default=True)


def pack(generators: bytes, settings: Any) -> Pack | None:
    """The pack that serves this process, if there is one.

    Args:
        generators: the key of the modules that generate code, as they are in memory.
        settings: what else code depends on: see `compiler.settings`.
    """
    if not wanted():
        return None
    from fastnn.kernels.cpu import target

    place = folder()
    key = (place, generators, repr(settings), target.host())
    if key not in _packs:
        _packs[key] = _find(place, generators, settings, target.host(), target._host_features())
    return _packs[key]


def platform() -> str:
    """The operating system and kind of processor that code is for."""
    from llvmlite import binding

    return f"{sys.platform} {binding.get_process_triple().partition('-')[0]}"


def describe(host: Any) -> dict[str, Any]:
    """The kind of machine that a target's kernels are made for."""
    return {name: getattr(host, name) for name in KIND}


def checksum(name: str, code: bytes) -> bytes:
    """A member ends with it: of its name and contents."""
    return hashlib.blake2b(name.encode() + b"\0" + code, digest_size=CHECKSUM_BYTES).digest()


def needed(features: str) -> list[str]:
    """The features that LLVM's feature string asks for."""
    return sorted(f[1:] for f in features.split(",") if f.startswith("+"))


def _find(
    place: Path, generators: bytes, settings: Any, host: Any, features: dict[str, bool]
) -> Pack | None:
    """The pack that fits; of several that for this very CPU, else the one that asks for most."""
    fitting = []
    for path in sorted(place.glob("*.zip")):
        try:
            found = Pack(path)
            if _fits(found.about, generators, settings, host, features):
                about = found.about
                rank = (about["cpu"] == host.cpu, len(needed(about["features"])))
                fitting.append((rank, found))
        except DAMAGE as error:
            _note(path, str(error))
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _fits(
    about: dict[str, Any], generators: bytes, settings: Any, host: Any, features: dict[str, bool]
) -> bool:
    return (
        about["form"] == FORM
        and about["platform"] == platform()
        and about["generators"] == generators.hex()
        and about["settings"] == repr(settings)
        and about["kind"] == describe(host)
        and all(features.get(name) for name in needed(about["features"]))
    )


def _note(path: Path, what: str) -> None:
    cache.note(
        f"the compiled kernels that came with fastnn are not used: {path} is damaged ({what}). "
        "Kernels are compiled here instead; install fastnn again to have them back"
    )


def write(path: Path, about: dict[str, Any], members: dict[str, bytes]) -> None:
    """Write a pack; it appears at once and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(aside, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            archive.writestr(_member(ABOUT), json.dumps(about, indent=1, sort_keys=True))
            for name, code in sorted(members.items()):
                archive.writestr(_member(name), code + checksum(name, code))
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _member(name: str) -> zipfile.ZipInfo:
    """The same bytes for the same contents: without the time of day."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info
