"""CUDA kernels of recurrent nets against plain loops, central differences and each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastnn.kernels.cuda import half
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.kernels.recurrent.cuda_layout import Layout
from fastnn.testing.kernels import call_cuda
from tests import naive, naive_recurrent
from tests.kernels.cuda.recurrent import CELLS, Arrays, Case

LAYOUTS = [
    ((1, 1, 1), Layout(1, 1, 4)),
    ((5, 3, 7), Layout(2, 2, 4)),
    ((9, 2, 5), Layout(1, 1, 8)),
    ((5, 3, 7), Layout(2, 2, 4, near=True)),
    ((9, 2, 3), Layout(1, 1, 4, near=True, held=True)),
    ((2, 3, 18), Layout(1, 2, 12, held=True)),
]


@pytest.mark.parametrize(("cell", "options"), CELLS)
@pytest.mark.parametrize(("sizes", "layout"), LAYOUTS)
def test_outputs_agree_with_plain_loops(
    cell: str, options: dict[str, Any], sizes: tuple[int, int, int], layout: Layout
) -> None:
    for k, size in enumerate((np.float32, np.float64)):
        known = np.array([3, 0, 1, 2, 3]) if sizes[0] == 5 else None
        case = Case(cell, options, sizes, size, k, known, states=sizes[0] != 9)
        y, finals = case.oracle()
        tolerance = 2e-6 if size == np.float32 else 1e-13
        for got in (case.forward(layout), case.forward_by_steps()):
            np.testing.assert_allclose(got["y"], y, rtol=tolerance, atol=tolerance)
            for name, final in zip(("h_n", "c_n"), finals, strict=False):
                np.testing.assert_allclose(got[name], final, rtol=tolerance, atol=tolerance)


def rounded(x: np.ndarray, is_bf16: int) -> np.ndarray:
    words = half.half_word(np.ascontiguousarray(x, np.float32), is_bf16)
    return np.asarray(half.half_value(words, is_bf16)).astype(float)


@pytest.mark.parametrize(("cell", "options"), CELLS[1:2] + CELLS[4:])
@pytest.mark.parametrize("near", [False, True])
def test_products_of_16_bits(cell: str, options: dict[str, Any], near: bool) -> None:
    """Each step, and each step's gradient, beside float64 from the numbers that it takes, rounded
    as the kernel rounds them: what differs is float32's sums."""
    sizes = (5, 2, 17) if near else (2, 2, 5)
    case = Case(cell, options, sizes, np.float32, is_bf16=int(near))
    layout = Layout(1, 5 if near else 1, 4 if near else 8, near, half=True)
    got = case.forward(layout)
    exact = {k: v if v is None else v.astype(float) for k, v in case.arrays.items()}
    exact["w_hh"] = rounded(exact["w_hh"], case.is_bf16)
    plain = Case(cell, options, sizes, np.float64, rounded=lambda h: rounded(h, case.is_bf16))
    plain.arrays = exact
    want = plain.forward_by_steps()
    for name in ("y", "h_n"):
        np.testing.assert_allclose(got[name], want[name], rtol=2e-5, atol=2e-6)
    found = case.backward(got, layout)
    expected = plain.backward_by_steps(want)
    for name in ("dz", "dh0", *(["dc0"] if cell == "lstm" else [])):
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-4, atol=2e-5)


def weight_gradient(case: Case, got: Arrays) -> np.ndarray:
    """dW_hh from what the backward kernel wrote: plain products over all rows."""
    before = got["before"].reshape(-1, case.sizes[2])
    dz_h = got["dz_h"] if case.cell == "gru" else got["dz"]
    first = before.T @ dz_h.reshape(len(before), -1)
    if not case.before:
        return first
    return np.hstack(
        [first, got["reset"].reshape(before.shape).T @ got["dn"].reshape(before.shape)]
    )


