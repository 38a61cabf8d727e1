"""Adds the updates of parameters to a training step's graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from fastnn.engine import guard
from fastnn.engine.store import ParameterStore, Stored, padded
from fastnn.graph.gradient import differentiate
from fastnn.graph.graph import Graph
from fastnn.graph.value import Value
from fastnn.kernels.update.shared import ACCUMULATED, SAVING
from fastnn.ops import guarding, updating
from fastnn.ops.declare import apply_effect
from fastnn.ops.random import normal_like
from fastnn.plan.lower import Lowering

#: of (the name of a rule's kernel, operands by name): applies it
Apply = Callable[..., None]


class UpdateRule(Protocol):
    """How parameters are updated: names of kernels, and the options of groups of parameters.

    Attributes:
        slots: names of the arrays kept for each parameter.
        own: names of the rule's own options.
        hyper_size: numbers in the array that the prepare kernel fills.
        clip_global_norm: what all gradients together are scaled down to, or None.
        arrays: names of the slots, and of the sum where gradients of several steps are summed.
        accumulate: how many steps' gradients make one update.
        elementwise: whether each number is updated by itself, whatever parameter it belongs to.
        bounded: whether bounded gradients and parameters are known to give finite parameters.
    """

    own: tuple[str, ...]
    clip_global_norm: float | None
    elementwise: ClassVar[bool]
    accumulate: int

    @property
    def slots(self) -> tuple[str, ...]: ...
    @property
    def arrays(self) -> tuple[str, ...]: ...
    @property
    def hyper_size(self) -> int: ...
    @property
    def bounded(self) -> bool: ...
    def kernels(self) -> tuple[str, str]:
        """Names of the prepare and the update kernel."""

    def place(
        self, apply: Apply, given: Mapping[str, Any], options: Mapping[str, Any], transposed: bool
    ) -> None:
        """Add the update of one parameter to its graph, by what applies a kernel of the rule's."""

    def group_of(self, parameter: str) -> int:
        """Number of the group that a parameter belongs to."""

    def group_options(self, number: int) -> dict[str, Any]:
        """The options of a group."""

    def own_values(self, options: Mapping[str, Any]) -> tuple[float, ...]:
        """A group's own options as numbers, in order."""

    def check_groups(self, parameters: Iterable[str]) -> None:
        """Refuse groups that no parameter of these names belongs to."""


@dataclass(frozen=True)
class Objective:
    """A loss with the parameters that it trains and the rule of their updates."""

    loss: Value
    parameters: Mapping[str, Stored]
    optimizer: UpdateRule
    group_offset: int = 0  # first column of its groups in the schedule
    #: the loss of the same batch where these values stand for parameters
    again: Callable[[Mapping[Any, Value]], Value] | None = None


class LossScaling(Protocol):
    """What updates have to know of scaled gradients (`engine/scaling.py`)."""

    def seed(self, loss: Value) -> Value:
        """The gradient of a loss to itself."""

    def divide(self, gradient: Value) -> Value:
        """A gradient without the factor."""

    def skip(self, hyper: Value) -> None:
        """Let an update, by its numbers, change nothing where gradients have overflowed."""

    def adapt(self) -> None:
        """The factor of the next step follows from how this one went."""


class Piece(NamedTuple):
    """What one update needs."""

    parameter: Value
    gradient: Value
    hyper: Value  # hyper-parameters
    factor: Value | None  # of the gradient


