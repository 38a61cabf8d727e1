"""The gradient to a convolution's weights on CUDA: a sum over all samples.

The rows of a block share them out, and their parts are added in their order.
"""

from __future__ import annotations

from ..cuda.device import cast, cuda
from ..declare import cuda_kernel
from . import cpu_weight
from .cuda_elements import PARTS, add_parts, sum_of_samples, weights_launch
from .grid import Window


@cuda_kernel(like=cpu_weight.convolution_backward_weight, launch=weights_launch("K"))
def convolution_backward_weight(
    x, dy, dw, room, kernel_w, stride_h, stride_w, dilation_h, dilation_w, top, left, groups
):
    sums = cuda.shared.array((PARTS, 32), dw.dtype)
    lane, part, d = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.x
    k = cuda.blockIdx.y * 32 + lane
    K = dw.shape[1]
    group = x.shape[3] // groups
    total = cast(dw, 0)
    if k < K:
        total = sum_of_samples(
            x, dy, k // (K // groups) * group + d % group, k, d // (kernel_w * group),
            d // group % kernel_w, part,
            Window(stride_h, stride_w, dilation_h, dilation_w, top, left),
        )  # fmt: skip
    total = add_parts(sums, total, lane, part)
    if part == 0 and k < K:
        dw[d, k] = total
