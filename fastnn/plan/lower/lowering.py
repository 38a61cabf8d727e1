"""From nodes to calls of kernels, for one device.

By default a node is one call of its op's forward kernel, a gradient node the calls of the backward
kernels that write what is wanted. For all other ops there is a rule, registered by the op's name:
`FORWARD` of (lowering, node), `GRADIENT` of (lowering, node, incoming gradients by output, values
to be written by input). A rule may use the lowering as it would a graph: values, views, constants.
The modules with rules (`RULES`) are imported with the first lowering: they know kernels, and a
process that only describes a model needs none.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastnn.graph.graph import Graph, mark_batched
from fastnn.graph.memo import Memo
from fastnn.graph.node import Node, check_operands
from fastnn.graph.value import Repeat, Value
from fastnn.kernels.declare import kernel_of
from fastnn.plan.call import Call

Values = dict[str, Value]
ForwardRule = Callable[["Lowering", Node], None]
GradientRule = Callable[["Lowering", Node, Values, Values], None]
#: modules of this folder that register rules
RULES = (
    "attention", "convolution", "crf", "ctc", "feeding", "loop", "products", "recurrent", "rows",
    "strided", "put_row", "transducer",
)  # fmt: skip
#: by the op's name
FORWARD: dict[str, ForwardRule] = {}
GRADIENT: dict[str, GradientRule] = {}


def forward(*names: str) -> Callable[[ForwardRule], ForwardRule]:
    """Register how nodes of these ops are computed."""

    def enter(rule: ForwardRule) -> ForwardRule:
        FORWARD.update(dict.fromkeys(names, rule))
        return rule

    return enter


def gradient(*names: str) -> Callable[[GradientRule], GradientRule]:
    """Register how the gradient nodes of these ops are computed."""

    def enter(rule: GradientRule) -> GradientRule:
        GRADIENT.update(dict.fromkeys(names, rule))
        return rule

    return enter


@functools.cache
def _register() -> None:
    """Import the modules with rules."""
    for name in RULES:
        importlib.import_module(f"{__package__}.{name}")


def _parts(precision: str) -> int:
    """Parts that factors are cut into on the CPU's tile unit, or the one that AVX-512-BF16 takes in
    its place; 0: neither is used."""
    from fastnn.kernels.cpu import tile_unit
    from fastnn.kernels.matmul.cpu_unit import PARTS

    wanted = PARTS.get(precision, 0)
    return wanted if wanted <= tile_unit.most_parts() else 0


class Lowering:
    """The calls of kernels for a graph's nodes, in their order.

    A graph may grow while its calls are asked for: what is lowered once stays as it is.

    Attributes:
        graph: the graph.
        device: "cpu" or "cuda".
        precision: what the factors of matrix products are rounded to; "highest": nothing.
        parts: the bfloat16 numbers that factors are cut into on the CPU's tile unit; 0: it is not
            used (`kernels/cpu/tile_unit.py`).
        limits: the GPU's multiprocessors, bytes of shared memory that a block may have, blocks of a
            cluster (none where left out), and how many clusters run at once (as many as fit, where
            left out); an H200's by default.
        fuses: whether calls meet in the cache, a block of items at a time, so that what one call
            hands to the next need not be written out. Without, each call is a launch: the fewer,
            the better.
        copies_buffers: whether the copy of buffers at the end of a good step is a call of the
            program; without, the runtime makes it.
        node: the node that is being lowered.
        memo: what is made once a step however often it is used (packed weights, indices), by key.
        kept: by node, what its kernels keep besides the outputs: for its gradient, and the gradient
            of a recurrent cell's gates, `dz`.
        loops: by node, the memory of a loop's steps.
        contents: what a parameter holds and will hold, by its value; None: it may change.
        rounded: constants that have been rounded to the precision.
        derived: whether a loop has been differentiated more than once, by which there may be calls
            that are of no use.
    """

    def __init__(
        self, graph: Graph, device: str = "cpu", precision: str = "highest",
        limits: tuple[int, ...] = (132, 232_448, 16),
    ):  # fmt: skip
        self.graph, self.device, self.limits = graph, device, limits
        self.precision = precision
        self.parts = _parts(precision) if device == "cpu" and graph.dtype == "float32" else 0
        self.fuses = self.copies_buffers = device == "cpu"
        self.node: Node | None = None
        self.memo = Memo()
        self.kept: dict[Node, Values] = {}
        self.loops: dict[Node, Any] = {}
        self.contents: Callable[[Value], Any] = lambda value: None
        self.rounded: set[Value] = set()
        self.derived = False
        self._calls: list[Call] = []
        self._within = 0
        self._scope = ""
        self._done = 0
        _register()

    @property
    def calls(self) -> list[Call]:
        """The calls for all nodes that the graph has by now."""
        nodes = self.graph.nodes
        while self._done < len(nodes):
            self._done += 1
            self.lower(nodes[self._done - 1])
        return self._calls

    @property
    def batch(self) -> int:
        return self.graph.batch

    @property
    def dtype(self) -> str:
        return self.graph.dtype

    def lower(self, node: Node) -> None:
        """Add a node's calls."""
        outer, scope = self.node, self._scope
        self.node, self._scope = node, node.scope
        if node.of is not None:
            of = node.of
            douts = {n: v for n in of.outputs if (v := node.inputs.get(f"d{n}")) is not None}
            written = {name[1:]: value for name, value in node.outputs.items()}
            GRADIENT.get(of.op.name, derived_gradient)(self, of, douts, written)
        elif node.op.name in FORWARD:
            FORWARD[node.op.name](self, node)
        else:
            self.call_for(node.op.forward_kernel, node, {}, placed=True)
        self.node, self._scope = outer, scope

    @contextmanager
    def inside_scope(self, scope: str) -> Iterator[None]:
        """Within this context, calls belong to the layer of this name."""
        saved, self._scope = self._scope, scope
        try:
            yield
        finally:
            self._scope = saved

    @contextmanager
    def aside(self) -> Iterator[list[Call]]:
        """Within this context, calls are put into a list of their own."""
        saved, self._calls = self._calls, []
        self._within += 1
        try:
            yield self._calls
        finally:
            self._calls = saved
            self._within -= 1

    @property
    def in_loop(self) -> bool:
        """Whether calls are those of a loop's step."""
        return self._within > 0

    # -------------------------------------------------------------- calls

    def call(self, kernel: str, **operands: Any) -> None:
        """Add a call of a kernel. Operands are values, numbers, or None for an absent array."""
        check_operands(kernel, operands, self._scope)
        self._calls.append(Call(kernel, operands, self._scope))

    def add(self, calls: list[Call]) -> None:
        """Add calls that were made aside."""
        self._calls += calls

    def call_for(
        self, kernel: str, node: Node, extra: Mapping[str, Any], placed: bool = False
    ) -> None:
        """Call a kernel for a node: each parameter by name from `extra`, what the node keeps, its
        outputs, inputs and attributes. `placed`: which outputs run over the batch is known."""
        found = kernel_of(kernel)
        known = {**node.attrs, **node.inputs, **node.outputs, **self.kept.get(node, {}), **extra}
        operands: dict[str, Any] = {}
        for name in found.params:
            if name in known:
                operands[name] = known[name]
            elif name == "control":
                operands[name] = self.graph.control()
            else:
                raise KeyError(f"op {node.op.name!r} has no operand {name!r} for {kernel!r}")
        if not placed:
            mark_batched(kernel, operands)
        self._calls.append(Call(kernel, operands, node.scope, node.op.final))

    # -------------------------------------------------------------- values

    def value(self, shape: tuple[int, ...], dtype: str = "f", **more: Any) -> Value:
        return self.graph.value(shape, dtype, **more)

    def full(self, shape: tuple[int, ...], number: float, batched: bool = False) -> Value:
        return self.graph.full(shape, number, batched)

    def constant(self, data: Any, dtype: str = "f", name: str = "constant") -> Value:
        return self.graph.constant(data, dtype, name)

    def view(
        self, value: Value, shape: tuple[int, ...], batched: bool | None = None, begin: int = 0,
        steps: Mapping[Repeat, int] | None = None,
    ) -> Value:  # fmt: skip
        return self.graph.view(value, shape, batched, begin, steps)


