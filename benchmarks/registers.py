"""Registers, stack and spills of CUDA kernels, as the assembler reports them; needs no device.

python -m benchmarks.registers                # all kernels
python -m benchmarks.registers lstm softmax   # those whose names contain one of these
"""

from __future__ import annotations

import sys

import fastnn.optim  # noqa: F401  (enters the optimisers' kernels)
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.runtime.cuda.report import declare_all, examine_all


def main(patterns: list[str]) -> None:
    declare_all()
    names = [n for n in sorted(CUDA_KERNELS) if any(p in n for p in patterns or [""])]
    for report in examine_all(names):
        print(report)


if __name__ == "__main__":
    main(sys.argv[1:])
