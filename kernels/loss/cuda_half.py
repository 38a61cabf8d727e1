"""Cross entropy on CUDA with the logits' gradient in 16 bits as well, for products that take it."""

from __future__ import annotations

from ..cuda.device import divide_index, flat, flat_index
from ..cuda.half import LETTERS, half_word, of_letter
from ..cuda.rows import row_place
from ..declare import cuda_kernel
from .cuda import BY_ELEMENTS, ROWS, cross_entropy_of


def _declare(kind: str, letter: str) -> None:
    is_bf16 = int(kind == "bf16")

    @cuda_kernel(
        **ROWS, name=f"cross_entropy_scaled_{kind}", only_float32=True, works_in_result=True
    )
    @of_letter(letter)
    def cross_entropy_scaled_half(
        x: "in whole f[N,C]",
        target: "in whole i[N]",
        weight: "in whole f[W]",
        dloss: "in whole f[N]",
        loss: "out whole f[N]",
        dx: "out whole f[N,C]",
        dx_half: "out whole h[N,C]",
        smoothing: "real",
        ignore_index: "int",
    ):
        """`cross_entropy_scaled`, with its gradient in 16 bits as well."""
        cross_entropy_of(x, target, weight, loss, dx, smoothing, ignore_index, dloss)
        N, C = x.shape
        _, row, first, step, size, _ = row_place(N, C)
        if row < N:
            for j in range(first, size, step):  # what this thread has written
                flat(dx_half)[row * C + j] = half_word(flat(dx)[row * C + j], is_bf16)

    @cuda_kernel(**BY_ELEMENTS, name=f"cross_entropy_backward_{kind}", only_float32=True)
    @of_letter(letter)
    def cross_entropy_backward_half(
        dlogits: "in whole f[N,C]",
        dloss: "in whole f[N]",
        dx: "out whole f[N,C]",  # may be absent
        dx_half: "out whole h[N,C]",
    ):
        """`cross_entropy_backward`, in 16 bits as well."""
        i = flat_index()
        if i < dx_half.size:
            value = flat(dlogits)[i] * dloss[divide_index(i, dx_half.shape[1])]
            if dx.size > 0:
                flat(dx)[i] = value
            flat(dx_half)[i] = half_word(value, is_bf16)


for _kind, _letter in LETTERS.items():
    _declare(_kind, _letter)
