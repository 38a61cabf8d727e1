"""Builds the graphs of training, evaluation and prediction steps, and plans them."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.errors import OptionError, ShapeError
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph, Range, Value
from fastnn.graph.samples import Samples
from fastnn.graph.trace import trace_tree
from fastnn.graph.tree import leaves
from fastnn.nn import structure
from fastnn.nn.parameter import Parameter, ParameterStore, padded
from fastnn.optim.optimizer import Optimizer
from fastnn.plan.planner import plan
from fastnn.plan.program import Program
from fastnn.runtime import devices
from fastnn.train import additive, guard
from fastnn.train.losses import Losses, Part
from fastnn.train.metrics import Chosen, accumulate

if TYPE_CHECKING:
    from fastnn.nn.module import Module


@dataclass(frozen=True)
class Spec:
    """Shape of one sample and element type ("f" or "i") of an input or target.

    `key` is its name where inputs or targets came as a dict. `small`: integers that may be meant as
    numbers (pixels) or as ids; the model decides.
    """

    shape: tuple[int, ...]
    dtype: str
    key: str = ""
    small: bool = False


@dataclass(frozen=True)
class Built:
    """A planned step, with the limits that integer data have to keep."""

    program: Program
    #: limits of integer inputs, by the input's name
    ranges: tuple[tuple[str, Range], ...]
    output_shapes: tuple[tuple[int, ...], ...]
    #: how each loss is added up over batches (see `additive`); None: it can't be
    additions: tuple[str | None, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.program.nbytes


@dataclass(frozen=True)
class Objective:
    """A loss with the parameters that it trains and the optimiser that does it."""

    loss: Value
    parameters: dict[str, Parameter]
    optimizer: Optimizer
    group_offset: int = 0  # first column of its groups in the schedule


LossFunction = Callable[..., Value]
#: samples in traces that only look at a model
PROBE = 7


def select_parameters(model: Module, chosen: Any = None) -> dict[str, Parameter]:
    """The parameters that an option `parameters` means, frozen ones included, by name.

    Args:
        chosen: None (all), a name pattern ("encoder.*"), a module or parameter of the model, or a
            list of these.
    """
    return structure.select(model, chosen, "parameters")


def inputs_by_name(
    model: Module, named: Mapping[str, Value], inputs: Sequence[Value]
) -> Sequence[Value]:
    """Inputs in the order of the arguments of a model's `forward`, where they have names."""
    if not named:
        return inputs
    wanted = [
        name
        for name, argument in inspect.signature(model.forward).parameters.items()
        if name in named or argument.default is inspect.Parameter.empty
    ]
    if sorted(wanted) != sorted(named):
        raise ShapeError(
            f"{type(model).__name__}.forward: expected inputs called {wanted}, got {list(named)}; "
            "a dict's keys are the names of forward's arguments"
        )
    return [named[name] for name in wanted]


def streams_of(model: Module) -> int | None:
    """The batch size that a model with carried states insists on."""
    from fastnn.nn.recurrent import Recurrent

    sizes = [
        m.stateful for _, m in model.named_modules() if isinstance(m, Recurrent) and m.stateful
    ]
    return sizes[0] if sizes else None


def settled(model: Module, specs: tuple[Spec, ...]) -> tuple[Spec, ...]:
    """Specs of inputs in which small integers are numbers or ids, as the model can take them.

    Numbers, where it takes either.
    """
    small = [k for k, spec in enumerate(specs) if spec.small]
    if not small:
        return specs

    def chosen(letters: Sequence[str]) -> tuple[Spec, ...]:
        kinds = dict(zip(small, letters, strict=True))
        return tuple(
            replace(spec, dtype=kinds.get(k, spec.dtype), small=False)
            for k, spec in enumerate(specs)
        )

    model.store()
    choices = itertools.islice(itertools.product("fi", repeat=len(small)), 64)
    for letters in choices:
        graph = Graph(streams_of(model) or PROBE, dtype="float64")  # which holds every constant
        found = chosen(letters)
        inputs = [graph.input(f"x{k}", s.shape, s.dtype) for k, s in enumerate(found)]
        named = {s.key: value for s, value in zip(found, inputs, strict=True) if s.key}
        try:
            trace_tree(model, graph, *inputs_by_name(model, named, inputs))
        except ShapeError:
            continue
        return found
    return chosen("f" * len(small))


