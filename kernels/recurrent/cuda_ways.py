"""The ways in which a cell's kernels for whole sequences are declared (see `cuda.py`).

Blocks that work together are a cooperative launch, or a cluster. Threads read weights from shared
memory, or hold them in registers; or factors of products are of 16 bits, on tensor cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..cuda.near import FAR, NEAR
from .cuda_layout import (
    BACKWARD_SPLITS,
    FLOAT64_THREADS,
    FORWARD_SPLITS,
    HALF_BACKWARD_SPLITS,
    HALF_FORWARD_SPLITS,
    HELD_TERMS,
    HELD_UNITS,
    MOST_THREADS,
)
from .cuda_products import HOLDING, IN_HALVES, IN_SHARED_MEMORY


class Way(NamedTuple):
    """One of the ways."""

    how: str  # what kernels are called that work so
    near: bool  # blocks are a cluster
    held: bool = False  # threads hold their weights in registers
    half: bool = False  # factors of 16 bits

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """How blocks exchange (`kernels/cuda/near.py`) and multiply (`cuda_products.py`)."""
        own = IN_HALVES if self.half else HOLDING if self.held else IN_SHARED_MEMORY
        return (*(NEAR if self.near else FAR), *own)

    @property
    def registers(self) -> int:
        """How many weights a thread holds."""
        return 4 * HELD_TERMS if self.held else 1

    def splits(self, gates: int) -> int:
        """How often the depth of a forward product is split."""
        return (HALF_FORWARD_SPLITS if self.half else FORWARD_SPLITS)[gates]

    @property
    def backward_splits(self) -> int:
        return HALF_BACKWARD_SPLITS if self.half else BACKWARD_SPLITS

    def declared(self, most: int = MOST_THREADS) -> dict[str, Any]:
        """What is declared of kernels that work so: how blocks are together, and of how many
        threads they are at most, which have as many registers as there are."""
        together: dict[str, Any] = (
            {"cluster": lambda sizes: sizes["blocks"]} if self.near else {"cooperative": True}
        )
        if self.held:
            return {**together, "bounds": min(16 * HELD_UNITS, most), "only_float32": True}
        more = {"only_float32": True} if self.half else {"float64_threads": FLOAT64_THREADS}
        return {**together, "bounds": most, **more}


def ways() -> Iterator[Way]:
    """All of them."""
    for how, near in (("persistent", False), ("cluster", True)):
        yield Way(how, near)
        yield Way(f"{how}_held", near, held=True)
        yield Way(f"{how}_half", near, half=True)
