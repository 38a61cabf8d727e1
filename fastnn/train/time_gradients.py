"""Norms of a loss's gradient at each time step of recurrent layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.engine.arrays import as_arrays, check_lengths
from fastnn.engine.model import first_fit, resolved
from fastnn.engine.session import Session
from fastnn.engine.specs import Spec
from fastnn.errors import OptionError
from fastnn.graph.gradient import differentiate
from fastnn.graph.node import Node
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.plan.lower import Lowering
from fastnn.train.build import StepBuilder
from fastnn.train.losses import Losses

Norms = NDArray[np.float64]


def time_gradients(
    model: Module, x: Any, y: Any, loss: str | Callable[..., Any]
) -> dict[str, Norms]:
    """Norms of the loss's gradient at each time step of each recurrent layer.

    The gradient is taken with respect to the pre-activations (the argument of an RNN's tanh),
    through all later steps: it determines what a step contributes to the gradient of the weights.
    The model is in evaluation mode, without dropout. Neither the model nor its last gradients are
    changed.

    Args:
        model: a model with `nn.RNN`, `nn.LSTM` or `nn.GRU`; cells in `ops.loop` are left out.
        x, y: a mini-batch of inputs and targets, as for `Trainer.fit`.
        loss: a loss or its name, as for `Trainer`.

    Returns:
        For each layer and direction ("lstm.l0", "lstm.l0_reverse", ...) the norms, shape (steps,),
        over the mini-batch and the units.

    Raises OptionError if the model has no such layer that the loss depends on.
    """
    function = loss if isinstance(loss, Losses) else Losses(loss)
    inputs, targets = as_arrays(x, "x", "inputs"), as_arrays(y, "y", "targets")
    check_lengths(inputs, targets, "batch")
    inputs = inputs.with_specs(resolved(model, inputs.specs))
    store = model.store()

    def traced(specs: tuple[Spec, ...]) -> tuple[StepBuilder, Value]:
        builder = StepBuilder(model, store, len(inputs), False, "direct")
        given, wanted = builder.inputs("x", inputs.specs), builder.inputs("y", specs)
        return builder, builder.loss(function, builder.outputs(given), wanted)

    targets = targets.with_specs(first_fit(targets.specs, "if", traced))
    builder, value = traced(targets.specs)
    graph = builder.graph
    leaves = [graph.leaves.get(p) for p in model.named_parameters().values()]
    differentiate(graph, value, [leaf for leaf in leaves if leaf is not None])
    found = _gate_gradients(builder.lowered)
    if not found:
        raise OptionError(
            "time_gradients: expected a model with nn.RNN, nn.LSTM or nn.GRU that the loss depends "
            "on, found none"
        )
    builder.places.update({f"dz{k}": dz for k, (_, dz) in enumerate(found)})
    given = {
        k: lengths
        for k, (node, _) in enumerate(found)
        if (lengths := node.inputs["lengths"]) is not None
    }
    builder.places.update({f"lengths{k}": lengths for k, lengths in given.items()})
    built = builder.finish(advance=False)
    session = Session(store, (), 0, 1)
    kept = session.runtime.save(["buffers"])
    bound = session.run_once(built, inputs, targets)
    session.runtime.restore(kept)
    return {
        _label(node): _norms(
            bound.view(f"dz{k}"), node, bound.view(f"lengths{k}") if k in given else None
        )
        for k, (node, _) in enumerate(found)
    }


def _gate_gradients(lowered: Lowering) -> list[tuple[Node, Value]]:
    """Recurrent nodes in order, with the gradients of their gates."""
    assert lowered.calls  # all nodes are lowered
    kept = [(node, lowered.kept.get(node, {})) for node in lowered.graph.nodes]
    return [(node, values["dz"]) for node, values in kept if "dz" in values]


def _label(node: Node) -> str:
    weight = node.inputs["w_hh"]
    assert weight is not None
    return weight.name.replace("weight_hh_", "")


def _norms(dz: NDArray[Any], node: Node, lengths: NDArray[Any] | None) -> Norms:
    """Norm of each step; a step's place may be wider than its gates, and holds nothing past the
    end of its sequence."""
    batch, steps, _ = node.outputs["y"].shape
    weight = node.inputs["w_ih"]
    assert weight is not None
    parts = dz.reshape(batch, steps, -1)[:, :, : weight.shape[1]]
    if lengths is not None:
        past = np.arange(steps)[None, :, None] >= lengths.reshape(-1, 1, 1)
        parts = np.where(past, 0.0, parts)
    parts = parts.astype(np.float64)
    return np.asarray(np.sqrt((parts**2).sum(axis=(0, 2))))
