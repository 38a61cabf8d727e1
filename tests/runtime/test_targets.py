"""Kinds of CPU that code is made for ahead, which need not be this one: plans and code follow.

What a kind is like stands in `cli/shipping.py`, which pack a CPU takes in `runtime/cpu/shipped.py`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llvmlite import binding

import fastnn as fnn
from fastnn import nn
from fastnn.cli import shipping
from fastnn.errors import OptionError
from fastnn.kernels.cpu import target, tile, tile_unit
from fastnn.kernels.declare import KERNELS
from fastnn.runtime import keys
from fastnn.runtime.cpu import ahead, codegen, compiler, shipped
from fastnn.testing.null import null_device

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for kinds in shipping.TARGETS.values() for name in kinds]
RELU = ("relu_forward", "float32", "")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="code for another architecture is ELF"
)


def become(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process plan and emit code for a target, for the time of a test."""
    for module, attribute in (
        (target, "host"), (tile_unit, "usable"), (binding, "get_process_triple")
    ):  # fmt: skip
        monkeypatch.setattr(module, attribute, getattr(module, attribute))
    shipping._become(name)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Shapes of tiles are worked out once in a process."""
    tile.shapes.cache_clear()
    yield
    tile.shapes.cache_clear()


# ------------------------------------------------------------------ code

SQUARES = """
define i64 @fastnn_entry(ptr %p) {
  %x = load <16 x float>, ptr %p, align 4
  %y = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %x, <16 x float> %x)
  store <16 x float> %y, ptr %p, align 4
  ret i64 0
}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""
#: the number of a kind of processor in an object file, and an instruction that it does this by
CODE = {
    "x86-64-v3": (62, r"vfmadd\w+ps\s.*ymm"),
    "x86-64-v4": (62, r"vfmadd\w+ps\s.*zmm"),
    "x86-64-v4-pairs": (62, r"vfmadd\w+ps\s.*zmm"),
    "x86-64-v4-tiles": (62, r"vfmadd\w+ps\s.*zmm"),
    "aarch64": (183, r"fmla\s+v\d+\.4s"),
}


@pytest.mark.parametrize("name", NAMES)
def test_code_is_that_of_the_target(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become(name, monkeypatch)
    code = codegen.emit(SQUARES)
    processor, instruction = CODE[name]
    assert code[:4] == b"\x7fELF"
    assert int.from_bytes(code[18:20], "little") == processor
    text = str(codegen.target_machine().emit_assembly(binding.parse_assembly(SQUARES)))
    assert re.search(instruction, text)
    assert ("zmm" in text) == (shipping.known()[name].vector_bits == 512)


def test_the_tile_target_has_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "define i64 @fastnn_entry() {\n  call void @llvm.x86.tdpbf16ps(i8 0, i8 1, i8 2)\n"
        "  ret i64 0\n}\ndeclare void @llvm.x86.tdpbf16ps(i8, i8, i8)\n"
    )
    become("x86-64-v4-tiles", monkeypatch)
    machine = codegen.target_machine()
    assert "tdpbf16ps" in str(machine.emit_assembly(binding.parse_assembly(text)))
    assert tile_unit.usable()