class StepBuilder:
    """Puts one step's graph together.

    Args:
        model: the module to trace.
        store: its parameters' memory.
        batch: samples in a step.
        training: whether layers behave as in training.
        feed: "gather" (rows of arrays in memory, by the data order) or "direct" (the host writes
            the inputs before each step).
        device: "cpu" or "cuda": what the program is for.
        tf32: whether matrix products on CUDA may round their operands to TF32.
    """

    def __init__(
        self, model: Module, store: ParameterStore, batch: int, training: bool, feed: str,
        device: str = "cpu", tf32: bool = False,
    ):  # fmt: skip
        self.model, self.store, self.feed = model, store, feed
        self.graph = Graph(batch, training, store.dtype, device, tf32, devices.block_limits(device))
        self.arrays = model.named_arrays()
        self.graph.owned = frozenset(self.arrays.values())
        self.places: dict[str, Value] = {}
        self.names: dict[Value, str] = {}
        self.tree: Any = None  # what forward returned
        self.keys: dict[Value, str] = {}  # names of inputs and targets that came as dicts
        self.parts: list[Part] = []  # the losses
        self.output_values: tuple[Value, ...] = ()

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
        width = int(np.prod(spec.shape, dtype=np.int64))
        source = graph.leaf(("data", name), (1, width), f"data/{name}", dtype="d", name=name)
        graph.call(
            "gather_rows" if spec.dtype == "f" else "gather_ids",
            source=source,
            order=graph.leaf("order", (1,), "order", dtype="i"),
            clock=graph.clock(),
            y=graph.view(value, (graph.batch, width)),
        )
        return value

    def outputs(self, inputs: Sequence[Value]) -> tuple[Value, ...]:
        """Trace the model; its outputs in order (`tree` has their structure)."""
        named = {self.keys[value]: value for value in inputs if value in self.keys}
        self.tree = trace_tree(self.model, self.graph, *inputs_by_name(self.model, named, inputs))
        self.output_values = tuple(value for _, value in leaves(self.tree))
        return self.output_values

    def loss(
        self,
        function: Losses | LossFunction,
        outputs: Sequence[Value],
        targets: Sequence[Value],
        weights: Sequence[Value] = (),
    ) -> Value:
        """The loss, one number; named as a place. `parts` has the losses that it is the sum of."""
        losses = function if isinstance(function, Losses) else Losses(function)
        out: Any = self.tree
        if out is None:
            out = outputs[0] if len(outputs) == 1 else tuple(outputs)
        with self.graph.inside_scope("loss"):
            value, self.parts = losses.place(self.graph, out, self._target(targets), weights)
        if any(part.addition == additive.SUM for part in self.parts):
            samples = Samples(self.graph, self.names)
            for part in self.parts:  # a sum of parameters alone doesn't grow with the samples
                if part.addition == additive.SUM and not samples.depends(part.value):
                    part.addition = additive.SAMPLES
        self.places["loss"] = value
        return value

    def _target(self, targets: Sequence[Value]) -> Any:
        """Targets as a loss gets them: one, a tuple, or a dict."""
        if targets and all(value in self.keys for value in targets):
            return {self.keys[value]: value for value in targets}
        return targets[0] if len(targets) == 1 else tuple(targets)

    def report(self, metrics: Sequence[Chosen]) -> None:
        """Add the losses and metrics of this batch to the running totals."""
        graph = self.graph
        for k, part in enumerate(self.parts):
            total = self._total(k)
            node = part.value.node
            if node is not None and node.op.name == "weighted_mean":
                # The sums themselves: rows that weigh 0 may be part of the loss (label smoothing).
                rows, weight = node.inputs["x"], node.inputs["weight"]
                graph.call("accumulate_pair", x=rows, y=weight, total=total)
            elif part.denominator is not None:
                graph.call("accumulate_by", value=part.value, count=part.denominator, total=total)
            else:
                count = 1 if part.addition == additive.SUM else graph.batch
                graph.call("accumulate", value=part.value, total=total, count=count)
        for k, chosen in enumerate(metrics, len(self.parts)):
            part = self.parts[chosen.part or 0]
            own = part.output, part.target
            with graph.inside_scope(f"metric {chosen.name}"):
                accumulate(chosen.metric, part, *own, self._total(k))

    def _total(self, index: int) -> Value:
        return self.graph.leaf(
            ("total", index), (2,), "totals", dtype="r", offset=2 * index, name="totals"
        )

    def check_finite(self, loss: Value) -> None:
        """Stop before parameters change unless the loss is finite, and all buffers (running
        statistics, states) that have been written so far."""
        for value in (loss, *guard.written_buffers(self.graph.calls)):
            self.graph.call("check_finite", value=value, clock=self.graph.clock())

    def train(self, objective: Objective, keep: bool = False, guarded: bool = False) -> None:
        """Differentiate a loss and update its parameters.

        `guarded`: a step that would make a parameter non-finite is undone (`train/guard.py`).

        Gradients that are not kept for `Parameter.grad` need not be written out: where nothing but
        the update reads one, it stays in the cache, a block at a time. On CUDA they always lie side
        by side, so that one launch updates them all.
        """
        objective.optimizer.check_groups(n for n, p in self.arrays.items() if not p.buffer)
        keep = keep or self.graph.device == "cuda"
        leaves, gradients = self.gradients(objective.loss, objective.parameters, keep)
        self._updates(objective, leaves, gradients, objective.optimizer, guarded)

    def gradients(
        self, loss: Value, parameters: Mapping[str, Parameter], keep: bool = True
    ) -> tuple[dict[str, Value], dict[str, Value]]:
        """Differentiate a loss: the parameters that occur, and the gradients of those that matter;
        with `keep` in the segment where `Parameter.grad` shows them."""
        leaves = {
            name: leaf
            for name, parameter in parameters.items()
            if (leaf := self.graph.leaves.get(parameter)) is not None
        }
        found = differentiate(self.graph, loss, list(leaves.values()))
        gradients = {}
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True):
            if gradient is None:
                continue
            if keep:
                gradients[name] = self._pinned(gradient, leaf)
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
        return leaves, gradients

    def _pinned(self, gradient: Value, leaf: Value) -> Value:
        """The gradient in the gradient segment, where the parameter's `grad` shows it."""
        free = gradient.base is None and gradient.home == "work" and gradient.offset is None
        if free and all(gradient is not place.root for place in self.places.values()):
            gradient.home, gradient.offset = "grads", leaf.offset
            return gradient
        copy = self.graph.value(leaf.shape, home="grads", offset=leaf.offset, name=leaf.name)
        source = self.graph.view(gradient, leaf.shape, batched=False)
        self.graph.call("affine", x=source, y=copy, scale=1.0, shift=0.0)
        return copy

    def _updates(
        self,
        objective: Objective,
        leaves: dict[str, Value],
        gradients: dict[str, Value],
        optimizer: Optimizer,
        guarded: bool,
    ) -> None:
        graph = self.graph
        prepare, update = optimizer.kernels()
        schedule = graph.leaf("schedule", (1, 1), "schedule", dtype="r")
        groups = {name: optimizer.group_of(name) for name in gradients}
        hyper = {}
        for number in sorted(set(groups.values())):
            options = optimizer.group_options(number)
            hyper[number] = graph.value((optimizer.hyper_size,), name=f"hyper{number}")
            own = dict(zip(optimizer.own, optimizer.own_values(options), strict=True))
            graph.call(
                prepare, clock=graph.clock(), hyper=hyper[number],
                schedule=schedule,
                group=objective.group_offset + number, l2=options["weight_decay"],
                decay=options["decoupled_weight_decay"],
                limit=options["clip_value"] or np.inf,
                sign=-1.0 if options["maximize"] else 1.0, **own,
            )  # fmt: skip
        scale = None
        if optimizer.clip_global_norm is not None:
            scale = self._clip(list(gradients.values()), optimizer.clip_global_norm)
        factors = dict.fromkeys(gradients, scale)
        for name, gradient in gradients.items():
            options = optimizer.group_options(groups[name])
            if options["clip_norm"] is not None:
                factors[name] = self._clip([gradient], options["clip_norm"])
        pieces = [
            (leaves[n], gradient, hyper[groups[n]], factors[n]) for n, gradient in gradients.items()
        ]
        if graph.device == "cuda":
            pieces = side_by_side(pieces)
        if guarded:
            guard.check_gradients(graph, [gradient for _, gradient, _, _ in pieces])
            guard.safeguard(graph, optimizer, self.store.size, schedule)
        flags = guard.guard_of(graph) if guarded else None
        for leaf, gradient, own_hyper, factor in pieces:
            slots = {
                slot: graph.leaf(
                    (slot, leaf), leaf.shape, f"slots/{slot}", offset=leaf.offset, name=leaf.name
                )
                for slot in optimizer.slots
            }
            graph.call(
                update, p=leaf, g=gradient, **slots, hyper=own_hyper, scale=factor, guard=flags
            )
        if guarded:
            graph.call("latch", clock=graph.clock(), guard=flags)
            graph.calls[-1].final = True
        if guarded or guard.may_raise(graph.calls):
            guard.keep_buffers(graph, self.store.memory["buffers"].size)

    def _clip(self, gradients: list[Value], limit: float) -> Value:
        """The factor that brings the norm of these gradients down to the limit."""
        graph = self.graph
        total = graph.constant(np.zeros(1), dtype="r", name="0")
        for gradient in gradients:
            rows = gradient.shape[0] if gradient.ndim else 1
            partial, after = graph.value((rows,), "r"), graph.value((1,), "r")
            graph.call("squared_norm", x=gradient, y=partial)
            graph.call("norm_sum", partial=partial, before=total, after=after)
            total = after
        scale = graph.value((1,), name="clip")
        graph.call("clip_scale", total=total, scale=scale, limit=float(limit))
        return scale

    def finish(self, advance: bool = True) -> Built:
        """Plan the step."""
        if advance:
            self.graph.call("advance", clock=self.graph.clock(), batch=self.graph.batch)
            self.graph.calls[-1].final = True
        program = plan(self.graph, self.places)
        ranges = tuple(
            (self.names[r.value], replace(r, value=None))  # without the graph
            for r in self.graph.ranges
            if r.value in self.names
        )
        outputs = tuple(v.shape for n, v in self.places.items() if n.startswith("output"))
        return Built(program, ranges, outputs, tuple(part.addition for part in self.parts))


