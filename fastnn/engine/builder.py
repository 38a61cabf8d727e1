"""Builds the graphs of training, evaluation and prediction steps, and plans them."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastnn.engine import guard
from fastnn.engine.arrays import Arrays, check_ranges, check_rules
from fastnn.engine.model import Model, apply_to
from fastnn.engine.scaling import SCALED, Scaling
from fastnn.engine.specs import Spec
from fastnn.engine.store import ParameterStore, Stored
from fastnn.engine.update import Objective, add_updates
from fastnn.errors import OptionError
from fastnn.graph.alike import alike, has_numbers
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph
from fastnn.graph.node import Range
from fastnn.graph.tree import leaves
from fastnn.graph.value import Value
from fastnn.kernels.host import host_call
from fastnn.ops import guarding
from fastnn.ops.declare import apply_effect
from fastnn.ops.feeding import advance as take_step
from fastnn.ops.feeding import gather, write
from fastnn.plan.lower import Lowering
from fastnn.plan.program import Program
from fastnn.runtime import devices

#: what the names of places begin with where a function of the host finds gradients
GRADIENT = "gradient "


@dataclass(frozen=True)
class Built:
    """A planned step, with the limits that integer data have to keep.

    `carries`: whether it writes buffers (states, running statistics).
    """

    program: Program
    #: limits of integer inputs, by the input's name
    ranges: tuple[tuple[str, Range], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    carries: bool = False
    #: rules for inputs, by the inputs' names
    checks: tuple[tuple[tuple[str, ...], Callable[..., None]], ...] = ()

    @property
    def nbytes(self) -> int:
        return self.program.nbytes

    def check(self, *data: Arrays) -> None:
        """Raise DataError for integers that are out of range, and for what breaks a rule."""
        for arrays in data:
            check_ranges(arrays, self.ranges)
        if self.checks:
            check_rules(data, self.checks)


class Builder:
    """Puts one step's graph together.

    Args:
        model: the module to trace.
        store: its parameters' memory.
        batch: samples in a step.
        training: whether layers behave as in training.
        feed: "gather" (rows of arrays in memory, by the data order) or "direct" (the host writes
            the inputs before each step).
        device: the kind of device that the program is for, as the runtime's `kind` says.
        precision: what the factors of matrix products are rounded to (`engine/precision.py`).
        fixed: whether parameters stay as they are now: what is made of them alone may be made now.
    """

    def __init__(
        self, model: Model, store: ParameterStore, batch: int, training: bool, feed: str,
        device: str = devices.HOST, precision: str = "highest", fixed: bool = False,
    ):  # fmt: skip
        self.model, self.store, self.feed = model, store, feed
        self.graph = Graph(batch, training, store.dtype)
        self.lowered = Lowering(self.graph, device, precision, devices.block_limits(device))
        if fixed:
            this = weakref.proxy(self)
            self.lowered.contents = lambda value: this._contents(value)
        self.arrays = model.named_arrays()
        self.graph.owned = frozenset(self.arrays.values())
        self._scaling: Scaling | None = None
        self.places: dict[str, Value] = {}
        self.names: dict[Value, str] = {}
        self.tree: Any = None  # what forward returned
        self.keys: dict[Value, str] = {}  # names of inputs and targets that came as dicts
        self.output_values: tuple[Value, ...] = ()

    def __del__(self) -> None:
        if "graph" in self.__dict__:  # not where an exception came before
            self.graph.release()

    def _contents(self, value: Value) -> Any:
        """What a parameter holds; a buffer may change in any call."""
        for parameter in self.arrays.values():
            if not parameter.buffer and self.graph.leaves.get(parameter) is value:
                return self.store.view(self.store.memory[parameter.segment], parameter)
        return None

    def inputs(self, prefix: str, specs: Sequence[Spec]) -> tuple[Value, ...]:
        """Values for inputs or targets, called `prefix0`, `prefix1`, ..."""
        return tuple(self._input(f"{prefix}{k}", spec) for k, spec in enumerate(specs))

    def _input(self, name: str, spec: Spec) -> Value:
        graph = self.graph
        value = graph.input(name, spec.shape, spec.dtype)
        self.names[value] = name
        if spec.key:
            self.keys[value] = spec.key
        if self.feed == "direct":
            self.places[name] = value
            return value
        width = math.prod(spec.shape)
        source = graph.leaf(("data", name), (1, width), f"data/{name}", dtype="d", name=name)
        order = graph.leaf("order", (1,), "order", dtype="i")
        gather(source, order, graph.view(value, (graph.batch, width)))
        return value

    def outputs(self, inputs: Sequence[Value]) -> tuple[Value, ...]:
        """Trace the model; its outputs in order (`tree` has their structure)."""
        self.tree = apply_to(self.model, self.graph, self.keys, inputs)
        self.output_values = tuple(value for _, value in leaves(self.tree))
        return self.output_values

    def check_finite(self, loss: Value) -> None:
        """Stop before parameters change unless the loss is finite, and all buffers (running
        statistics, states) that have been written so far."""
        for value in (loss, *guard.written_buffers(self.lowered.calls)):
            guarding.check_finite(value)

    def train(
        self, objective: Objective, keep: bool = False, guarded: bool = False,
        host: int | None = None,
    ) -> None:  # fmt: skip
        """Differentiate a loss and update its parameters.

        `guarded`: a step that would make a parameter non-finite is undone (`engine/guard.py`).
        `host`: the number of a function of the host that is called before the updates; it finds the
        gradients at the places "gradient NAME".

        Gradients that are not kept for `Parameter.grad` need not be written out: where nothing but
        the update reads one, it stays in the cache, a block at a time. Where each call is a launch
        they lie side by side, so that one launch updates them all.
        """
        objective.optimizer.check_groups(n for n, p in self.arrays.items() if not p.buffer)
        keep = keep or not self.lowered.fuses or host is not None
        leaves, gradients = self.gradients(objective.loss, objective.parameters, keep)
        scaling = self._scaling
        if host is not None:
            self.places |= {f"{GRADIENT}{name}": value for name, value in gradients.items()}
            arrays = {f"x{k}": value for k, value in enumerate(gradients.values())}
            apply_effect(self.graph, host_call(len(arrays)), number=host, **arrays)
            if scaling is not None:
                scaling.check(leaves, gradients)
        add_updates(self.lowered, self.store, objective, leaves, gradients, guarded, scaling)

    def gradients(
        self, loss: Value, parameters: Mapping[str, Stored], keep: bool = True
    ) -> tuple[dict[str, Value], dict[str, Value]]:
        """Differentiate a loss: the parameters that occur, and the gradients of those that matter;
        with `keep` in the segment where `Parameter.grad` shows them."""
        leaves = {
            name: leaf
            for name, parameter in parameters.items()
            if (leaf := self.graph.leaves.get(parameter)) is not None
        }
        scaling = self.scaling()
        seed = None if scaling is None else scaling.seed(loss)
        found = differentiate(self.graph, loss, list(leaves.values()), seed)
        gradients = {}
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
            if gradient is None:
                continue
            if scaling is not None and not keep:
                gradient = scaling.divide(gradient)
            if keep:
                gradients[name] = self.pinned(gradient, leaf)
            elif gradient.shape == leaf.shape:
                gradients[name] = gradient
            else:
                gradients[name] = self.graph.view(gradient, leaf.shape, batched=False)
        if all(parameter.buffer for parameter in self.arrays.values()):
            raise OptionError(
                f"{type(self.model).__name__} has no parameters, there is nothing to train; "
                "predict and evaluate need no training"
            )
        if not parameters:
            raise OptionError(
                "no parameter is trained, all are frozen; thaw some with model.unfreeze('head.*')"
            )
        if not gradients:
            raise OptionError(
                "the loss does not depend on any trained parameter; check the model's forward"
            )
        if scaling is not None and keep:
            scaling.divide_kept(leaves, gradients)
        return leaves, gradients

    def scaling(self) -> Scaling | None:
        """The factor of the step's gradients, where the precision needs one."""
        if self._scaling is None and self.lowered.precision in SCALED:
            self._scaling = Scaling(self.lowered)
        return self._scaling

    def pinned(self, value: Value, leaf: Value, segment: str = "grads") -> Value:
        """A value of a parameter's size at the parameter's place in a segment: in that of gradients
        the parameter's `grad` shows it. It is computed there, or copied where it can't be."""
        free = value.base is None and value.segment == "work" and value.offset is None
        whole = value.shape == leaf.shape
        if free and whole and all(value is not place.root for place in self.places.values()):
            value.segment, value.offset = segment, leaf.offset
            return value
        copy = self.graph.value(leaf.shape, segment=segment, offset=leaf.offset, name=leaf.name)
        source = self.graph.view(value, leaf.shape, batched=False)
        write(source, copy)
        return copy

    def close(self, advance: bool) -> None:
        """Nothing else is computed; with `advance` the step counts, last of all."""
        if advance:
            take_step(self.graph.control(), self.graph.batch)

    def finish(self, advance: bool = True) -> Built:
        """Plan the step."""
        from fastnn.plan.planner import plan  # not needed where a model is only described

        self.close(advance)
        return self.built(plan(self.lowered, self.places))

    def built(self, program: Program) -> Built:
        """The step with its program."""
        ranges = tuple(
            (self.names[r.value], replace(r, value=None))  # without the graph
            for r in self.graph.ranges
            if r.value in self.names
        )
        outputs = tuple(v.shape for n, v in self.places.items() if n.startswith("output"))
        rules = tuple(
            (tuple(self.names[v] for v in check.values), check.rule)
            for check in self.graph.checks
            if all(v in self.names for v in check.values)
        )
        carries = bool(guard.written_buffers(self.lowered.calls))
        return Built(program, ranges, outputs, carries, rules)


def follows_size(
    builder: Builder, trace: Callable[[int], Builder], fixed: bool = False
) -> list[bool]:
    """For each output whether its numbers follow the size of the batch: then batches can't be cut.

    Args:
        builder: one that has traced the model for a batch of some size.
        trace: function of a batch's size that traces it for another.
        fixed: whether the model takes batches of one size only.
    """
    count = len(builder.output_values)
    made = any(node.of is not None for node in builder.graph.nodes)
    if fixed or not (made or has_numbers(builder.graph)):
        return [False] * count
    try:
        others = trace(builder.graph.batch + 1).output_values
    except Exception:  # whatever a model says of batches of another size: it takes this one
        return [False] * count
    if len(others) != count:
        return [True] * count
    pairs = zip(builder.output_values, others, strict=True)
    return [not alike(value, other, by_sample=True) for value, other in pairs]