def add_updates(
    lowered: Lowering, store: ParameterStore, objective: Objective, leaves: Mapping[str, Value],
    gradients: Mapping[str, Value], guarded: bool, scaling: LossScaling | None = None,
) -> None:  # fmt: skip
    """Update the parameters that have gradients.

    Args:
        lowered: the graph, for its device.
        leaves: the parameters in the graph, by name.
        gradients: their gradients.
        guarded: whether a step that would make a parameter non-finite is undone.
        scaling: the factor that gradients had while they were computed.
    """
    graph, optimizer = lowered.graph, objective.optimizer
    prepare, update = optimizer.kernels()
    transposed = {leaves[name] for name in gradients if objective.parameters[name].transposed}
    schedule = graph.leaf("schedule", (1, 1), "schedule", dtype="r")
    groups = {name: optimizer.group_of(name) for name in gradients}
    every_step = {"every": optimizer.accumulate} if optimizer.accumulate > 1 else {}
    hyper, owns = {}, {}
    for number in sorted(set(groups.values())):
        options = optimizer.group_options(number)
        hyper[number] = graph.value((optimizer.hyper_size,), name=f"hyper{number}")
        owns[hyper[number]] = options
        own = dict(zip(optimizer.own, optimizer.own_values(options), strict=True))
        apply_effect(
            graph, prepare, control=graph.control(), hyper=hyper[number],
            schedule=schedule,
            group=objective.group_offset + number, l2=options["weight_decay"],
            decay=options["decoupled_weight_decay"],
            limit=options["clip_value"] or np.inf,
            sign=-1.0 if options["maximize"] else 1.0, **own, **every_step,
        )  # fmt: skip
        if scaling is not None:
            scaling.skip(hyper[number])
    flags = guard.guard_of(graph) if guarded else None
    every = optimizer.accumulate
    # an update of one call copies what it changes itself, where each call is a launch
    alone = not lowered.fuses and optimizer.elementwise and every == 1

    def safeguard(found: Iterable[Value]) -> None:
        if guarded:
            guard.check_gradients(lowered, found)
            if not alone:
                guard.safeguard(graph, optimizer.arrays, optimizer.bounded, store.size, schedule)

    if every > 1:
        safeguard(gradients.values())
        gradients = {
            name: _accumulated(graph, leaves[name], gradient, every, flags)
            for name, gradient in gradients.items()
        }
    scale = None
    if optimizer.clip_global_norm is not None:
        scale = _clip(graph, list(gradients.values()), optimizer.clip_global_norm)
    factors: dict[str, Value | None] = dict.fromkeys(gradients, scale)
    for name, gradient in gradients.items():
        options = optimizer.group_options(groups[name])
        if options["clip_norm"] is not None:
            factors[name] = _clip(graph, [gradient], options["clip_norm"])
    given = {name: optimizer.group_options(groups[name]) for name in gradients}
    gradients = dict(gradients)
    for name in gradients:
        if eta := given[name]["gradient_noise"]:
            gradients[name] = _with_noise(gradients[name], factors[name], eta, every)
            factors[name] = None
    noisy = any(options["gradient_noise"] for options in given.values())
    pieces = [
        Piece(leaves[n], gradient, hyper[groups[n]], factors[n])
        for n, gradient in gradients.items()
    ]
    if alone and not noisy:
        pieces = side_by_side(pieces)
    names_of = {
        piece.parameter: [n for n in gradients if _covers(piece.parameter, leaves[n])]
        for piece in pieces
    }
    if every == 1:
        safeguard([piece.gradient for piece in pieces])
    seconds = _second_gradients(objective, leaves, gradients, scaling)
    apply = partial(apply_effect, graph)
    for leaf, gradient, own_hyper, factor in pieces:
        slots = {
            slot: graph.leaf(
                (slot, leaf), leaf.shape, f"slots/{slot}", offset=leaf.offset, name=leaf.name
            )
            for slot in optimizer.slots
        }
        operands = dict(p=leaf, g=gradient, **slots, hyper=own_hyper, scale=factor, guard=flags)
        if seconds:
            operands["second"] = seconds[leaf]
        if guarded and alone:
            saving = guard.saved_operands(graph, leaf, optimizer.slots)
            saving |= dict(control=graph.control(), always=int(not optimizer.bounded))
            apply(f"{update}{SAVING}", **operands, **saving, schedule=schedule)
        else:
            optimizer.place(apply, operands, owns[own_hyper], leaf in transposed)
        for name in names_of[leaf]:
            group = objective.group_offset + groups[name]
            upright = leaves[name] in transposed
            _bound(leaves[name], own_hyper, schedule, group, given[name], upright)
    if scaling is not None:
        scaling.adapt()
    if flags is not None:
        guarding.latch(flags)
    if guarded or guard.may_raise(lowered.calls):
        guard.keep_buffers(lowered, store.segments["buffers"].host.size)


def _second_gradients(
    objective: Objective, leaves: Mapping[str, Value], gradients: Mapping[str, Value],
    scaling: LossScaling | None,
) -> dict[Value, Value]:  # fmt: skip
    """The gradients of the same batch at a second point, for optimisers that have a `shift`."""
    slot = getattr(objective.optimizer, "shift", None)
    if slot is None:
        return {}
    assert objective.again is not None
    moved: dict[Any, Value] = {}
    for name, gradient in gradients.items():
        leaf = leaves[name]
        graph = leaf.graph
        away = graph.leaf(
            (slot, leaf), leaf.shape, f"slots/{slot}", offset=leaf.offset, name=leaf.name
        )
        moved[objective.parameters[name]] = point = graph.value(leaf.shape, name=f"shifted {name}")
        updating.shift_parameter(leaf, away, gradient, point)
    loss = objective.again(moved)
    seed = None if scaling is None else scaling.seed(loss)
    found = differentiate(loss.graph, loss, list(moved.values()), seed)
    result = {}
    for name, second in zip(gradients, found, strict=True):
        assert second is not None
        if scaling is not None:
            second = scaling.divide(second)
        same = second.shape == leaves[name].shape
        result[leaves[name]] = (
            second if same else second.graph.view(second, leaves[name].shape, batched=False)
        )
    return result


