"""Several kernels of one block each as one kernel: a launch costs more than what they do.

The kernels run one after the other in a block with the threads of the largest; between two of them
its threads wait for each other. A kernel that takes part is declared with `one_block`: it computes
all with one block, whatever the sizes, its bits do not depend on how many threads that has beyond
those it is launched with alone, and it takes no dynamic shared memory. One of them at most takes
the user's data, whose type is then the joined kernel's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..declare import Array, CudaKernel, Scalar, declared_for_cuda, helper
from ..recorded import execute
from .device import cuda

#: stands between the names of the kernels that one is made of
AND = "+"
#: what most training steps and evaluations have; `fastnn warmup` compiles them ahead
COMMON = (
    ("latch", "advance"),
    ("mean", "check_finite", "accumulate"),
    ("mean", "accumulate", "advance"),
    ("loss_scale", "mean_backward_few"),
    ("loss_scale", "mean_backward_few", "gather_ids_few"),
    ("mean", "check_finite", "accumulate", "adam_prepare", "skip_overflow"),
    ("adapt_scale", "latch", "advance"),
    *(
        (*loss, f"{rule}_prepare")
        for loss in (
            ("mean", "check_finite", "accumulate"),
            ("weighted_mean", "check_finite", "accumulate_pair"),
        )
        for rule in ("sgd", "adam")
    ),
)
_made: dict[tuple[CudaKernel, ...], CudaKernel] = {}


def named(kernel: CudaKernel, number: int) -> dict[str, str]:
    """The names that a kernel's parameters have as number so many of a joined one."""
    return {name: f"{name}_{number}" for name in kernel.params}


def joined(kernels: Sequence[CudaKernel]) -> CudaKernel:
    """The kernel that does what these do, one after the other; one alone is itself."""
    key = tuple(kernels)
    if len(key) == 1:
        return key[0]
    if key not in _made:
        _made[key] = _join(key)
    return _made[key]


def find(name: str) -> CudaKernel | None:
    """A kernel, joined or not, by its name."""
    found = [declared_for_cuda(part) for part in name.split(AND)]
    kernels = [kernel for kernel in found if kernel is not None]
    return joined(kernels) if len(kernels) == len(found) else None


def _join(kernels: tuple[CudaKernel, ...]) -> CudaKernel:
    names = [named(kernel, k) for k, kernel in enumerate(kernels)]
    params = {
        own[name]: _parameter(parameter, k)
        for k, (kernel, own) in enumerate(zip(kernels, names, strict=True))
        for name, parameter in kernel.params.items()
    }
    calls = [f"part{k}({', '.join(own.values())})" for k, own in enumerate(names)]
    body = "\n    cuda.syncthreads()\n    ".join(calls)
    scope: dict[str, Any] = {"__name__": __name__, "cuda": cuda}
    scope |= {f"part{k}": helper(kernel.function) for k, kernel in enumerate(kernels)}
    name = AND.join(kernel.name for kernel in kernels)
    execute(f"def joined({', '.join(params)}):\n    {body}\n", f"<CUDA kernel {name}>", scope)

    def launch(sizes: dict[str, int]) -> tuple[int, int]:
        return 1, max(_threads(kernel, sizes, k) for k, kernel in enumerate(kernels))

    return CudaKernel(name, scope["joined"], params, launch)


def _parameter(parameter: Array | Scalar, number: int) -> Array | Scalar:
    """With dimension letters that no other kernel's are equal to."""
    if isinstance(parameter, Scalar):
        return parameter
    return replace(parameter, dims=tuple(f"{letter}_{number}" for letter in parameter.dims))


def _threads(kernel: CudaKernel, sizes: dict[str, int], number: int) -> int:
    ending = f"_{number}"
    own = {n.removesuffix(ending): size for n, size in sizes.items() if n.endswith(ending)}
    threads: int = kernel.launch(own)[1]
    return threads
