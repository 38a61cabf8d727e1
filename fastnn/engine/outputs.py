"""Outputs of batches as parts of those of all samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnn.engine.builder import Builder
from fastnn.graph.graph import Graph
from fastnn.graph.tree import rebuild
from fastnn.graph.value import Value
from fastnn.kernels import types
from fastnn.ops.feeding import own_copy
from fastnn.ops.feeding import scatter as scatter_rows
from fastnn.plan.samples import Samples

#: how a batch's output becomes part of the whole: along its first or second dimension; it is the
#: same for every batch; it can't be had from batches
FIRST, SECOND, SAME, MIXED = "first", "second", "same", "mixed"


def structure_of(builder: Builder) -> tuple[Any, tuple[str, ...]]:
    """The outputs' structure, without the graph, and their element types."""
    outputs = builder.output_values
    dtypes = tuple(types.storage(v.dtype, builder.graph.dtype) for v in outputs)
    return rebuild(builder.tree, [None] * len(outputs)), dtypes


def in_work(graph: Graph, output: Value) -> Value:
    """An output in work memory: a copy of one that is an input or a parameter as it stands."""
    if output.root.segment == "work":
        return output
    copy: Value = own_copy(output)
    return copy


def scattered(graph: Graph, number: int, output: Value) -> None:
    """The batch's rows into the results, from the control block's cursor on."""
    rows = result_rows(output.shape, graph.batch)
    width = output.size // rows
    target = graph.leaf(("result", number), (1, width), f"result/{number}", dtype=output.dtype)
    scatter_rows(graph.view(output, (rows, width)), target)


def result_rows(shape: tuple[int, ...], batch: int) -> int:
    """How many rows an output is scattered as: one for each sample, or all in one."""
    return batch if shape and shape[0] % batch == 0 else 1


def join_of(samples: Samples, output: Value) -> str:
    if not samples.depends(output):
        return FIRST if output.batched else SAME  # a state that no step changes is one per sample
    if samples.apart(output):
        return FIRST
    return SECOND if samples.steps(output) else MIXED


def whole_shape(shape: tuple[int, ...], join: str, batch: int, samples: int) -> tuple[int, ...]:
    """The shape of an output for all samples, from that for a batch."""
    if join == SAME or batch == samples:
        return shape
    if join == FIRST:
        return (shape[0] // batch * samples, *shape[1:])
    return (shape[0], shape[1] // batch * samples, *shape[2:])


def put_part(
    result: np.ndarray, part: np.ndarray, join: str, begin: int, count: int, samples: int
) -> None:
    """A batch's output, of `count` samples from `begin` on, into that for all samples."""
    if join == SAME:
        result[...] = part
    elif join == FIRST:
        each = len(result) // samples
        result[begin * each : (begin + count) * each] = part
    else:
        each = result.shape[1] // samples
        result[:, begin * each : (begin + count) * each] = part
