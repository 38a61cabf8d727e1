"""Products of vectors with a model's Jacobian, Hessian and Gauss-Newton matrix."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from fastnn.engine.access import Access, access_to
from fastnn.engine.arrays import Arrays
from fastnn.engine.model import resolved
from fastnn.engine.nonfinite import explain
from fastnn.engine.single import Single
from fastnn.errors import NonFiniteError, OptionError
from fastnn.graph.gradient import differentiate, needed_nodes, propagate
from fastnn.graph.graph import Graph
from fastnn.graph.tangent import tangents
from fastnn.graph.value import Value
from fastnn.kernels import control_block
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.runtime.kept import Kept
from fastnn.train.base import Options, Training
from fastnn.train.build import StepBuilder
from fastnn.train.vectors import Place, VectorMemory, copy_blocks, parts_of

Vector = TypeVar("Vector", np.ndarray, Mapping[str, Any])


class Products(Training):
    """Derivatives of a model's outputs and loss along directions of its parameters.

    A vector is a dict of arrays by parameter name, or one flat array of all of them in the order of
    `parameters` (as PyTorch's ``parameters_to_vector`` gives); products come in the same form. All
    products are exact, in forward mode (Pearlmutter 1994; Schraudolph 2002), in one compiled
    program for each shape of the data. Layers behave as in training, but buffers are not changed.

    Args:
        model: the module.
        loss: as for `fastnn.compile`.
        loss_weights, parameters, seed, dtype, workers, device: as for `fastnn.compile`; a model
            that already has an element type keeps it.

    Raises OptionError for a model that is no `nn.Module`.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> x, y = np.array([[1.0], [3.0]], np.float32), np.zeros((2, 1), np.float32)
    >>> products = fnn.autodiff.Products(fnn.nn.Linear(1, 1), "mse")
    >>> products.hvp(x, y, np.array([1.0, 0.0], np.float32))  # the mean of (w x + b)^2: 2 x^2, 2 x
    array([10.,  4.], dtype=float32)
    """

    kind = "products"
    rebuilt = Training.rebuilt | {"_ready"}

    def __init__(
        self,
        model: Module,
        loss: Any,
        *,
        loss_weights: Any = None,
        parameters: Any = None,
        seed: int = 0,
        dtype: str | None = None,
        workers: int | str = "auto",
        device: str = "auto",
    ):
        options = Options(
            loss=loss, optimizer=VectorMemory(), loss_weights=loss_weights, penalties=None,
            mixup=0.0,
            parameters=parameters,
            seed=seed, dtype=dtype or _dtype_of(model), workers=workers, device=device,
            stop_on_nonfinite=True, keep_gradients=True, graphs=True, precision="highest",
            on_gradients=None,
        )  # fmt: skip
        super().__init__(model, options)
        self._open(workers, True)
        self.session.control[control_block.SEED] = self.seed

    def _open(self, workers: int | str, graphs: bool) -> None:
        super()._open(workers, graphs)
        self._ready: Kept[Single] = Kept()
        self._layout: list[Place] | None = None

    def _forget(self) -> None:
        self._ready.clear()
        self._layout = None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters that vectors refer to, by name: those chosen that are not frozen."""
        return self.trained

    def hvp(self, x: Any, y: Any, v: Vector, sample_weight: Any = None) -> Vector:
        """The product of the Hessian of the loss (with respect to the parameters) with a vector.

        Args:
            x, y, sample_weight: a mini-batch, as for a step of `fastnn.compile`.
            v: the vector.

        Returns:
            H v, in the form of v.

        Raises:
            DataError, ShapeError: the data or the vector do not fit.
            NonFiniteError: the product is NaN or infinite.
        """
        found: Vector = self._product("hvp", x, y, v, sample_weight)
        return found

    def gnvp(self, x: Any, y: Any, v: Vector, sample_weight: Any = None) -> Vector:
        """The product of the (generalised) Gauss-Newton matrix with a vector: J^T (L (J v)), with
        the Jacobian J of the outputs and the Hessian L of the loss with respect to the outputs;
        arguments as for `hvp`.

        It is positive semi-definite if the loss is convex in the outputs; for the cross-entropy of
        a softmax it is the Fisher information matrix.

        Raises DataError, ShapeError and NonFiniteError as `hvp`.
        """
        found: Vector = self._product("gnvp", x, y, v, sample_weight)
        return found

    def jvp(self, x: Any, v: Vector) -> Any:
        """The derivative of the outputs along a vector, J v: as `predict` gives outputs.

        Raises OptionError for outputs that depend on no trained parameter, and for a model that has
        got new ones.
        """
        turn = access_to(self.store).train(Access("a product", sys._getframe()))
        try:
            inputs = self._inputs(x)
            self._check_changes()
            self._write(v)
            builder = self.builder(len(inputs), True, "direct")
            outputs = builder.outputs(builder.inputs("x", inputs.specs))
            moved = self._moved(builder, outputs)
            for k, value in enumerate(moved):
                builder.places[f"output {k}"] = value
            builder.graph.nodes = needed_nodes(builder.graph.nodes, moved)
            built = builder.finish(advance=False)
            bound = self.session.run_once(built, inputs)
            found = [np.array(bound.view(f"output {k}")) for k in range(len(moved))]
            return found[0] if len(found) == 1 else tuple(found)
        finally:
            turn.end()

    # ---------------------------------------------------------------- programs

    def _inputs(self, x: Any) -> Arrays:
        inputs, _, _ = self.arrays(x, None, None, "", "batch")
        return inputs.with_specs(resolved(self.model, inputs.specs)).on_host()

    def _check_changes(self) -> None:
        self.store.check()
        if self._watch.changed():
            self._take_changes()

    def _product(self, kind: str, x: Any, y: Any, v: Any, weight: Any) -> Any:
        turn = access_to(self.store).train(Access("a product", sys._getframe()))
        try:
            self._check_changes()
            data = self.understood(*self.arrays(x, y, weight, "", "batch"))
            inputs, targets, weights = data[0].on_host(), data[1].on_host(), data[2].on_host()
            arrays = [*inputs.arrays, *targets.arrays, *weights.arrays]
            specs = inputs.specs, targets.specs, weights.specs
            key = (kind, len(inputs), specs, *(a.dtype for a in arrays))
            if key not in self._ready:
                self._ready[key] = self._build(kind, inputs, targets, weights)
            self._write(v)
            ready = self._ready[key]
            ready.run(arrays)
            if self.session.control[control_block.STOP]:
                self._stopped(ready, data)
            return self._read(v)
        finally:
            turn.end()

    def _stopped(self, ready: Single, data: Sequence[Arrays]) -> None:
        reason = int(self.session.control[control_block.STOP])
        self.session.control[control_block.STOP] = 0
        if reason == control_block.OUT_OF_RANGE:
            ready.built.check(*data)
        raise NonFiniteError(explain(self.model, self.session, ready.bound, "the product"))

    def _build(self, kind: str, x: Arrays, y: Arrays, w: Arrays) -> Single:
        builder = self.builder(len(x), True, "direct")
        self.describe(builder, x.specs, y.specs, w.specs)
        loss = builder.places["loss"]
        self.add_product(builder, kind, loss)
        builder.check_finite(loss)
        built = builder.finish(advance=False)
        names = [*x.names, *y.names, *w.names]
        return Single(
            self.session, built, names, [*x.arrays, *y.arrays, *w.arrays], set(self.trained)
        )

    def add_product(self, builder: StepBuilder, kind: str, loss: Value) -> None:
        """Add what computes a product of the vector, "hvp" or "gnvp" as `kind` says, to what
        `builder` has traced up to the `loss`, and drop what nothing needs.

        Raises OptionError for outputs that depend on no trained parameter.
        """
        graph = builder.graph
        leaves = self._leaves(graph)
        found = PRODUCTS[kind](graph, builder.output_values, loss, leaves, self._vectors(leaves))
        kept = [loss]
        for leaf, value in zip(leaves, found, strict=True):
            source = graph.full(leaf.shape, 0.0) if value is None else value
            kept.append(builder.pinned(source, leaf, "slots/product"))
        graph.nodes = needed_nodes(graph.nodes, kept)

    def _leaves(self, graph: Graph) -> list[Value]:
        """The values of the trained parameters in a graph."""
        found = [leaf for p in self.trained.values() if (leaf := graph.leaves.get(p)) is not None]
        if not found:
            raise OptionError(
                "the outputs do not depend on any parameter that is trained; thaw some with "
                "model.unfreeze('head.*'), or check the model's forward"
            )
        return found

    @staticmethod
    def _vectors(leaves: Sequence[Value]) -> list[Value]:
        """For each parameter's value its part of the vector."""
        return [
            leaf.graph.leaf(
                ("vector", leaf), leaf.shape, "slots/vector", offset=leaf.offset, name=leaf.name
            )
            for leaf in leaves
        ]

    def _moved(self, builder: StepBuilder, outputs: Sequence[Value]) -> list[Value]:
        """The outputs' tangents along the vector."""
        leaves = self._leaves(builder.graph)
        along = dict(zip(leaves, self._vectors(leaves), strict=True))
        return [
            builder.graph.full(output.shape, 0.0, output.batched) if found is None else found
            for output, found in zip(outputs, tangents(builder.graph, along, outputs), strict=True)
        ]

    # ---------------------------------------------------------------- vectors

    def _places(self) -> list[Place]:
        """Where the trained parameters are: in a flat vector, and in flat memory."""
        if self._layout is None:
            found: list[Place] = []
            begin = 0
            for name, p in self.trained.items():
                self.store.view(self.session.memory["slots/vector"], p)  # it lies in this memory
                how = p.offset or 0, p.storage_shape, p.transposed
                found.append(Place(name, begin, p.size, p.shape, *how))
                begin += p.size
            self._layout = found
        return self._layout

    def _write(self, v: Any) -> None:
        """Put a vector beside the parameters."""
        flat, places = self.session.memory["slots/vector"], self._places()
        for place, part in zip(places, parts_of(v, places), strict=True):
            copy_blocks(part, place.seen(flat))

    def _read(self, like: Any) -> Any:
        """The product, as `like` is: each array of a dict in the order in which it lies in memory,
        so that nothing is transposed, here nor where it is the next vector."""
        flat, places = self.session.memory["slots/product"], self._places()
        if isinstance(like, Mapping):
            return {place.name: np.array(place.seen(flat), order="K") for place in places}
        found = np.empty(places[-1].begin + places[-1].size, flat.dtype)
        for place in places:
            copy_blocks(place.seen(flat), place.part(found))
        return found


def _dtype_of(model: Any) -> str:
    if not isinstance(model, Module):
        raise OptionError(f"model: expected an nn.Module, got {type(model).__name__}")
    stores = [p.store for p in model.named_arrays().values() if p.store is not None]
    return str(stores[0].dtype) if stores else "float32"


def _hessian(
    graph: Graph, outputs: Sequence[Value], loss: Value, leaves: Sequence[Value],
    vectors: Sequence[Value],
) -> list[Value | None]:  # fmt: skip
    """The tangents of the gradients."""
    gradients = differentiate(graph, loss, leaves)
    found = [g for g in gradients if g is not None]
    moved = iter(tangents(graph, dict(zip(leaves, vectors, strict=True)), found))
    return [None if g is None else next(moved) for g in gradients]


def _gauss_newton(
    graph: Graph, outputs: Sequence[Value], loss: Value, leaves: Sequence[Value],
    vectors: Sequence[Value],
) -> list[Value | None]:  # fmt: skip
    """J^T L J v: the outputs' tangents, those of the loss's gradients to them, and back."""
    floats = [output for output in outputs if output.dtype == "f"]
    along = dict(zip(leaves, vectors, strict=True))
    moved = {
        output: t
        for output, t in zip(floats, tangents(graph, along, floats), strict=True)
        if t is not None
    }
    slopes = [
        (output, slope)
        for output, slope in zip(floats, differentiate(graph, loss, floats), strict=True)
        if slope is not None
    ]
    bent = tangents(graph, moved, [slope for _, slope in slopes])
    seeds = [(o, t) for (o, _), t in zip(slopes, bent, strict=True) if t is not None]
    if not seeds:
        return [None] * len(leaves)
    return propagate(graph, seeds, leaves)


Rule = Callable[
    [Graph, Sequence[Value], Value, Sequence[Value], Sequence[Value]], list[Value | None]
]
PRODUCTS: dict[str, Rule] = {"hvp": _hessian, "gnvp": _gauss_newton}


def hvp(
    model: Module,
    loss: Any,
    x: Any,
    y: Any,
    v: Vector,
    *,
    sample_weight: Any = None,
    **options: Any,
) -> Vector:
    """The product of the Hessian of a loss (with respect to a model's parameters) with a vector.

    Args:
        model, loss: the model and its loss, as for `Products`.
        x, y, sample_weight: a mini-batch.
        v: a dict of arrays by parameter's name, or a flat array of all of them.
        options: those of `Products`. For more than one product use `Products` itself: each call of
            this function plans anew.

    Returns:
        H v, in the form of v.

    >>> model, x = nn.Linear(1, 1), np.array([[1.0], [3.0]], np.float32)
    >>> y = np.zeros((2, 1), np.float32)
    >>> fnn.autodiff.hvp(model, "mse", x, y, np.array([0.0, 1.0], np.float32))
    array([4., 2.], dtype=float32)
    """
    return Products(model, loss, **options).hvp(x, y, v, sample_weight)


def gnvp(
    model: Module,
    loss: Any,
    x: Any,
    y: Any,
    v: Vector,
    *,
    sample_weight: Any = None,
    **options: Any,
) -> Vector:
    """The product of the Gauss-Newton matrix with a vector (see `Products.gnvp`); arguments as for
    `hvp`.

    >>> model, x = nn.Linear(1, 1), np.array([[1.0], [3.0]], np.float32)
    >>> y = np.zeros((2, 1), np.float32)
    >>> fnn.autodiff.gnvp(model, "mse", x, y, np.array([0.0, 1.0], np.float32))
    array([4., 2.], dtype=float32)
    """
    return Products(model, loss, **options).gnvp(x, y, v, sample_weight)


def jvp(model: Module, x: Any, v: Any, **options: Any) -> Any:
    """The derivative of a model's outputs for the samples `x` along a vector (see `Products.jvp`);
    arguments as for `hvp`.

    >>> model, x = nn.Linear(1, 1), np.array([[1.0], [3.0]], np.float32)
    >>> fnn.autodiff.jvp(model, x, np.array([1.0, 0.0], np.float32))  # to weight and bias
    array([[1.],
           [3.]], dtype=float32)
    """
    return Products(model, "mse", **options).jvp(x, v)


__all__ = ["Products", "gnvp", "hvp", "jvp"]
