"""Convolutions on CUDA as products of factors that are laid out nowhere: the tile of
`matmul/cuda_product.py`, which copies windows of images to shared memory (`cuda_windows.py`).

Formulas and letters are those of `cpu.py`. Of each group of channels ::

    y  [positions, outputs]  = windows of x  [positions, depth]  @ w [depth, outputs]
    dx [places, channels]    = windows of dy [places, depth]     @ w [depth, channels]

where positions (or places of the image) are those of all samples, and the depth is the window's
rows, columns and channels. dx gathers: an element is one sum over the windows that it is in, which
one thread computes, so nothing is added to memory. With a stride, neighbouring places are in
different elements of windows; those that are a stride apart are in the same ones. So the places of
each of the stride_h*stride_w residues make a product of their own, of the elements that reach
them, and no product is of zeros between windows.

In the shapes with one group of warps an element is one chain of multiply-adds in the order of the
depth. It depends on nothing else of the batch, nor on the grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cuda.device import cuda, flat, thread_number
from ..declare import ceil_div, cuda_kernel, helper
from ..matmul.cuda_product import Bias, Extra, Factor, Output, product_of
from ..matmul.cuda_slices import Shape, matrix_slices
from ..rnn.shared import ACTIVATIONS
from ..traits import Ending
from .cuda_choice import SHAPES, UNITS
from .cuda_windows import (
    OUTSIDE,
    Digits,
    Places,
    Steps,
    Weights,
    Windows,
    short,
    weight_slices,
    windows,
)


def launch_options(
    shape: Shape, rows: Any, columns: Any, others: Any, threads: int = 512
) -> dict[str, Any]:
    """A block for each tile of each of the products, which the grid's third dimension counts; all
    three are functions of the sizes. So many threads share a multiprocessor's registers."""

    def launch(s: dict[str, int]) -> tuple[Any, Any]:
        grid = ceil_div(rows(s), shape.rows), ceil_div(columns(s), shape.columns), others(s)
        return grid, shape.threads

    bounds = (shape.threads, threads // shape.threads)
    return {"launch": launch, "shared": lambda s: shape.memory, "bounds": bounds}


def _forward_options(shape: Shape) -> dict[str, Any]:
    return launch_options(
        shape, lambda s: s["N"] * s["P"] * s["Q"], lambda s: s["K"] // s["groups"],
        lambda s: s["groups"],
    )  # fmt: skip


def _input_options(suffix: str, shape: Shape) -> dict[str, Any]:
    # two walks through windows beside both factors in parts take more than 128 registers
    threads = 256 if suffix == "_tf32x3" else 512
    return launch_options(
        shape,
        lambda s: s["N"] * ceil_div(s["H"], s["stride_h"]) * ceil_div(s["W"], s["stride_w"]),
        lambda s: s["G"],
        lambda s: s["groups"] * s["stride_h"] * s["stride_w"], threads,
    )  # fmt: skip


@helper
def reached(residue, size, elements, stride, dilation, before):
    """Along an axis, of the places `residue`, `residue` + stride, ...: how many there are, the
    first element of a window that reaches them, how far apart such elements are and how many there
    are, the window that reaches the first place by the first element, and how many windows earlier
    it is that reaches it by the next one."""
    begin = residue + before
    first = 0
    while first < elements and (begin - first * dilation) % stride != 0:
        first += 1
    apart = 1
    while apart * dilation % stride != 0:
        apart += 1
    return (
        (size - residue + stride - 1) // stride, first, apart,
        (elements - first + apart - 1) // apart, (begin - first * dilation) // stride,
        apart * dilation // stride,
    )  # fmt: skip


def _declare(suffix: str, shape: Shape) -> None:
    """The forward pass and the gradient to the input in one shape."""
    unit, rows = UNITS.get(suffix, ""), shape.rows
    only = {"only_float32": suffix in UNITS, "family": "convolution"}
    forward = f"convolution_forward_tile{suffix}"
    inputs = f"convolution_backward_input_tile{suffix}"
    product = product_of(shape, unit, "activation", slices=(windows(False), matrix_slices))
    product_spread = product_of(shape, unit, "spread", slices=(windows(False), weight_slices))

    @cuda_kernel(
        **_forward_options(shape), **only, name=forward,
        endings=tuple(
            Ending(forward, f"{name}_forward", "y", "x", "y", numbers=(("activation", number),))
            for name, number in ACTIVATIONS.items()
        ),
    )  # fmt: skip
    def convolution_forward(
        x: "in whole f[N,H,W,C]",
        w: "in whole f[I,J,G,K]",
        bias: "in whole f[B]",  # B is K, or 0: no bias
        y: "out whole f[N,P,Q,K]",
        stride_h: "int",
        stride_w: "int",
        dilation_h: "int",
        dilation_w: "int",
        top: "int",
        left: "int",
        groups: "int",
        activation: "int",  # tanh (0), ReLU (1), sigmoid (2) or none (-1)
    ):
        """y = f(x * w + bias), a cross-correlation"""
        at = cuda.shared.array(rows, np.int64)
        line = cuda.shared.array(rows, np.int32)
        place = cuda.shared.array(rows, np.int32)
        (N, P, Q, K), (_, H, W, C) = y.shape, x.shape
        J, group, own, g = w.shape[1], w.shape[2], K // groups, cuda.blockIdx.z
        thread, M = thread_number(), N * P * Q
        if thread < rows:
            r = cuda.blockIdx.x * rows + thread
            p, q = r // Q % P, r % Q
            h, v = p * stride_h - top, q * stride_w - left
            line[thread] = h if r < M else OUTSIDE
            place[thread] = v
            at[thread] = ((r // (P * Q) * H + h) * W + v) * C + g * group
        cuda.syncthreads()
        steps = Steps(dilation_h * W * C, dilation_w * C, 1, dilation_h, 0, dilation_w, 0)
        product(
            Windows(flat(x), Places(at, line, place), short(H), short(W),
                    Digits(short(J), short(group)), steps, False),
            Factor(flat(w)[g * own :], K, True), Output(flat(y), g * own, K, M, own),
            Bias(bias[g * own :], bias.size > 0), 0, w.shape[0] * J * group,
            Extra(bias, 0, activation),
        )  # fmt: skip

    @cuda_kernel(
        **_input_options(suffix, shape), **only, name=inputs,
        endings=tuple(
            Ending(
                inputs, f"{name}_backward", "dx", "dy", "dx", also="y",
                numbers=(("activation", number),),
            )
            for name, number in ACTIVATIONS.items()
        ),
    )  # fmt: skip
    def convolution_backward_input(
        dy: "in whole f[N,P,Q,K]",
        w: "in whole f[I,J,G,K]",
        y: "in whole f[N,H,W,C]",  # f's outputs, absent without f
        dx: "out whole f[N,H,W,C]",
        stride_h: "int",
        stride_w: "int",
        dilation_h: "int",
        dilation_w: "int",
        top: "int",
        left: "int",
        groups: "int",
        activation: "int",  # tanh (0), ReLU (1), sigmoid (2) or none (-1)
    ):
        """dx = (the sum of dy*w over all windows that an element is in) f', by f's outputs"""
        at = cuda.shared.array(rows, np.int64)
        goal = cuda.shared.array(rows, np.int64)
        line = cuda.shared.array(rows, np.int32)
        place = cuda.shared.array(rows, np.int32)
        (N, H, W, C), (_, P, Q, K) = dx.shape, dy.shape
        I, J, group, own = w.shape[0], w.shape[1], w.shape[2], K // groups
        residues = stride_h * stride_w
        g, residue = cuda.blockIdx.z // residues, cuda.blockIdx.z % residues
        row, column = residue // stride_w, residue % stride_w
        lines, i, i_apart, i_count, p, p_step = reached(
            row, H, I, stride_h, dilation_h, top
        )  # fmt: skip
        columns, j, j_apart, j_count, q, q_step = reached(
            column, W, J, stride_w, dilation_w, left
        )  # fmt: skip
        thread, M = thread_number(), N * lines * columns
        if cuda.blockIdx.x * rows >= M:
            return
        if thread < rows:
            r = cuda.blockIdx.x * rows + thread
            n, a, b = r // (lines * columns), r // columns % lines, r % columns
            line[thread] = p + a if r < M else OUTSIDE
            place[thread] = q + b
            at[thread] = ((n * P + p + a) * Q + q + b) * K + g * own
            h, v = row + a * stride_h, column + b * stride_w
            goal[thread] = ((n * H + h) * W + v) * C + g * group
        cuda.syncthreads()
        digits = Digits(short(max(j_count, 1)), short(own))
        product_spread(
            Windows(flat(dy), Places(at, line, place), short(P), short(Q), digits,
                    Steps(-p_step * Q * K, -q_step * K, 1, -p_step, 0, -q_step, 0), False),
            Weights(flat(w), (i * J + j) * group * K + g * own, K, digits,
                    Steps(i_apart * J * group * K, j_apart * group * K, 1, 0, 0, 0, 0)),
            Output(flat(dx), goal, 0, M, group), Bias(flat(dx), False), 0, i_count * j_count * own,
            Extra(flat(y), 0, activation),
        )  # fmt: skip


for _suffix, _shape in SHAPES.items():
    _declare(_suffix, _shape)
