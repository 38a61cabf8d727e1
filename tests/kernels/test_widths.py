"""Narrower vectors than the CPU has, each width in a process of its own.

Results have the same bits at every width: kernels that add lanes up have vectors of 512 bits on
every CPU, in as many registers as that takes, and the bits of their twins.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastnn.kernels.broadcast.cpu
import fastnn.kernels.crf.cpu
import fastnn.kernels.loss.cpu
import fastnn.kernels.norm.cpu
import fastnn.kernels.random.cpu
import fastnn.kernels.reduce.cpu
import fastnn.kernels.softmax.cpu
import fastnn.kernels.step.cpu  # noqa: F401
from fastnn.kernels.control_block import LENGTH
from fastnn.kernels.cpu import target
from fastnn.kernels.crf.shared import columns_for, room_for
from fastnn.kernels.declare import KERNELS
from fastnn.kernels.elementwise.rows import TABLE
from fastnn.testing.kernels import call

ROOT = Path(__file__).parents[2]
NARROW = [bits for bits in (128, 256) if bits < target.host().vector_bits]
#: run again at each width: a few of each kind
AGAIN = (
    "test_float32_over_the_whole_range or test_special_values or test_machine_code or test_known "
    "or test_numbers_follow or test_sums or test_moving or test_maxout or test_prelu or test_quick "
    "or test_gradients_keep"
)


def random_field(dtype):
    """Losses and shares of a conditional random field, in whole vectors of sequences and singly."""
    rng, (B, T, C) = np.random.default_rng(3), (37, 7, 5)
    M, lengths = columns_for(C), rng.integers(1, T + 1, B)
    lengths[:16], size = T, dict(x=(B, T, C), transitions=(C, C), start=(C,), end=(C,))
    given = {name: rng.normal(size=shape).astype(dtype) for name, shape in size.items()}
    out = dict(loss=(B,), share=(B, T, M), pair=(B, C + 2, M), work=(B, room_for(C, T)))
    out = {name: np.zeros(shape, dtype) for name, shape in out.items()}
    target = rng.integers(0, C, (B, T))
    call(KERNELS["crf_forward"], **given, **out, lengths=lengths, target=target)
    return np.concatenate([out[k].reshape(B, -1, M)[..., :C].ravel() for k in ("share", "pair")])


def fingerprints():
    """A hash of the results of kernels whose bits depend on no width, by name and type."""
    result = {}
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.normal(size=700), rng.uniform(-90, 90, 300)]).reshape(8, 125)
    control = np.zeros(LENGTH, np.int64)
    for dtype in (np.float32, np.float64):
        x = values.astype(dtype)
        if dtype == np.float32:  # the whole range, by bit patterns
            x = np.arange(0, 2**32, 400009, dtype=np.uint64).astype(np.uint32).view(dtype)
            x = x[: len(x) // 16 * 16].reshape(-1, 16)
        for name, function in TABLE.items():
            if function.inputs != ("x",):
                continue
            saved, given = function.saved, dict.fromkeys(function.reals, 0.75)
            y, dx = np.empty_like(x), np.empty_like(x)
            call(KERNELS[f"{name}_forward"], x=x, y=y, **given)
            call(KERNELS[f"{name}_backward"], **{saved: x}, dy=np.ones_like(x), dx=dx, **given)
            for key, array in ((name, y), (f"{name} backward", dx)):
                array[np.isnan(array)] = np.nan  # a NaN's sign is nobody's business
                result[key, x.dtype.name] = array
        x = values.astype(dtype)
        for name in ("uniform", "normal", "dropout"):
            y = np.empty_like(x)
            if name == "dropout":
                call(KERNELS[name], x=x, y=y, control=control, keep=0.5, scale=2.0, stream=1)
            else:
                reals = dict(zip(list(KERNELS[name].params)[2:4], (0.5, 2.0), strict=True))
                call(KERNELS[name], y=y, control=control, stream=1, **reals)
            result[name, x.dtype.name] = y
        result |= sums(dtype)
        result["crf", x.dtype.name] = random_field(dtype)
    return "\n".join(
        f"{k}: {hashlib.sha256(v.tobytes()).hexdigest()}"
        for k, v in sorted(result.items(), key=str)
    )


def sums(dtype):
    """The results of kernels that add lanes up."""
    from fastnn.kernels.matmul import cpu as linear
    from fastnn.kernels.matmul import cpu_batched as batched

    rng, result = np.random.default_rng(3), {}
    classes = rng.integers(0, 4, 5)

    def keep(made, shapes, **given):
        made = KERNELS[made] if isinstance(made, str) else made
        for name, shape in shapes.items():
            kind = np.float64 if made.arrays[name].dtype == "r" else dtype
            given[name] = np.full(shape, np.nan, kind)
        for name, value in given.items():
            if isinstance(value, np.ndarray) and made.arrays[name].dtype == "f":
                given[name] = value.astype(dtype)
        call(made, **given)
        for name, shape in shapes.items():
            result[made.name, name, c, shape, np.dtype(dtype).name] = given[name]

    for c in (4, 37, 100, 203):
        x, dy, w = rng.normal(size=(5, c)), rng.normal(size=(5, c)), rng.normal(size=(3, c))
        none = np.zeros(0)
        for name in ("sum_columns", "logsumexp_columns", "squared_norm"):
            keep(name, {"y": (5,)}, x=x)
        for name in ("softmax", "log_softmax"):
            keep(f"{name}_forward", {"y": (5, c)}, x=x)
            keep(f"{name}_backward", {"dx": (5, c)}, y=x, dy=dy)
        keep("mse_forward", {"loss": (5,)}, x=x, target=dy, scale=0.3)
        keep("layer_norm_forward", {"y": (5, c), "mean": (5,), "rstd": (5,)}, x=x, gain=none,
             bias=none, eps=1e-5)  # fmt: skip
        keep("layer_norm_backward_input", {"dx": (5, c)}, x=x, gain=none, dy=dy,
             mean=x[:, 0].copy(), rstd=x[:, 1].copy())  # fmt: skip
        keep("cross_entropy_forward", {"dlogits": (5, c), "loss": (5,)}, x=x, target=classes,
             weight=none, smoothing=0.1, ignore_index=-100)  # fmt: skip
        keep("prelu_backward_weight_single", {"dweight": (1,)}, x=x, dy=dy)
        keep(linear.linear_backward_input_unpacked, {"dx": (5, 3)}, dy=dy, w=w)
        keep(batched.matmul_transposed_forward, {"y": (1, 5, 3)}, a=x[None], b=w[None])
    return result


def python(bits, *arguments):
    environment = {**os.environ, "FASTNN_VECTOR_BITS": str(bits)}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # which takes pytest most of a second
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@pytest.mark.skipif(not NARROW, reason="this CPU's vectors have 128 bits")
@pytest.mark.parametrize("bits", NARROW)
def test_same_bits(bits):
    program = (
        "import runpy; from fastnn.kernels.cpu import target; print(target.host().vector_bits); "
        f"print(runpy.run_path({str(Path(__file__))!r})['fingerprints']())"
    )
    done = python(bits, "-c", program)
    assert done.returncode == 0, done.stderr
    width, rest = done.stdout.strip().split("\n", 1)
    assert int(width) == bits
    assert rest == fingerprints()


@pytest.mark.skipif(not NARROW, reason="this CPU's vectors have 128 bits")
@pytest.mark.parametrize("bits", NARROW)
def test_tests_pass(bits):
    files = [
        f"tests/kernels/test_{f}.py" for f in ("vector_math", "elementwise", "random", "range")
    ]
    done = python(bits, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files, "-k", AGAIN)
    assert done.returncode == 0, done.stdout[-3000:]


def test_wrong_width_is_refused():
    done = python(1024, "-m", "fastnn", "info")
    assert done.returncode != 0
    assert done.stderr.startswith("Error: FASTNN_VECTOR_BITS='1024': expected 128, 256 or 512")


def test_sums_in_lanes_are_their_twins():
    """Products that sum in lanes, compiled and as their twins."""
    from fastnn.kernels import simd
    from fastnn.kernels.matmul import cpu as linear
    from fastnn.kernels.matmul import cpu_batched as batched

    rng, different, lanes = np.random.default_rng(2), [], simd.TWIN_LANES[4]

    def both(kernel, out, shape, **given):
        given = {n: rng.normal(size=s).astype(np.float32) for n, s in given.items()}
        compiled, twin = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
        call(kernel, **given, **{out: compiled})
        kernel(**given, **{out: twin}, lo=0, hi=shape[0])
        if compiled.tobytes() != twin.tobytes():
            different.append((kernel.name, shape))

    for c in (1, lanes - 1, lanes, 4 * lanes + 3, 8 * lanes, 9 * lanes + 1):
        both(batched.matmul_forward, "y", (2, 3, 1), a=(2, 3, c), b=(2, c, 1))
        both(batched.matmul_transposed_forward, "y", (2, 2, 3), a=(2, 2, c), b=(2, 3, c))
        both(batched.matmul_backward_b, "db", (2, c, 1), a=(2, 5, c), dy=(2, 5, 1))
        both(batched.matmul_backward_b, "db", (2, 5, c), a=(2, 1, 5), dy=(2, 1, c))
        both(linear.linear_backward_input_unpacked, "dx", (2, 5), dy=(2, c), w=(5, c))
    assert different == []