def _accumulated(
    graph: Graph, leaf: Value, gradient: Value, every: int, flags: Value | None
) -> Value:
    """The mean of the gradients of so many steps, as far as it has come."""
    total = graph.leaf(
        ("accumulated", leaf), leaf.shape, f"slots/{ACCUMULATED}", offset=leaf.offset,
        name=leaf.name,
    )  # fmt: skip
    updating.accumulate_gradient(total, gradient, flags, every)
    return total


def _clip(graph: Graph, gradients: list[Value], limit: float) -> Value:
    """The factor that brings the norm of these gradients down to the limit."""
    total = graph.constant(np.zeros(1), dtype="r", name="0")
    for gradient in gradients:
        # its last axis is a row, however many there are before (of a convolution three)
        rows = math.prod(gradient.shape[: max(gradient.ndim - 1, 1)])
        squares, after = graph.value((rows,), "r"), graph.value((1,), "r")
        updating.squared_norm(gradient, squares)
        updating.norm_sum(squares, total, after)
        total = after
    scale = graph.value((1,), name="clip")
    updating.clip_scale(total, scale, float(limit))
    return scale


def _with_noise(gradient: Value, factor: Value | None, eta: float, every: int) -> Value:
    """The gradient times its factor, with noise."""
    noisy = gradient.graph.value(gradient.shape, name="noisy gradient")
    noise = normal_like(gradient)
    noise.batched = False
    updating.add_noise(gradient, noise, noisy, factor, float(eta), every)
    return noisy


def _bound(
    leaf: Value, hyper: Value, schedule: Value, group: int, options: Mapping[str, Any],
    upright: bool,
) -> None:  # fmt: skip
    """What follows the update of a parameter: small numbers become 0, long rows shorter.

    A unit's weights are a row, or a column where the matrix lies transposed (`upright`).
    """
    graph = leaf.graph
    if l1 := options["proximal_l1"]:
        updating.shrink(leaf, hyper, schedule, group, float(l1))
    if options["max_norm"] is None or leaf.ndim < 2:
        return
    limit, rows = float(options["max_norm"]), leaf.shape[0]
    if upright:
        factors = graph.value((leaf.shape[-1],), "r")
        updating.column_factors(leaf, factors, limit)
        updating.limit_columns(leaf, factors, hyper)
        return
    p = leaf if leaf.ndim == 2 else graph.view(leaf, (rows, leaf.size // rows), batched=False)
    squares = graph.value((rows,), "r")
    updating.squared_norm(p, squares)
    updating.limit_rows(p, squares, hyper, limit)


def _covers(piece: Value, leaf: Value) -> bool:
    """Whether a parameter lies in the part of memory that is updated as one."""
    first, begin = piece.offset or 0, leaf.offset or 0
    return first <= begin < first + piece.size


def side_by_side(pieces: Sequence[Piece]) -> list[Piece]:
    """Merge updates alike of parameters that are neighbours in memory, the padding included.

    (There everything is zero, and stays so.)
    """
    merged: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: piece.parameter.offset or 0):
        before = merged[-1][-1] if merged else None
        if (
            before is not None
            and before.hyper is piece.hyper
            and before.factor is piece.factor
            and _end(before.parameter) == piece.parameter.offset
        ):
            merged[-1].append(piece)
        else:
            merged.append([piece])
    return [_as_one(run) for run in merged]


def _end(leaf: Value) -> int:
    """Where the next parameter in memory begins."""
    return padded((leaf.offset or 0) + leaf.size)


def _as_one(run: Sequence[Piece]) -> Piece:
    first, last = run[0].parameter, run[-1].parameter
    if len(run) == 1:
        return run[0]
    graph, begin = first.graph, first.offset or 0
    shape = ((last.offset or 0) + last.size - begin,)
    name = f"{first.name} to {last.name}"
    leaf = graph.leaf(("side by side", begin, shape), shape, "params", offset=begin, name=name)
    gradient = graph.value(shape, segment="grads", offset=begin, name=name)
    return Piece(leaf, gradient, run[0].hyper, run[0].factor)