@pytest.mark.parametrize("name", NAMES)
def test_vectors_and_tiles_are_those_of_the_target(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(name, monkeypatch)
    from fastnn.kernels.cpu._types_llvm import vector_of

    lanes, panel = {
        "x86-64-v3": (8, 16), "x86-64-v4": (16, 48), "x86-64-v4-pairs": (16, 48),
        "x86-64-v4-tiles": (16, 48), "aarch64": (4, 12),
    }[name]  # fmt: skip
    float32 = type("Float", (), {"bitwidth": 32})
    array: Any = type("Array", (), {"dtype": float32, "aligned": True})
    adding_lanes: Any = type("Array", (), {"dtype": float32, "aligned": False})
    assert vector_of(array).lanes == lanes
    assert vector_of(adding_lanes).lanes == 16
    assert tile.panel_width(4) == panel
    assert tile_unit.usable() == name.endswith("tiles")
    assert tile_unit.most_parts() == {"tiles": 3, "pairs": 1}.get(name.rpartition("-")[2], 0)


# ------------------------------------------------------------------ plans


def programs(precision: str = "highest") -> set[str]:
    """The kernels of nets of other sizes than those that are planned to find what to ship."""

    class Last(nn.Module):
        def forward(self, x: Any) -> Any:
            return x[:, -1]

    def fit(x: Any, batch_size: int, *layers: nn.Module) -> None:
        trainer = fnn.Trainer(
            nn.Sequential(*layers), "cross_entropy", metrics=["accuracy"], precision=precision
        )
        trainer.fit(x, np.zeros(len(x), np.int64), batch_size=batch_size, verbose=False)
        trainer.model.predict(x[:1])

    rows, steps = np.zeros((128, 784), np.float32), np.zeros((64, 30, 40), np.float32)
    with null_device("cpu") as null:
        for batch in (1, 128):
            hidden = nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()
            fit(rows, batch, *hidden, nn.Linear(512, 10))
        fit(steps, 64, nn.LSTM(40, 256), Last(), nn.Linear(256, 10))
    return {call.kernel for program in null.programs for call in program.calls()}


@pytest.mark.parametrize("name", ["x86-64-v4-tiles", "x86-64-v4-pairs", "aarch64"])
def test_other_nets_find_their_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    become(name, monkeypatch)
    wanted = {kernel for kernel, *_ in shipping.common()}
    used = programs()
    if name.endswith(("tiles", "pairs")):
        used |= programs("medium" if name.endswith("tiles") else "bf16")
        assert "linear_forward_unit" in used
    assert used - wanted == set()


def test_names_of_code_are_those_of_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead.load_all()
    ours = [
        n for n, k in KERNELS.items() if (k.function.__module__ or "").startswith("fastnn.kernels.")
    ]
    variants = [(kernel, "float32", "") for kernel in ours if not KERNELS[kernel].traits.host]
    before = [compiler.object_name(KERNELS[k], *types) for k, *types in variants]
    become("x86-64-v4-tiles", monkeypatch)
    keys.forget()
    assert [compiler.object_name(KERNELS[k], *types) for k, *types in variants] == before


# ------------------------------------------------------------------ which CPU takes which

ZEN_3 = (
    "64bit adx aes avx avx2 bmi bmi2 clflushopt clwb clzero cmov crc32 cx16 cx8 f16c fma fsgsbase "
    "fxsr invpcid lzcnt mmx movbe pclmul popcnt prfchw rdpid rdrnd rdseed sahf sha sse sse2 sse3 "
    "sse4.1 sse4.2 sse4a ssse3 vaes vpclmulqdq xsave xsavec xsaveopt xsaves"
)
SKYLAKE = (
    "64bit adx aes avx avx2 avx512bw avx512cd avx512dq avx512f avx512vl bmi bmi2 clflushopt clwb "
    "cmov crc32 cx16 cx8 f16c fma fsgsbase fxsr invpcid lzcnt mmx movbe pclmul pku popcnt prfchw "
    "rdrnd rdseed sahf sse sse2 sse3 sse4.1 sse4.2 ssse3 xsave xsavec xsaveopt xsaves"
)
ZEN_4 = f"{SKYLAKE} avx512bf16 avx512vnni gfni rdpid sha sse4a vaes vpclmulqdq"
SAPPHIRE_RAPIDS = f"{ZEN_4} amx-bf16 amx-int8 amx-tile avx512fp16 avxvnni serialize"
#: a CPU by LLVM's name: its architecture, its features, settings, and the pack that it takes
CPUS: dict[str, tuple[str, str, dict[str, str], str | None]] = {
    "znver3": ("x86_64", ZEN_3, {}, "x86-64-v3"),
    "masked": ("x86_64", ZEN_3.replace(" bmi2", ""), {}, None),
    "skylake-avx512": ("x86_64", SKYLAKE, {}, "x86-64-v4"),
    "znver4": ("x86_64", ZEN_4, {}, "x86-64-v4-pairs"),
    "without pairs": ("x86_64", ZEN_4, {"FASTNN_TILE_UNIT": "0"}, "x86-64-v4"),
    "sapphirerapids": ("x86_64", SAPPHIRE_RAPIDS, {}, "x86-64-v4-tiles"),
    "without tiles": ("x86_64", SAPPHIRE_RAPIDS, {"FASTNN_TILE_UNIT": "0"}, "x86-64-v4"),
    "narrower": ("x86_64", SAPPHIRE_RAPIDS, {"FASTNN_VECTOR_BITS": "256"}, None),
    "nehalem": ("x86_64", "64bit cmov cx16 cx8 fxsr mmx popcnt sse sse2 sse3 ssse3", {}, None),
    "neoverse-n1": ("aarch64", "aes crc fp-armv8 lse neon sha2", {}, "aarch64"),
    "of another kind": ("riscv64", "a c d f m v", {}, None),
}


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of each target, without kernels."""
    folder = tmp_path_factory.mktemp("objects")
    for name in NAMES:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setenv("FASTNN_CACHE", str(folder))
            become(name, monkeypatch)
            shipping.make(folder, name, [])
    keys.forget()
    return folder


@pytest.mark.parametrize("cpu", CPUS)
def test_a_cpu_takes_the_pack_made_for_it(
    cpu: str, packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture, features, settings, wanted = CPUS[cpu]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FASTNN_SHIPPED", "1")
    monkeypatch.setattr(binding, "get_process_triple", lambda: f"{architecture}-unknown-linux-gnu")
    monkeypatch.setattr(binding, "get_host_cpu_name", lambda: cpu)
    monkeypatch.setattr(target, "_host_features", lambda: dict.fromkeys(features.split(), True))
    found = target.host.__wrapped__()
    monkeypatch.setattr(target, "host", lambda: found)
    monkeypatch.setattr(shipped, "folder", lambda: packs)
    monkeypatch.setattr(shipped, "_packs", {})
    pack = compiler.shipped_pack()
    assert (None if pack is None else pack.path.stem) == wanted


# ------------------------------------------------------------------ making them


def test_numba_compiles_for_another_architecture(tmp_path: Path) -> None:
    """In a process as those of a build, which begin with what is Numba's in their environment."""
    name = "aarch64" if shipping._architecture() == "x86_64" else "x86-64-v3"
    program = (
        "from fastnn.cli import shipping; from fastnn.runtime.cpu import ahead, compiler\n"
        "from fastnn.kernels import topics; topics.load('cpu')\n"
        f"shipping._become({name!r}); path = ahead.path_of({RELU!r})\n"
        f"compiler.compile_to(path, ahead.KERNELS[{RELU[0]!r}], *{RELU[1:]!r}); print(path)"
    )
    environment = {**shipping._environment(name), "FASTNN_CACHE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True,
        env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.name == compiler.object_name(KERNELS[RELU[0]], *RELU[1:])
    assert int.from_bytes(path.read_bytes()[18:20], "little") == CODE[name][0]


def test_targets_that_there_are_not_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"expected one of native, x86-64-v3, .*, aarch64 or usual"
    ):
        shipping.main([str(tmp_path), "x86-64-v3", "x86-64-v5"])
    assert list(tmp_path.iterdir()) == []


def test_a_build_for_a_target_that_there_is_not_fails(tmp_path: Path) -> None:
    program = (
        "import runpy, setuptools; setuptools.setup = lambda **_: None\n"
        "from pathlib import Path; import sys\n"
        "runpy.run_path('setup.py')['compile_kernels'](Path(sys.argv[1]), ['x86-64-v5'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "objects")], cwd=ROOT, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "got 'x86-64-v5'" in done.stderr
    assert "FASTNN_BUILD_TARGETS='x86-64-v5'" in done.stderr
    assert not (tmp_path / "objects").exists()
