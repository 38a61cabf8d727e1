"""Every CUDA kernel becomes PTX and machine code for sm_80 and sm_90; no GPU is needed."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastnn.optim  # noqa: F401  (enters the optimisers' kernels)
from fastnn.kernels import topics
from fastnn.kernels.declare import CUDA_KERNELS, CudaKernel
from fastnn.runtime import _cuda
from fastnn.runtime.cuda import compiler, report
from tests.kernels import compiled
from tests.kernels.compiled import in_float64

pytestmark = [
    pytest.mark.skipif(not _cuda.installed(), reason="the CUDA packages are not installed"),
    pytest.mark.skipif(_cuda.simulated(), reason="the simulator compiles nothing"),
]

#: kernels that compute in float64 on purpose in a float32 program, and why
FLOAT64_INSIDE = {
    "*_prepare": "an optimiser's scalars, once a step on one thread",
    "accumulate": "sums over an epoch",
    "accumulate_by": "likewise",
    "accumulate_gradient": "one over the number of steps, once a thread",
    "accumulate_pair": "sums over an epoch",
    "accumulate_rows": "likewise",
    "accumulate_weighted": "likewise",
    "ctc_align": "scores of paths, as on the CPU",
    "ctc_beam": "likewise",
    "count_places": "places in sequences of any length, as on the CPU",
    "stretch_*": "likewise, and shares of neighbours",
    "crf_decode": "likewise",
    "crf_forward": "the target's score, and the loss",
    "transducer_forward": "likewise",
    "transducer_backward": "likewise",
    "transducer_select": "likewise",
    "clip_scale": "squared norms: float32 would overflow",
    "check_size": "its limit comes as float64 and is converted once",
    "unscale_checked": "likewise",
    "*_update_saving": "the step's rate decides whether it is doubtful",
    "*_update_saving_halves": "likewise",
    "safeguard": "likewise",
    "lamb_moments": "sums over a whole parameter, and what is computed from them",
    "lamb_ratio": "likewise",
    "adafactor_squares": "likewise",
    "adafactor_factored": "likewise",
    "adafactor_whole": "likewise",
    "adafactor_size": "likewise",
    "muon_momentum": "likewise",
    "muon_norm": "likewise",
    "adasecant_norm": "likewise",
    "adasecant_factor": "likewise",
    "*_descend": "the search of a full-batch method, and sums over all parameters",
    "hessian_free_step": "likewise",
    "levenberg_marquardt_step": "likewise",
    "column_factors": "squared norms, and a limit that comes as float64",
    "limit_rows": "likewise",
    "limit_columns": "likewise",
    "add_noise": "the noise's deviation, one number of the step",
    "mixing_share": "one number a step, drawn from a beta distribution",
    "wavenet_sample": "the numbers that a sample is drawn by",
    "shrink": "the step's rate, which comes as float64",
    "update_factors": "likewise",
    "norm_sum": "likewise",
    "squared_norm": "likewise",
    "mean": "sums over the batch are float64, as on the CPU",
    "total": "likewise",
    "weighted_mean": "likewise",
}


#: folders of kernels, those that optimisers make in "update"; a test takes the reports of each
TOPICS = sorted({name.split(".")[2] for name in topics.modules("cuda")})


def topic_of(kernel: CudaKernel) -> str:
    return kernel.function.__module__.split(".")[2]


KNOWN = """
import fastnn.optim
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.runtime.cuda import report
report.declare_all()
print(*CUDA_KERNELS)
"""


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The names of fastnn's kernels, without what other tests of this process have made."""
    report.declare_all()
    done = subprocess.run([sys.executable, "-c", KNOWN], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def all_reports(request: pytest.FixtureRequest, known: set[str]) -> list:
    """Of the kernels of all topics that this run's tests ask for, made together, in float32; of
    some in float64, too."""
    asked = {
        item.callspec.params.get("topic")
        for item in request.session.items
        if getattr(item, "module", None) is request.module and hasattr(item, "callspec")
    }
    names = [name for name in sorted(known) if topic_of(CUDA_KERNELS[name]) in asked]
    return report.examine_all(names, in_float64=in_float64, look=compiled.examine)


@pytest.fixture(params=TOPICS)
def topic(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def reports(topic: str, all_reports: list) -> list:
    """Those of a topic."""
    return [r for r in all_reports if topic_of(CUDA_KERNELS[r.kernel]) == topic]


def fits(name: str, patterns) -> bool:
    return any(fnmatch.fnmatchcase(name, p) for p in patterns)


def test_every_kernel_becomes_machine_code(topic: str, reports: list, known: set[str]) -> None:
    assert [str(r) for r in reports if r.error] == []
    kernels = {n: CUDA_KERNELS[n] for n in known if topic_of(CUDA_KERNELS[n]) == topic}
    assert kernels
    for cc in ((8, 0), (9, 0)):
        made = [r for r in reports if r.cc == cc]
        assert {r.kernel for r in made} >= {n for n, k in kernels.items() if k.runs_on(cc)}
        assert all(r.cubin > 1000 for r in made)
    print("\n".join(map(str, reports)))  # noqa: T201


def test_no_kernel_is_left_out(known: set[str]) -> None:
    """Each is in a folder of kernels, those that optimisers make are there."""
    assert len(known) > 300
    assert {topic_of(CUDA_KERNELS[name]) for name in known} == set(TOPICS)
    assert known >= {"crf_forward", "muon_update", "muon_scale", "adam_prepare", "sgd_update"}


def test_nothing_spills(reports: list) -> None:
    assert [str(r) for r in reports if r.spills] == []


def test_float64_takes_twice_the_registers_at_most(reports: list) -> None:
    """By which it is known what may spill there."""
    narrow: dict[str, int] = {}
    for made in reports:
        if made.dtype == "float32":
            narrow[made.kernel] = max(made.registers, narrow.get(made.kernel, 0))
    wide = [r for r in reports if r.dtype == "float64"]
    assert [str(r) for r in wide if r.registers > 2 * narrow[r.kernel]] == []


def test_what_may_spill_in_float64_is_compiled() -> None:
    report.declare_all()

    def chosen(**registers: int) -> list[str]:
        return in_float64(
            report.Report(name, "float32", cc, registers=n - (cc == (8, 0)))
            for name, n in registers.items()
            for cc in ((8, 0), (9, 0))
        )

    assert report.room(CUDA_KERNELS["matmul_forward"], "float64") == report.MOST
    assert report.room(CUDA_KERNELS["cross_entropy_loss"], "float64") == 64  # 1,024 threads
    assert chosen(matmul_forward=127, matmul_transposed_forward=128) == [
        "matmul_transposed_forward"
    ]
    assert chosen(cross_entropy_loss=33, cross_entropy_forward=40, cross_entropy_backward=32) == [
        "cross_entropy_forward", "cross_entropy_loss",
    ]  # fmt: skip
    # one of each file, none of formulas, and none that float64 has not
    assert chosen(fill=8, total=9, matmul_forward=30, tanh_forward=200, to_bf16=200) == [
        "matmul_forward", "total",
    ]  # fmt: skip


def test_dynamic_shared_memory_can_be_read_16_bytes_at_a_time(reports: list) -> None:
    """Numba declares it with its element's alignment, and static shared memory comes before it."""
    assert [str(r) for r in reports if r.alignment % 16] == []


def test_dynamic_shared_memory_is_declared_so() -> None:
    ptx = ".extern .shared .align 4 .b8 dynamic[];\n.visible .entry mangled(\n)\n"
    found = _cuda._renamed([ptx], "fastnn_entry_k")
    assert ".extern .shared .align 16 .b8 dynamic[];" in found
    assert ".entry fastnn_entry_k(" in found
    for text, alignment in ((ptx, 4), (found, 16), (found + ptx, 4), ("", 0)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_cuda, "link", lambda text, cc: (b"code", ""))
            patch.setattr(compiler, "compiled_count", compiler.compiled_count)
            assert compiler.assemble(text, (9, 0)).alignment == alignment


@pytest.mark.parametrize(("topic", "pattern", "count"), [
    ("matmul", "linear_*", 30), ("convolution", "convolution_*_tile*", 9)
])  # fmt: skip
def test_products_keep_their_sums_in_registers(reports: list, pattern: str, count: int) -> None:
    """A loop over them that is not unrolled puts them into memory, which is no spill."""
    products = [r for r in reports if fits(r.kernel, (pattern,)) and r.dtype == "float32"]
    assert len({r.kernel for r in products}) >= count
    assert [str(r) for r in products if r.stack] == []


def test_float32_stays_float32(reports: list) -> None:
    """A constant or an integer in the wrong place makes a formula float64, which is slow."""
    float64 = [
        str(r)
        for r in reports
        if r.dtype == "float32" and r.float64 and not fits(r.kernel, FLOAT64_INSIDE)
    ]
    assert float64 == []
    spared = [
        str(r)
        for r in reports
        if r.dtype == "float32" and not r.float64 and fits(r.kernel, FLOAT64_INSIDE)
    ]
    assert spared == []  # exceptions that a kernel does not need


def test_spills_are_seen() -> None:
    """What the tests above read is there: a kernel with too few registers spills."""
    import dataclasses

    report.declare_all()
    kernel = CUDA_KERNELS["linear_forward_middle"]
    starved = dataclasses.replace(kernel, bounds=(1024, 2))
    cc = (9, 0)
    ptx = compiled.read(starved, "float64", cc)
    made = report.read(kernel.name, "float64", cc, compiler.assemble(ptx, cc))
    assert made.spills > 0
    assert made.float64 > 0  # and what the PTX says is
    assert made.alignment == 16


def test_what_is_in_the_cache_is_not_compiled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a report of it says the same."""
    report.declare_all()
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path))
    monkeypatch.setattr(compiler, "_loaded", {})
    first, count = report.examine("clip_scale", "float32"), compiler.compiled_count
    assert [(r.error, r.float64 > 0, r.registers > 0) for r in first] == [("", True, True)] * 2
    compiler._loaded.clear()
    assert report.examine("clip_scale", "float32") == first
    assert compiler.compiled_count == count


BOTH = """
import json, sys
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS
from fastnn.runtime.cpu import compiler as cpu
from fastnn import optim
from fastnn.runtime.cuda import compiler as cuda, report
report.declare_all()
optim.Adam().kernels()
names = ["tanh_forward", "gelu_backward", "adam_update"]
for name in names if sys.argv[1] == "both" else []:
    assert cpu.compile_object(KERNELS[name], "float32")
found = {n: cuda.compile_ptx(CUDA_KERNELS[n], "float32", cc=(8, 0)) for n in names}
print(json.dumps(found))
"""


def test_code_for_the_cpu_does_not_change_that_for_cuda() -> None:
    """The functions of `simd` have code of their own on either device, in one process, too."""
    both, alone = (
        subprocess.run(
            [sys.executable, "-c", BOTH, way], capture_output=True, text=True, check=False
        )
        for way in ("both", "alone")
    )
    assert both.returncode == alone.returncode == 0, both.stderr + alone.stderr
    assert both.stdout == alone.stdout


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_travel_with_their_turn_and_need_no_fence(dtype: str, way: str, cell: str) -> None:
    """The simulator has one memory; what orders a device's is seen in the code alone."""
    report.declare_all()
    kernel = CUDA_KERNELS[f"{cell}_persistent_{way}"]
    ptx = compiled.read(kernel, dtype, {"float32": (8, 0), "float64": (9, 0)}[dtype])
    assert not re.findall(r"membar|fence|\.acquire|\.release|\batom\.|\bred\.", ptx)
    # a number is one access, of as many whole words as it takes
    stores = set(re.findall(r"\S*st\.relaxed\S*", ptx))
    assert stores == {f"st.relaxed.gpu.global{'.v2' if dtype == 'float64' else ''}.b64"}
    assert set(re.findall(r"\S*ld\.relaxed\S*", ptx)) == {"ld.relaxed.gpu.global.v2.b64"}
    lines = ptx.splitlines()
    loads = [n for n, line in enumerate(lines) if "ld.relaxed" in line]
    assert all(lines[n].count("ld.relaxed") == 4 for n in loads)  # four are on their way at once
    for n in loads:  # a block's threads meet before anything is computed with what they read
        after = [x for x in lines[n:] if "bar.sync" in x or "fma.rn" in x or "relaxed" in x]
        assert "bar.sync" in after[1]


@pytest.mark.parametrize("name", ["rnn_cluster_forward", "gru_cluster_backward_early"])
def test_blocks_of_a_cluster_write_into_each_others_memory_without_fences(name: str) -> None:
    """They meet before the first word is written and when all have been read, never in between."""
    report.declare_all()
    kernel = CUDA_KERNELS[name]
    ptx = compiled.read(kernel, "float32", (9, 0))
    assert not kernel.cooperative
    assert not kernel.runs_on((8, 9))
    assert kernel.runs_on((9, 0))
    relaxed = {x.split("{")[0].strip() for x in re.findall(r"[ls][dt]\.relaxed\S*", ptx)}
    assert relaxed == {"st.relaxed.cluster.b64", "ld.relaxed.cluster.shared.v2.b64"}
    assert ptx.count("mapa.u64") == ptx.count("st.relaxed")
    assert not re.findall(r"membar|fence|ld\.acquire|st\.release|\batom\.|\bred\.", ptx)
    order = re.findall(r"barrier\.cluster\.arrive|[ls][dt]\.relaxed", ptx)
    assert order.count("barrier.cluster.arrive") == 2
    assert order[0] == order[-1] == "barrier.cluster.arrive"


def inside_a_loop(ptx: str, instruction: str) -> int:
    """How often an instruction stands between a label and a later branch back to it."""
    lines = ptx.splitlines()
    labels = {line.strip()[:-1]: n for n, line in enumerate(lines) if line.strip().endswith(":")}
    loops = [
        (labels[name], n)
        for n, line in enumerate(lines)
        for name in re.findall(r"bra(?:\.uni)?\s+(\S+);", line)
        if labels.get(name, n) < n
    ]
    found = [n for n, line in enumerate(lines) if instruction in line]
    return sum(any(begin < n < end for begin, end in loops) for n in found)


@pytest.mark.parametrize(
    ("name", "mma", "count", "others"),
    [
        # for a warp's tile and a slice of the sum: pieces down x across x steps (x products)
        ("linear_forward_bf16", "m16n8k16.row.col.f32.bf16.bf16.f32", 4 * 4 * 2, ("ldmatrix",)),
        ("linear_backward_input_fp16", "m16n8k16.row.col.f32.f16.f16.f32", 32, ("ldmatrix",)),
        ("linear_backward_weight_bf16_middle", "m16n8k16", 2 * 4 * 2, (".trans",)),
        ("linear_forward_tf32", "m16n8k8.row.col.f32.tf32.tf32.f32", 4 * 4 * 2, ()),
        ("linear_forward_tf32x3", "m16n8k8.row.col.f32.tf32.tf32.f32", 2 * 4 * 2 * 3, ()),
    ],
)  # fmt: skip
def test_products_use_tensor_cores_in_their_loop(
    name: str, mma: str, count: int, others: tuple[str, ...]
) -> None:
    report.declare_all()
    ptx = compiled.read(CUDA_KERNELS[name], "float32", (8, 0))
    assert ptx.count("mma.sync.aligned") == inside_a_loop(ptx, mma) == count
    for other in (*others, "cp.async.cg" if "tf32" not in name else "cp.async.ca"):
        assert inside_a_loop(ptx, other)


@pytest.mark.parametrize(
    "name", ["linear_backward_weight_bias_parts", "convolution_backward_weight_tile"]
)
def test_the_last_block_of_a_tile_sees_all_parts(name: str) -> None:
    """A fence after the parts are written and before the block counts, and one before it reads."""
    report.declare_all()
    kernel = CUDA_KERNELS[name]
    ptx = compiled.read(kernel, "float32", (9, 0))
    order = re.findall(r"membar\.gl|fence\.\S*gpu|atom\.\S*add|bar\.sync", ptx)
    place = next(n for n, text in enumerate(order) if text.startswith("atom"))
    kinds = ["bar" if text == "bar.sync" else "fence" for text in order]
    assert kinds[place - 2 : place] == ["fence", "bar"]
    assert kinds[place + 1 : place + 3] == ["bar", "fence"]
    assert "ld.global.nc" not in ptx
    assert ptx.rindex("st.global") > ptx.index("atom.")


def test_another_process_finds_the_compiled_kernels() -> None:
    """Paths in the cache are the same everywhere: nothing of a process goes into their hash."""
    code = (
        "import fastnn.optim\n"
        "from fastnn.runtime.cuda import ahead, compiler\n"
        "for v in ahead.common_variants((9, 0)): print(compiler.code_path(*v).name)"
    )
    first, second = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(2)
    )
    assert first.stdout == second.stdout
    assert len(first.stdout.splitlines()) > len(CUDA_KERNELS)
