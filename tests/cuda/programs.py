"""Programs made by hand of kernels in pairs, and a session's worth of memory to run them in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fastnn import nn
from fastnn.graph.graph import Graph
from fastnn.graph.value import Value
from fastnn.kernels.cuda.device import cuda
from fastnn.kernels.declare import ceil_div, cuda_kernel, kernel
from fastnn.ops.declare import effect_of
from fastnn.plan.lower import Lowering
from fastnn.plan.planner import plan
from fastnn.plan.program import Program
from fastnn.runtime.cuda.execute import CudaRuntime


@kernel(name="cuda_test_scale")
def scale(x: "inout rows f[R]", factor: "real", lo: "begin", hi: "end"):
    """x[i] *= factor."""
    for i in range(lo, hi):
        x[i] *= factor


@cuda_kernel(launch=lambda s: (ceil_div(s["R"], 32), 32), name="cuda_test_scale")
def scale_cuda(x: "inout rows f[R]", factor: "real"):
    i = cuda.grid(1)
    if i < x.shape[0]:
        x[i] *= factor


@kernel(name="cuda_test_advance")
def advance(control: "inout whole i[L]", limit: "int"):
    """The next step; stops after `limit` steps."""
    if control[5] == 0:
        control[1] += 1
        control[3] += 1
        if control[1] >= limit:
            control[5] = 2


@cuda_kernel(launch=lambda s: (1, 1), name="cuda_test_advance")
def advance_cuda(control: "inout whole i[L]", limit: "int"):
    if control[5] == 0:
        control[1] += 1
        control[3] += 1
        if control[1] >= limit:
            control[5] = 2


def runtime(size: int = 5, device: str = "cuda:0", **options: Any) -> CudaRuntime:
    """A runtime with a model of one layer."""
    model = nn.Linear(size, 1)
    slots, graphs = options.get("slots", ()), options.get("graphs", True)
    made: Any = CudaRuntime(device, model.store(), slots, 1, graphs)
    made.model = model  # its parameters live as long
    return made


def build(fill: Callable[[Graph], dict[str, Value]], limit: int = 10**9) -> Program:
    """A program of the calls that `fill` adds, and the end of a step."""
    graph = Graph(1, True)
    places = fill(graph)
    last = replace(effect_of("cuda_test_advance"), final=True)
    graph.apply(last, control=graph.control(), limit=limit)
    return plan(Lowering(graph, "cuda"), places)


@kernel(name="cuda_test_lonely")
def lonely(x: "inout rows f[R]", lo: "begin", hi: "end"):
    """Has no twin for CUDA."""
