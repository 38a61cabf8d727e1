"""`fastnn warmup`: compiles kernels before they are needed."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from fastnn.cli.ranges import Whole

if TYPE_CHECKING:
    from fastnn.runtime.cpu.ahead import Variant


@click.command()
@click.option(
    "--for",
    "purpose",
    type=click.Choice(["all", "digits"]),
    default="all",
    show_default=True,
    help="What to compile: everything, or what one model needs.",
)
@click.option("--all", "everything", is_flag=True, help="The same as --for all.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64", "both"]),
    default="float32",
    show_default=True,
    help="Element type of the kernels.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Device to compile the kernels for.",
)
@click.option(
    "--capability",
    metavar="X.Y",
    help="With --device cuda: the compute capability; by default that of the first device.",
)
@click.option("--jobs", type=Whole(1), help="Number of processes; by default one per core.")
@click.option(
    "-v", "--verbose", is_flag=True, help="List each kernel and its compile time in seconds."
)
def warmup(
    purpose: str, everything: bool, dtype: str, device: str, capability: str | None,
    jobs: int | None, verbose: bool,
) -> None:  # fmt: skip
    """Compile kernels in advance, in parallel processes.

    Kernels in the cache are skipped. Without this command, kernels are compiled when a model first
    needs them.
    """
    import fastnn.optim  # noqa: F401  (enters the optimisers' kernels)
    from fastnn.errors import FastnnError, OptionError
    from fastnn.runtime.cpu import ahead, compiler

    if device == "cuda":
        if purpose != "all" or dtype != "float32" or jobs or verbose:
            raise OptionError(
                "--device cuda compiles everything; expected no option but --capability"
            )
        _for_cuda(capability)
        return
    if capability is not None:
        raise OptionError("--capability applies to GPUs; expected it with --device cuda")
    dtypes = ("float32", "float64") if dtype == "both" else (dtype,)
    ahead.load_all()
    if purpose == "digits" and not everything:
        wanted = [v for name in dtypes for v in _digits(name)]
    else:
        wanted = ahead.common_variants(dtypes)
    absent = ahead.missing(wanted)
    start = time.perf_counter()
    took: list[tuple[float, Variant]] = []
    with click.progressbar(
        length=len(absent), label=f"compiling {len(absent)} kernels", file=sys.stderr
    ) as bar:

        def report(variant: Variant, seconds: float) -> None:
            took.append((seconds, variant))
            bar.update(1)

        if absent:
            ahead.compile_all(absent, jobs, report)
    if verbose:
        for seconds, variant in sorted(took, reverse=True):
            click.echo(f"{seconds:7.2f} s  {' '.join(variant).strip()}")
    total, spent = time.perf_counter() - start, sum(seconds for seconds, _ in took)
    click.echo(
        f"{len(took)} of {len(wanted)} kernels compiled in {total:.1f} s ({spent:.1f} s of work); "
        f"{len(wanted) - len(absent)} were cached; cache: {compiler.cache_folder()}"
    )
    if len(took) < len(absent):
        raise FastnnError(
            f"{len(absent) - len(took)} kernels were not compiled; FASTNN_DEBUG=1 shows why"
        )


def _for_cuda(capability: str | None) -> None:
    """All kernels for CUDA, in float32 and float64."""
    import re

    from fastnn.errors import OptionError
    from fastnn.runtime import _cuda
    from fastnn.runtime.cuda import ahead, machine

    if capability is None:
        if reason := machine.reason():
            raise OptionError(
                f"there is no CUDA device here ({reason}); give the compute "
                "capability, such as --capability 9.0"
            )
        cc = _cuda.compute_capability()
    elif re.fullmatch(r"\d+\.\d", capability):
        major, minor = map(int, capability.split("."))
        cc = major, minor
    else:
        raise OptionError(f"--capability: expected a number such as 9.0, got {capability!r}")
    wanted = ahead.common_variants(cc)
    count = ahead.compile_missing(wanted)
    click.echo(f"{count} of {len(wanted)} kernels compiled for {cc[0]}.{cc[1]}")


def _digits(dtype: str) -> list[Variant]:
    """What `fastnn train digits` needs, without its data."""
    import numpy as np

    from fastnn.cli.train import digits_trainer, digits_variants

    batch = np.zeros((32, 64), np.float32), np.zeros(32, np.int64)
    variants = digits_variants(digits_trainer(steps=1), batch, batch, 32)
    return [(name, dtype if kind else "", data) for name, kind, data in variants]
