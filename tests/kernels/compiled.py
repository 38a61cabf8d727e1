"""What the test that compiles CUDA kernels makes: which in float64, and PTX that tests read.

PTX is kept in the cache beside the machine code, under the same key.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from fastnn.kernels.declare import CUDA_KERNELS, CudaKernel
from fastnn.runtime import cache
from fastnn.runtime.cuda import compiler, report

#: kernels whose PTX tests read
READ = {
    *(f"{cell}_persistent_{way}" for cell in ("rnn", "lstm", "gru")
      for way in ("forward", "backward")),
    "rnn_cluster_forward", "gru_cluster_backward_early", "linear_forward_bf16",
    "linear_backward_input_fp16", "linear_backward_weight_bf16_middle", "linear_forward_tf32",
    "linear_forward_tf32x3", "linear_backward_weight_bias_parts",
    "convolution_backward_weight_tile",
}  # fmt: skip
#: whose kernels are loops over a formula that the CPU's have, too
FORMULAS = ("fastnn.kernels.elementwise", "fastnn.kernels.update")


def in_float64(reports: Iterable[report.Report]) -> list[str]:
    """Kernels that are compiled in float64, too, by what is known of them in float32.

    Those that may spill, as float64's numbers take two registers each, and of each file with none
    of them the one with the most registers. Those of formulas are compiled in float64 for the CPU,
    from the same source.
    """
    registers: dict[str, int] = {}
    for made in reports:
        kernel = CUDA_KERNELS[made.kernel]
        if not (kernel.traits.only_float32 or kernel.function.__module__.startswith(FORMULAS)):
            registers[made.kernel] = max(made.registers, registers.get(made.kernel, 0))
    room = {name: report.room(CUDA_KERNELS[name], "float64") for name in registers}
    found = {name for name in registers if 2 * registers[name] > room[name]}
    files: dict[str, list[str]] = {}
    for name in sorted(registers):
        files.setdefault(CUDA_KERNELS[name].function.__module__, []).append(name)
    for names in files.values():
        if found.isdisjoint(names):
            found.add(max(names, key=registers.__getitem__))
    return sorted(found)


def read(kernel: CudaKernel, dtype: str, cc: tuple[int, int]) -> str:
    """A kernel's PTX, from the cache if it is there."""
    path = compiler.code_path(kernel, dtype, "", cc).with_suffix(".ptx")
    found = cache.read(path)
    if found is not None:
        return found.decode()
    text = compiler.compile_ptx(kernel, dtype, cc=cc)
    keep(kernel, dtype, cc, text)
    return text


def keep(kernel: CudaKernel, dtype: str, cc: tuple[int, int], text: str) -> None:
    cache.write(compiler.code_path(kernel, dtype, "", cc).with_suffix(".ptx"), text.encode())


def examine(name: str, dtype: str) -> list[report.Report]:
    """As `report.examine`; PTX that a test reads later is kept, so that it is compiled once."""
    compile_ptxs = compiler.compile_ptxs

    def keeping(kernel: CudaKernel, dtype: str, data: str, ccs: list[tuple[int, int]]) -> list[str]:
        texts = compile_ptxs(kernel, dtype, data, ccs)
        for cc, text in zip(ccs, texts, strict=True):
            keep(kernel, dtype, cc, text)
        return texts

    with pytest.MonkeyPatch.context() as patch:
        if name in READ:
            patch.setattr(compiler, "compile_ptxs", keeping)
        return report.examine(name, dtype)
