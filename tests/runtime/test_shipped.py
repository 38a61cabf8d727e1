"""Object code that comes with the package: when it is used, and when it must not be."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastnn.cli import shipping
from fastnn.kernels.cpu import target
from fastnn.kernels.declare import KERNELS, Kernel, kernel
from fastnn.runtime import cache, keys, sources
from fastnn.runtime.cpu import ahead, compiler, shipped
from fastnn.testing.kernels import call

ROOT = Path(__file__).resolve().parents[2]
RELU = ("relu_forward", "float32", "")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack for this machine with two kernels and a function of the loop."""
    ahead.load_all()
    wanted = [RELU, ("accumulate", "float32", ""), ("read_clock", "", "")]
    for name, *types in wanted[:2]:
        compiler.address(KERNELS[name], *types)
    compiler.loop_address("read_clock")
    cache_folder = os.environ.get("FASTNN_CACHE")
    try:
        return shipping.make(tmp_path_factory.mktemp("objects"), shipping.NATIVE, wanted)
    finally:
        if cache_folder is None:
            os.environ.pop("FASTNN_CACHE", None)
        else:
            os.environ["FASTNN_CACHE"] = cache_folder
        keys.forget()


@pytest.fixture
def pack(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that is where the package's is, beside an empty cache."""
    path = tmp_path / "objects" / made.name
    path.parent.mkdir()
    path.write_bytes(made.read_bytes())
    monkeypatch.setattr(shipped, "folder", lambda: path.parent)
    monkeypatch.setattr(shipped, "_packs", {})
    monkeypatch.setattr(cache, "_noted", set())
    monkeypatch.setattr(sources, "_table", {})
    monkeypatch.setattr(sources, "_read_from", set())
    monkeypatch.setattr(keys, "_modules", {})
    monkeypatch.setattr(compiler, "_loaded", {})
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FASTNN_SHIPPED", "1")
    return path


def compiles(relu: Kernel | None = None) -> int:
    """How many kernels a call compiles; its result is right."""
    before = compiler.compiled_count
    x, y = np.arange(-4, 4, dtype="f4").reshape(2, 4), np.empty((2, 4), "f4")
    call(relu or KERNELS[RELU[0]], x=x, y=y)
    assert (y == np.maximum(x, 0)).all()
    return compiler.compiled_count - before


def test_shipped_code_is_used(pack: Path, tmp_path: Path) -> None:
    assert compiles() == 0
    assert ahead.missing([RELU, ("read_clock", "", "")]) == []
    assert ahead.missing([("relu_forward", "float64", "")]) != []
    assert not list(tmp_path.glob("cache/*/*.o"))


def test_nothing_is_imported_to_use_it(pack: Path, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from fastnn.runtime.cpu import shipped, compiler\n"
        f"shipped.folder = lambda: pathlib.Path({str(pack.parent)!r})\n"
        "compiler.loop_address('read_clock')\n"
        "print(compiler.compiled_count, 'numba' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "False"]


def test_a_forked_process_reads_for_itself(pack: Path) -> None:
    found = compiler.shipped_pack()
    assert found is not None
    name = min(found._names - {shipped.ABOUT})
    code, mine = found.read(name), found._archive()
    assert found._archive() is mine
    child = os.fork()
    if child == 0:  # the place in an open file is one for both
        os._exit(0 if found.read(name) == code and found._archive() is not mine else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_it_can_be_switched_off(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTNN_SHIPPED", "0")
    assert compiler.shipped_pack() is None
    assert ahead.missing([RELU]) == [RELU]
    assert compiles() == 1


def test_the_users_cache_comes_first(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compiler.object_path(KERNELS[RELU[0]], *RELU[1:])
    code = compiler.cached(path)
    assert code is not None
    cache.write(path, code)
    monkeypatch.setattr(shipped.Pack, "read", lambda *_: pytest.fail("the pack was read"))
    assert compiler.cached(path) == code


# ------------------------------------------------------------------ another machine


def test_a_cpu_without_a_feature_does_not_run_it(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = target._host_features()
    needed = shipped.needed(target.host().features)
    assert len(needed) > 3
    for name in needed:
        without = {f: on for f, on in features.items() if f != name}
        for less in ({**features, name: False}, without):
            monkeypatch.setattr(target, "_host_features", lambda less=less: less)
            monkeypatch.setattr(shipped, "_packs", {})
            assert compiler.shipped_pack() is None, name


@pytest.mark.parametrize(
    "change",
    [
        {"vector_bits": 64},
        {"has_fma": False},
        {"registers": 8},
        {"tile_unit": True},
        {"pairs": not target.host().pairs},
        {"name": "x"},
    ],
    ids=str,
)
def test_code_for_another_kind_of_machine_is_not_used(
    pack: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    other = replace(target.host(), **change)
    monkeypatch.setattr(target, "host", lambda: other)
    assert compiler.shipped_pack() is None


def test_another_system_or_architecture_does_not_run_it(
    pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compiler.shipped_pack() is not None
    monkeypatch.setattr(shipped, "platform", lambda: "linux aarch64")
    monkeypatch.setattr(shipped, "_packs", {})
    assert compiler.shipped_pack() is None


def test_lists_of_features_name_what_they_imply() -> None:
    """A feature that LLVM takes for granted and that is not in the list would not be looked for."""
    kinds = shipping.TARGETS["x86_64"]
    lists = [set(shipped.needed(kinds[name].features)) for name in kinds]
    assert lists[0] < lists[1] < lists[2] < lists[3]
    assert lists[0] >= {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt"}
    assert lists[1] - lists[0] == {f"avx512{part}" for part in ("f", "bw", "cd", "dq", "vl")}
    assert lists[2] - lists[1] == {"avx512bf16"}
    assert lists[3] - lists[2] == {"amx-tile", "amx-bf16"}


def test_the_best_pack_is_taken(pack: Path) -> None:
    with zipfile.ZipFile(pack) as archive:
        about = json.loads(archive.read(shipped.ABOUT))
    features = about["features"].split(",")
    on = [f for f in features if f.startswith("+")]
    shipped.write(pack.with_name("less.zip"), {**about, "cpu": "a", "features": on[0]}, {})
    shipped.write(pack.with_name("more.zip"), {**about, "cpu": "a", "features": ",".join(on)}, {})
    found = compiler.shipped_pack()
    assert found is not None
    assert found.path == pack  # of this very CPU
    pack.unlink()
    shipped._packs.clear()
    found = compiler.shipped_pack()
    assert found is not None
    assert found.path.name == "more.zip"


# ------------------------------------------------------------------ another source


def test_a_changed_kernel_is_compiled(pack: Path) -> None:
    def relu(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
        for i in range(lo, hi):
            for j in range(x.shape[1]):
                y[i, j] = max(x[i, j], 0.0)

    mine: Kernel = kernel(relu, name="test_relu")
    del KERNELS["test_relu"]
    assert compiles(replace(mine, name=RELU[0])) == 1


@pytest.mark.parametrize("what", ["generators", "checked", "numba", "optimised"])
def test_other_generators_or_settings_compile(
    pack: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    assert compiler.shipped_pack() is not None
    if what == "generators":
        truth = keys.modules_key
        monkeypatch.setattr(keys, "modules_key", lambda names: truth(names)[::-1])
    elif what == "checked":
        monkeypatch.setenv("FASTNN_CHECK", "1")
    elif what == "numba":
        monkeypatch.setenv("NUMBA_OPT", "1")
    else:
        monkeypatch.setattr(compiler.sys, "flags", type("Flags", (), {"optimize": 2}))
    assert compiler.shipped_pack() is None


# ------------------------------------------------------------------ damage


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, change(name, content))


def swap(path: Path) -> None:
    """Give each kernel the code of another."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name != shipped.ABOUT]
        other = dict(zip(names, [archive.read(n) for n in [*names[1:], names[0]]], strict=True))
    rewritten(path, lambda name, content: other.get(name, content))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda p: p.write_bytes(b""),
    "cut in half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "cut by a byte": lambda p: p.write_bytes(p.read_bytes()[:-1]),
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "text": lambda p: p.write_text("not a zip file"),
    "zeros within": lambda p: p.write_bytes(
        p.read_bytes()[:1500] + bytes(p.stat().st_size - 2500) + p.read_bytes()[-1000:]
    ),
    "a byte of the code": lambda p: rewritten(
        p, lambda name, c: c if name == shipped.ABOUT else c[:300] + bytes([c[300] ^ 1]) + c[301:]
    ),
    "code of other kernels": lambda p: swap(p),
    "about: no JSON": lambda p: rewritten(p, lambda name, c: c[:20] if "json" in name else c),
    "about: a list": lambda p: rewritten(p, lambda name, c: b"[1]" if "json" in name else c),
    "about: incomplete": lambda p: rewritten(
        p, lambda name, c: b'{"form": 1}' if "json" in name else c
    ),
    "about: no text": lambda p: rewritten(
        p, lambda name, c: re.sub(rb'"features": "[^"]*"', b'"features": null', c)
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_pack_is_left_out_with_a_note(
    pack: Path, damage: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    damage(pack)
    assert compiles() == 1
    assert ahead.missing([RELU]) == []
    notes = [r.getMessage() for r in caplog.records]
    assert len(notes) == 1
    assert f"{pack} is damaged" in notes[0]
    assert "install fastnn again" in notes[0]


def test_another_form_of_packs_is_left_out(pack: Path) -> None:
    rewritten(pack, lambda name, c: c.replace(b'"form": 1', b'"form": 2'))
    assert compiler.shipped_pack() is None


# ------------------------------------------------------------------ what is shipped


def test_the_same_code_is_the_same_file(made: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(made) as archive:
        about = json.loads(archive.read(shipped.ABOUT))
        size = shipped.CHECKSUM_BYTES
        members = {n: archive.read(n)[:-size] for n in archive.namelist() if n != shipped.ABOUT}
    shipped.write(tmp_path / "again.zip", about, members)
    assert (tmp_path / "again.zip").read_bytes() == made.read_bytes()


def test_names_are_those_of_a_machine_with_an_empty_cache(
    pack: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not those that a table of sources knows for the same byte code."""
    stale = dict.fromkeys(_digests(), "0" * 32)
    monkeypatch.setattr(sources, "_table", stale)
    again = shipping.make(tmp_path / "again", shipping.NATIVE, [RELU])
    with zipfile.ZipFile(pack) as archive, zipfile.ZipFile(again) as other:
        own = [n for n in archive.namelist() if n.startswith((RELU[0], shipped.ABOUT))]
        assert sorted(other.namelist()) == sorted(own)
        ours, theirs = (json.loads(a.read(shipped.ABOUT)) for a in (archive, other))
    assert ours["generators"] == theirs["generators"]


def test_kernels_that_did_not_compile_are_told(
    pack: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The build warns of them; the rest are shipped."""
    wanted = [RELU, ("relu_forward", "float64", "")]
    monkeypatch.setattr(shipping, "common", lambda: wanted)
    monkeypatch.setattr(ahead, "compile_all", lambda *_, **__: 0)
    with pytest.raises(SystemExit, match="1 of 2 kernels could not be compiled for native"):
        shipping.main(["pack", str(tmp_path / "some"), "native"])
    assert len(shipped.Pack(tmp_path / "some" / "native.zip")) == 1


@pytest.mark.parametrize("folder", ["/site/numba", "/\x94\u030c" * 200, "C:\\\\Users"], ids=len)
def test_code_does_not_say_where_it_was_built(folder: str) -> None:
    where = pickle.dumps((RuntimeError, ("odd.pyx",), ("ask", f"{folder}/x.py", 7)), protocol=4)
    code = shipping.anonymous(b"\x8cX\x8c" + where + b"X\xff\xff\0\0\x8c")
    assert len(code) == len(where) + 9
    kind, args, (name, file, line) = pickle.loads(code[3:-6])
    assert (kind, args, name, line) == (RuntimeError, ("odd.pyx",), "ask", 7)
    assert file.strip("/") == "x.py"


def _digests() -> list[str]:
    sources._table.clear()
    keys.function_key(KERNELS[RELU[0]].function, compiler.GENERATED)
    return list(sources._table)
