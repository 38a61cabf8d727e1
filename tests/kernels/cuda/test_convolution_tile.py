"""Convolutions by the tile of matrix products on CUDA: against plain loops in float64, the kernels
that compute one element a thread, and what a call of its own computes of a part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim
from fastnn.kernels.convolution import cuda_choice
from fastnn.kernels.convolution.cuda_choice import UNITS
from fastnn.kernels.cuda.tile import round_tf32
from fastnn.kernels.rnn.shared import ACTIVATIONS
from fastnn.runtime.cuda import report
from tests.kernels.cuda.common import compute_cuda
from tests.kernels.cuda.test_convolution import CASES, Case, arrays, oracle

report.declare_all()

#: beyond those of one element a thread: around the edges of tiles (64 rows, 64 columns) and slices
#: (16 terms, of which three are on their way), and steps that share factors with the stride
TILES = [
    Case(1, (5, 13), 1, 3, (3, 3), before=(1, 1)),  # one channel, two tiles of positions
    Case(2, (2, 3), 17, 5, (2, 2)),  # 68 terms: two tiles of the weights' rows, a slice of four
    Case(1, (1, 4), 1, 66, (1, 2)),  # two tiles of columns
    Case(1, (7, 9), 2, 3, (3, 2), (2, 3), (2, 1), (2, 1)),  # places that no window has
    Case(1, (7, 8), 2, 2, (1, 2), (3, 3)),
    Case(1, (8, 7), 1, 2, (3, 3), (4, 2), (6, 4), (7, 5)),
    Case(2, (4, 4), 8, 8, (2, 2), before=(1, 1), groups=2),  # four neighbours at once
    Case(3, (3, 2), 4, 16, (2, 1)),  # 18 positions and 16 columns: whole pieces, and a rest
]
#: groups of two channels, rows of windows two apart
GROUPS = Case(2, (3, 3), 4, 6, (2, 2), (2, 1), before=(1, 1), groups=2)


def numbers(case: Case) -> dict[str, int]:
    return {**case.numbers, "groups": case.groups}


def forward(suffix: str, case: Case, dtype: Any, activation: int = -1, **given: Any) -> np.ndarray:
    shape = len(given["x"]), *case.places, case.outputs
    return compute_cuda(
        f"convolution_forward_tile{suffix}", dtype, {"y": shape}, activation=activation, **given,
        **numbers(case),
    )["y"]  # fmt: skip


def to_input(
    suffix: str, case: Case, dtype: Any, activation: int = -1, y: Any = None, **given: Any
) -> np.ndarray:
    shape = len(given["dy"]), *case.image, case.channels
    return compute_cuda(
        f"convolution_backward_input_tile{suffix}", dtype, {"dx": shape}, activation=activation,
        y=y, **given, **numbers(case),
    )["dx"]  # fmt: skip


def to_weight(
    suffix: str, case: Case, dtype: Any, parts: int = 1, sums: bool = True, **given: Any
) -> dict[str, np.ndarray]:
    """dw and dbias, in so many parts; the counts of tiles are 0 again afterwards."""
    depth = case.kernel[0] * case.kernel[1] * case.channels // case.groups
    out: dict[str, Any] = {"dw": (depth, case.outputs)}
    more: dict[str, Any] = {"counts": np.zeros(64), "kernel_w": case.kernel[1]}
    if parts > 1:
        out |= {"parts": (parts, depth, case.outputs), "bias_parts": (parts, case.outputs)}
    else:
        more |= {"parts": None, "bias_parts": None}
    if sums:
        out["dbias"] = (case.outputs,)
    else:
        more |= {"dbias": None, "bias_parts": None}
        out.pop("bias_parts", None)
    got = compute_cuda(
        f"convolution_backward_weight_tile{suffix}", dtype, out, **given, **more, **numbers(case)
    )
    assert not got["counts"].any()
    return got


def all_three(case: Case, dtype: Any, suffix: str = "", parts: int = 1) -> list[np.ndarray]:
    x, w, bias, dy = arrays(case, dtype)
    found = to_weight(suffix, case, dtype, parts, x=x, dy=dy)
    y, dx = (
        forward(suffix, case, dtype, x=x, w=w, bias=bias), to_input(suffix, case, dtype, dy=dy, w=w)
    )  # fmt: skip
    return [y, dx, found["dw"], found["dbias"]]


def wanted(case: Case, given: Any) -> list[np.ndarray]:
    """What `all_three` should give."""
    y, dx, dw = oracle(case, *given)
    dbias = given[3].astype(float).sum((0, 1, 2))
    return [y, dx, dw.reshape(-1, case.outputs), dbias]


def close(found: list[np.ndarray], want: list[np.ndarray], tolerance: float) -> None:
    for name, a, b in zip(("y", "dx", "dw", "dbias"), found, want, strict=True):
        largest = max(np.abs(b).max(), 1.0)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * largest, err_msg=name)


@pytest.mark.parametrize("case", [CASES[1], GROUPS, *TILES])
def test_against_plain_loops(case: Case) -> None:
    given = arrays(case, np.float32)
    close(all_three(case, np.float32), wanted(case, given), 3e-6)


@pytest.mark.parametrize("case", [TILES[3], TILES[6]])
def test_float64(case: Case) -> None:
    given = arrays(case, np.float64)
    close(all_three(case, np.float64, parts=2), wanted(case, given), 1e-14)


@pytest.mark.parametrize("case", [TILES[0], TILES[3], GROUPS])
def test_the_bits_of_one_element_a_thread(case: Case) -> None:
    """Both ways an element of y or dx is the CPU's chain of multiply-adds, in one order."""
    x, w, bias, dy = arrays(case, np.float32)
    more = {"w": w, "w_packed": None, "room": None, **numbers(case)}
    out = {"y": dy.shape}
    want = compute_cuda("convolution_forward", np.float32, out, x=x, bias=bias, **more)["y"]
    got = forward("", case, np.float32, x=x, w=w, bias=bias)
    np.testing.assert_array_equal(got, want)
    out = {"dx": x.shape}
    want = compute_cuda("convolution_backward_input", np.float32, out, dy=dy, **more)["dx"]
    np.testing.assert_array_equal(to_input("", case, np.float32, dy=dy, w=w), want)


