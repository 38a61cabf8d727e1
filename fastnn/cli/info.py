"""`fastnn info`: what fastnn found on this machine."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

import click

#: features that fastnn's kernels can make use of, by LLVM's names
FEATURES = (
    "sse2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512vl",
    "avx512dq",
    "avx512bf16",
    "amx-tile",
    "amx-bf16",
    "neon",
    "asimd",
)


@click.command()
def info() -> None:
    """Show versions, CPU, workers, CUDA and the kernel cache."""
    for what, value in facts():
        click.echo(f"{what:<15} {value}")


def _devices() -> Iterator[tuple[str, str]]:
    from fastnn import cuda
    from fastnn.nn.summary import _bytes

    if not cuda.is_available():
        yield "CUDA", f"no: {cuda.reason()}"
    for number in range(cuda.device_count()):
        free, total = cuda.memory(number)
        yield (
            f"cuda:{number}",
            f"{cuda.device_name(number)}, {_bytes(free)} of {_bytes(total)} free",
        )
    if cuda.device_count():
        yield (
            "tensor cores",
            'used by precision="high" and "medium" in products of layers; the time loops of RNN, '
            "LSTM and GRU layers, and products of many matrices, use them only at "
            '"bf16" and "fp16"',
        )


def facts() -> Iterator[tuple[str, str]]:
    """What `fastnn info` shows, line by line."""
    import fastnn
    from fastnn.kernels.cpu import target, tile_unit
    from fastnn.nn.summary import _bytes
    from fastnn.runtime.cpu import ahead, compiler
    from fastnn.runtime.cpu.execute import available_cores

    yield "fastnn", fastnn.__version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for name in ("numpy", "numba", "llvmlite", "safetensors"):
        yield name, importlib.metadata.version(name)
    host, cores = target.host(), available_cores()
    on = {feature[1:] for feature in host.features.split(",") if feature.startswith("+")}
    yield "CPU", f"{host.cpu}, {cores} core{'s' if cores != 1 else ''} for this process"
    yield "CPU features", f"{host.name} ({', '.join(f for f in FEATURES if f in on) or 'baseline'})"
    yield (
        "vector width",
        f"{host.vector_bits} bits: {host.lanes(4)} float32 or {host.lanes(8)} float64; "
        f"fused multiply-add: {'yes' if host.has_fma else 'no'}",
    )
    used = 'used by precision="high", "medium" and "bf16"'
    none = 'none: on this CPU precision="high" and "medium" equal "highest", "bf16" '
    none += "uses AVX-512-BF16" if host.pairs else "is no faster"
    yield "tile unit", f"AMX, bfloat16: {used}" if tile_unit.usable() else none
    yield (
        "workers",
        f"1 to {cores}: whichever number proves fastest while a model runs, measured again now and "
        "then; fix it with workers=N",
    )
    yield from _devices()
    count, size = ahead.cache_size()
    yield "kernel cache", f"{compiler.cache_folder()}: {count} kernels, {_bytes(size)}"
    yield "", "FASTNN_CACHE=FOLDER moves it; `fastnn warmup` fills it"
    pack = compiler.shipped_pack()
    yield (
        "shipped code",
        f"{len(pack)} kernels for {pack.about['cpu']}; FASTNN_SHIPPED=0 compiles them here"
        if pack
        else "none for this CPU, this source and these settings: kernels are compiled here",
    )