def lie_in(value: Value, place: Value) -> None:
    """Let a value, whose memory nobody has chosen yet, be another one's memory."""
    value.base, value.segment = place, place.root.segment


def derived_gradient(to: Lowering, node: Node, douts: Values, written: Values) -> None:
    """The gradient that follows from the backward kernels' parameter names."""
    done: set[str] = set()
    for kernel in node.op.backward_kernels:
        found = kernel_of(kernel)
        writes = {n[1:] for n, p in found.arrays.items() if p.writes and n[0] == "d"}
        if not writes & (set(written) - done):
            continue
        done |= writes
        extra: dict[str, Any] = {}
        for name in found.params:
            if name[0] == "d" and name[1:] in writes:
                source = node.inputs.get(name[1:])
                if source is None:  # the gradient of an absent optional input: nobody reads it
                    extra[name] = None
                    continue
                extra[name] = written.get(name[1:])
                if extra[name] is None:
                    full = f"{node.op.name}.{name}"
                    extra[name] = to.value(source.shape, source.dtype, name=full)
            elif name[0] == "d" and name[1:] in node.outputs:
                output = node.outputs[name[1:]]
                given = douts.get(name[1:])
                if given is None:
                    given = to.full(output.shape, 0.0, output.batched)
                extra[name] = given
        to.call_for(kernel, node, extra)