#: what one update needs: parameters, their gradients, hyper-parameters, factor of the gradients
Piece = tuple[Value, Value, Value, Value | None]


def side_by_side(pieces: Sequence[Piece]) -> list[Piece]:
    """Merge updates alike of parameters that are neighbours in memory, the padding included.

    (There everything is zero, and stays so.)
    """
    merged: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece[0].offset or 0):
        leaf, _, hyper, factor = piece
        before = merged[-1][-1] if merged else None
        if (
            before is not None
            and before[2] is hyper
            and before[3] is factor
            and padded((before[0].offset or 0) + before[0].size) == leaf.offset
        ):
            merged[-1].append(piece)
        else:
            merged.append([piece])
    return [_as_one(run) for run in merged]


def _as_one(run: Sequence[Piece]) -> Piece:
    first, last = run[0][0], run[-1][0]
    if len(run) == 1:
        return run[0]
    graph, begin = first.graph, first.offset or 0
    shape = ((last.offset or 0) + last.size - begin,)
    name = f"{first.name} to {last.name}"
    leaf = graph.leaf(("side by side", begin, shape), shape, "params", offset=begin, name=name)
    gradient = graph.value(shape, home="grads", offset=begin, name=name)
    return leaf, gradient, run[0][2], run[0][3]