def test_parts() -> None:
    """In their order, the last of which are empty."""
    case = Case(2, (5, 4), 2, 3, (2, 2), before=(1, 0), groups=1)
    given = arrays(case, np.float32)
    x, _, _, dy = given
    want = wanted(case, given)[2:]
    for parts in (2, 4):
        got = to_weight("", case, np.float32, parts, x=x, dy=dy)
        close([*want, got["dw"], got["dbias"]], [*want, *want], 3e-6)
        plain = to_weight("", case, np.float32, parts, False, x=x, dy=dy)["dw"]
        np.testing.assert_array_equal(got["dw"], plain)
        total = got["parts"][0]
        for part in got["parts"][1:]:
            total = total + part
        np.testing.assert_array_equal(got["dw"], total)


@pytest.mark.parametrize("suffix", UNITS)
def test_tensor_cores(suffix: str) -> None:
    """Factors are rounded as a matrix product's are; in three products they are not."""
    case = TILES[6]
    given = arrays(case, np.float32)
    found = all_three(case, np.float32, suffix, parts=2)
    exact = wanted(case, given)
    if suffix == "_tf32x3":
        close(found, exact, 3e-6)
        return
    x, w, bias, dy = given
    rounded = wanted(case, [round_tf32(x), round_tf32(w), bias, round_tf32(dy)])
    close(found, [*rounded[:3], exact[3]], 3e-6)  # sums of dy are of the numbers as they are
    close(found, exact, 2e-3)
    with pytest.raises(AssertionError):
        close(found, exact, 3e-6)


@pytest.mark.parametrize(
    ("suffix", "case", "functions"),
    [("", GROUPS, ACTIVATIONS), ("_tf32", TILES[3], ["relu"])],
)
def test_endings(suffix: str, case: Case, functions: Any) -> None:
    """The bits of the convolution, and of what would come after it."""
    x, w, bias, dy = arrays(case, np.float32)
    given = {"x": x, "w": w, "bias": bias}
    plain = forward(suffix, case, np.float32, **given)
    slope = to_input(suffix, case, np.float32, dy=dy, w=w)
    for name in functions:
        number = ACTIVATIONS[name]
        got = forward(suffix, case, np.float32, number, **given)
        rows = plain.reshape(-1, case.outputs)
        want = compute_cuda(f"{name}_forward", np.float32, {"y": rows.shape}, x=rows)["y"]
        np.testing.assert_array_equal(got, want.reshape(got.shape))
        y = np.abs(x) / (1 + np.abs(x)) * (np.abs(x) > 0.5)
        got = to_input(suffix, case, np.float32, number, y=y, dy=dy, w=w)
        flat = {"y": y.reshape(-1, case.channels), "dy": slope.reshape(-1, case.channels)}
        out = {"dx": flat["dy"].shape}
        want = compute_cuda(f"{name}_backward", np.float32, out, **flat)["dx"]
        np.testing.assert_array_equal(got, want.reshape(got.shape))


def test_a_sample_does_not_depend_on_its_batch() -> None:
    """Nor on the tile and the grid in which it lies."""
    case = Case(5, (4, 5), 2, 3, (3, 2), (2, 1), before=(1, 1))
    x, w, bias, dy = arrays(case, np.float32)
    y = forward("", case, np.float32, x=x, w=w, bias=bias)
    dx = to_input("", case, np.float32, dy=dy, w=w)
    for some in (slice(3, 4), slice(1, 5)):
        got = forward("", case, np.float32, x=x[some], w=w, bias=bias)
        np.testing.assert_array_equal(got, y[some])
        got = to_input("", case, np.float32, dy=dy[some], w=w)
        np.testing.assert_array_equal(got, dx[some])


def test_training_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A net too small for it, with all that may be part of a tile: the CPU's losses."""
    monkeypatch.setattr(cuda_choice, "ELEMENTS", 1e-9)
    monkeypatch.setattr(cuda_choice, "TERMS", 16)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4, 1, 5, 6)).astype(np.float32), rng.integers(0, 3, 4)
    losses = {}
    for device in ("cpu", "cuda"):
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, (2, 3), 2, groups=2),
            nn.Tanh(), nn.ConvTranspose2d(4, 2, 2, 2), nn.Flatten(), nn.Linear(32, 3),
        )  # fmt: skip
        trainer = fnn.Trainer(model, "cross_entropy", optim.SGD(lr=0.1), device=device, seed=4)
        history = trainer.fit(x, y, epochs=3, batch_size=4, verbose=False).history
        losses[device] = history["loss"]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=2e-6)
    assert losses["cpu"][2] < losses["cpu"][0] - 1e-3
