"""What the CPU offers: vector width, fused multiply-add, number of vector registers, tile unit,
products of pairs.

`FASTNN_VECTOR_BITS` (128, 256 or 512) forces a narrower width than the CPU has, with
`FASTNN_TILE_UNIT=0` no use is made of its tile unit, nor of AVX-512-BF16 in its place; both are
read once, by the first compilation in a process, because compiled helpers are shared between
kernels.
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass

from llvmlite import binding

from fastnn.errors import OptionError

from .. import recorded

recorded.record()


@dataclass(frozen=True)
class Target:
    """The SIMD unit that kernels are compiled for."""

    cpu: str
    features: str  # LLVM's feature string
    name: str  # "AVX-512", "AVX2", "AVX", "SSE2", "NEON", "generic"
    vector_bits: int
    has_fma: bool
    registers: int
    tile_unit: bool = False  # multiplies tiles of bfloat16 numbers (see `tile_unit`)
    pairs: bool = False  # no tile unit, but vectors of pairs of bfloat16 numbers (AVX-512-BF16)

    @property
    def estimates_roots(self) -> bool:
        """Whether a root is made from an estimate (`simd.twice_sqrt`): by Intel's AVX-512. AMD's,
        which have no tile unit but pairs, take roots more quickly than that."""
        return self.vector_bits == 512 and not (self.pairs or self.cpu.startswith("znver"))

    def lanes(self, itemsize: int) -> int:
        """Elements in a vector of elements of `itemsize` bytes."""
        return self.vector_bits // (8 * itemsize)


def _host_features() -> dict[str, bool]:
    try:
        return dict(binding.get_host_cpu_features())
    except RuntimeError:  # LLVM cannot tell on this platform
        return {}


@functools.cache
def host() -> Target:
    """The target for this process: the host's, or narrower where `FASTNN_VECTOR_BITS` says so."""
    features = _host_features()
    triple = binding.get_process_triple()
    if triple.startswith(("aarch64", "arm64")):
        name, bits, fma, registers = "NEON", 128, True, 32
    elif features.get("avx512f") and features.get("avx512vl") and features.get("avx512dq"):
        name, bits, fma, registers = "AVX-512", 512, True, 32
    elif features.get("avx2") and features.get("fma"):
        name, bits, fma, registers = "AVX2", 256, True, 16
    elif triple.startswith("x86_64"):
        name, bits, fma, registers = "SSE2", 128, bool(features.get("fma")), 16
    else:
        name, bits, fma, registers = "generic", 128, False, 16
    wanted = os.environ.get("FASTNN_VECTOR_BITS")
    if wanted:
        if wanted not in ("128", "256", "512") or int(wanted) > bits:
            raise OptionError(
                f"FASTNN_VECTOR_BITS={wanted!r}: expected 128, 256 or 512 and at most {bits}, the "
                "width of this CPU; unset it to use the full width"
            )
        bits = int(wanted)
    allowed = os.environ.get("FASTNN_TILE_UNIT") != "0"
    tiles = features.get("amx-tile") and features.get("amx-bf16") and sys.platform == "linux"
    unit = allowed and bool(tiles)
    pairs = allowed and not unit and bits == 512 and bool(features.get("avx512bf16"))
    return Target(
        binding.get_host_cpu_name(),
        ",".join(("+" if on else "-") + f for f, on in sorted(features.items())),
        name,
        bits,
        fma,
        registers,
        unit,
        pairs,
    )
