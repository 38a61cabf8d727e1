"""Full-batch descent on CUDA: what the CPU's kernels do, by one block, of the same source.

All threads of the block take the same turns. Each works with copies of its own of the control block
and the search's state, and computes the same numbers in them; only vectors are shared out
(`cuda_vectors.py`). At the end one thread writes its copies back.
"""

from __future__ import annotations

from typing import Any

from ..control_block import LENGTH
from ..cuda.device import cast, cuda, flat, flat_index
from ..declare import CUDA_KERNELS, KERNELS, CudaKernel, Kernel, ceil_div, cuda_kernel
from ..recorded import execute
from ..simd import fma
from ..topics import ON_DEMAND
from . import cpu, directions
from .cuda_vectors import THREADS, VECTORS, Replaced, give_copy, launch, take_copy
from .search import HEAD


@cuda_kernel(like=cpu.add_scaled, launch=lambda s: (ceil_div(s["N"] * s["C"], 256), 256))
def add_scaled(x, count, y, factor):
    scale = count[0] * factor if count.size else factor
    i = flat_index()
    if i < y.size:
        flat(y)[i] = fma(flat(x)[i], cast(x, scale), flat(y)[i])


_WRAPPER = """
def step({params}):
    own_control = cuda.local.array(LENGTH, control.dtype)
    own_state = cuda.local.array(SIZE, state.dtype)
    take_copy(control, own_control)
    take_copy(state, own_state)
    body({own})
    give_copy(own_control, control)
    give_copy(own_state, state)
"""


def of_one_block(like: Kernel, replaced: Replaced, size: int, module: str) -> CudaKernel:
    """The counterpart of a kernel that one worker makes: its own function, by all threads of a
    block.

    Args:
        like: the kernel for the CPU, with parameters `control` and `state`.
        replaced: makes the function that calls CUDA's.
        size: numbers of the state.
        module: which module the kernel belongs to.
    """
    own = ["own_" + name if name in ("control", "state") else name for name in like.params]
    source = _WRAPPER.format(params=", ".join(like.params), own=", ".join(own))
    found = {
        "__name__": module, "cuda": cuda, "LENGTH": LENGTH, "SIZE": size, "take_copy": take_copy,
        "give_copy": give_copy, "body": replaced(like.function),
    }  # fmt: skip
    execute(source, f"<CUDA kernel {like.name}>", found)
    function: Any = found["step"]
    made: CudaKernel = cuda_kernel(
        function, like=like, launch=launch, bounds=THREADS, name=like.name
    )
    return made


#: what all kernels of full-batch methods call
ON_VECTORS = Replaced(VECTORS)


def make_missing() -> None:
    """Make the counterparts of all line searches that have none yet."""
    for name, history in list(directions.MADE.items()):
        if getattr(CUDA_KERNELS.get(name), "like", None) is not KERNELS[name]:
            of_one_block(
                KERNELS[name], ON_VECTORS, HEAD + directions.numbers_needed(history), __name__
            )


ON_DEMAND["cuda"].append(make_missing)