@pytest.mark.parametrize(("by_steps", "near"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize(("cell", "options"), CELLS)
def test_gradients_agree_with_central_differences(
    cell: str, options: dict[str, Any], by_steps: bool, near: bool
) -> None:
    reverse = 1 if cell == "gru" else 0
    case = Case(cell, options, (3, 4, 5), np.float64, reverse, np.array([3, 0, 4]))
    layout = Layout(1, 2, 4, near, held=near)
    forward = case.forward(layout)
    got = case.backward_by_steps(forward) if by_steps else case.backward(forward, layout)
    incoming = [case.arrays["dh_n"], case.arrays["dc_n"]]

    def check(name: str, gradient: np.ndarray) -> None:
        def loss(v: np.ndarray) -> Any:
            y, finals = case.oracle(**{name: v})
            more = sum(np.sum(f * d) for f, d in zip(finals, incoming, strict=False))
            return np.sum(y * case.arrays["dy"]) + more

        want = naive.numeric_gradient(loss, case.arrays[name], 1.0)
        np.testing.assert_allclose(gradient, want, rtol=2e-6, atol=2e-7, err_msg=name)

    check("h0", got["dh0"])
    check("x", got["dz"] @ case.arrays["w_ih"].T)
    check("w_ih", np.einsum("bti,btg->ig", case.arrays["x"], got["dz"]))
    check("b_ih", got["dz"].sum((0, 1)))
    check("w_hh", weight_gradient(case, got))
    if case.before:
        check("b_hh", np.append(got["dz_h"].sum((0, 1)), got["dn"].sum((0, 1))))
    else:
        check("b_hh", got["dz_h" if cell == "gru" else "dz"].sum((0, 1)))
    if cell == "lstm":
        check("c0", got["dc0"])
        if case.arrays["peephole"] is not None:
            check("peephole", got["dpeephole"].sum(0))


def test_sequences_are_sorted_by_length() -> None:
    known = np.array([2, 9, 0, 2, 5, -1, 4])
    order = np.full(7, 99)
    call_cuda(CUDA_KERNELS["sequence_order"], lengths=known, order=order, steps=5)
    assert order.tolist() == [1, 4, 6, 0, 3, 2, 5]


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("bptt", [0, 2])
def test_leaky_sums(reverse: int, bptt: int) -> None:
    rng = np.random.default_rng(1)
    x, dy = rng.standard_normal((2, 3, 5, 7))
    h0, dh_n = rng.standard_normal((2, 3, 7))
    known = np.array([5, 0, 3])
    y, h_n, dx, dh0 = np.full_like(x, np.nan), h0 * np.nan, x * np.nan, h0 * np.nan
    shared = {"lengths": known, "keep": 0.9, "reverse": reverse}
    call_cuda(CUDA_KERNELS["leaky_forward"], x=x, h0=h0, y=y, h_n=h_n, **shared)
    want, final = naive_recurrent.leaky(x, 0.9, h0, known, bool(reverse))
    np.testing.assert_allclose(y, want, atol=1e-14)
    np.testing.assert_allclose(h_n, final, atol=1e-14)
    kernel = CUDA_KERNELS["leaky_backward"]
    call_cuda(kernel, dy=dy, dh_n=dh_n, dx=dx, dh0=dh0, bptt=bptt, **shared)
    if bptt:
        assert not dh0[[0, 2]].any()
        np.testing.assert_array_equal(dh0[1], dh_n[1])
        flow = np.zeros_like(dy)
        for b, length in enumerate(known):
            g = dh_n[b].copy()
            for turn in range(length - 1, -1, -1):
                t = length - 1 - turn if reverse else turn
                g += dy[b, t]
                flow[b, t] = 0.1 * g
                g = 0 * g if turn % bptt == 0 else 0.9 * g
        np.testing.assert_allclose(dx, flow, atol=1e-14)
        return

    def loss(a: np.ndarray, b: np.ndarray) -> Any:
        out, last = naive_recurrent.leaky(a, 0.9, b, known, bool(reverse))
        return np.sum(out * dy) + np.sum(last * dh_n)

    np.testing.assert_allclose(dx, naive.numeric_gradient(lambda v: loss(v, h0), x, 1.0), atol=1e-7)
    np.testing.assert_allclose(
        dh0, naive.numeric_gradient(lambda v: loss(x, v), h0, 1.0), atol=1e-7
    )


def test_swapping_time_and_batch() -> None:
    x = np.random.default_rng(0).standard_normal((3, 5, 2))
    y = np.full((5, 3, 2), np.nan)
    call_cuda(CUDA_KERNELS["swap_time_forward"], x=x, y=y)
    np.testing.assert_array_equal(y, x.transpose(1, 0, 2))
