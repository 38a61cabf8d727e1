"""Modules: trees of layers that describe a computation."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from fastnn.engine.access import building
from fastnn.engine.model import by_name
from fastnn.engine.numbers import numbers
from fastnn.errors import OptionError, ShapeError, where
from fastnn.graph.graph import Graph
from fastnn.graph.tracing import traced
from fastnn.graph.value import Value
from fastnn.nn import structure
from fastnn.nn.contents import Contents
from fastnn.nn.layout import laid_out
from fastnn.nn.summary import summarize
from fastnn.ops.layout import check_channels
from fastnn.public import publish
from fastnn.spellings import missing

if TYPE_CHECKING:
    from fastnn.engine.predictor import Predictor


class Module(Contents):
    """Base class of layers and models.

    A subclass creates its layers and parameters in `__init__` and implements `forward` with layers
    and `fastnn.ops`. `forward` is traced once per shape; its arguments and results are symbolic
    values (`fastnn.Value`), which may form any directed acyclic graph.

    Calling it raises OptionError if the subclass has no `forward`, and ShapeError for anything but
    arrays and symbolic values.

    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> class Residual(nn.Module):
    ...     def __init__(self, size):
    ...         self.fc = nn.Linear(size, size)
    ...     def forward(self, x):
    ...         return x + fnn.ops.relu(self.fc(x))
    >>> Residual(4).parameter_count
    20
    """

    if not TYPE_CHECKING:  # which would take any attribute for one that there is

        def __getattr__(self, name: str) -> Any:
            raise missing(self, "Module", name)

    def forward(self, *inputs: Any) -> Any:
        """Compute the output symbolically; every subclass implements this."""
        raise OptionError(f"{type(self).__name__} has no forward(); write one in the subclass")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Apply to symbolic values while tracing; to arrays it is `predict`.

        Arrays among the arguments are constants while a `forward` is traced: positions for an
        embedding, say, ``self.places(np.arange(x.shape[1]))``.
        """
        graph = next(
            (v.graph for v in map(_symbolic, (*inputs, *options.values())) if v is not None),
            traced(),
        )
        if graph is None:
            if inputs or options:
                return self.predict(*inputs, **options)
            raise ShapeError(
                f"{type(self).__name__}: expected arrays or symbolic values, got "
                f"{[type(x).__name__ for x in (*inputs, *options.values())]}"
            )
        inputs = tuple(_constant(graph, x) for x in inputs)
        with graph.inside_scope(graph.module_names.get(id(self), graph.scope)):
            try:
                if self._layout == "last":
                    return laid_out(self, graph, inputs, options)
                return self.forward(*inputs, **options)
            except ValueError as error:
                hints = [
                    h
                    for h in (m._unpacking for m in vars(self).values() if isinstance(m, Module))
                    if h
                ]
                if not (hints and "values to unpack" in str(error)):
                    raise
                raise ShapeError(
                    f"{where(graph.scope)}{type(self).__name__}.forward: {error}; {hints[0]}"
                ) from error

    #: how to take the result of the layer apart, where that is easily mistaken
    _unpacking: ClassVar[str] = ""
    #: where the channels of inputs and outputs are, see `to`
    _layout: str = "first"
    #: whether it sees to the layout of the layers inside, which are its own
    _own_layout: ClassVar[bool] = False
    #: whether the layer takes ids
    _takes_ids: ClassVar[bool] = False

    def _sample_shape(self) -> tuple[int, ...] | None:
        """The shape of one sample, where the layer tells it."""
        return None

    def handed_on(self, result: Any) -> Any:
        """The part of this layer's result that a `Sequential` passes on: all of it."""
        return result

    # ---------------------------------------------------------------- use

    def to(self, target: Any = None, *, channels: str | None = None) -> Self:
        """Choose the device that the model runs on, its element type, or its layout.

        Args:
            target: a device, "cpu", "cuda", "cuda:1" or "auto" (see `Trainer`), to which the
                parameters move when they are next used. Or an element type, "float32" or "float64",
                to which they are converted at once, together with all models that share them;
                create new trainers and steps afterwards.
            channels: where the channels of sequences and images (floats of three and four axes) are
                in the inputs and outputs of the model, "first", (N, C, T) and (N, C, H, W), or
                "last", (N, T, C) and (N, H, W, C). Inside, everything stays in PyTorch's order, and
                nothing is transposed for it (`docs/convolution.md`): parameters and results are the
                same.

        Returns:
            The model.

        Raises:
            OptionError: the device is not available; the message says why. Or an unknown layout.
        """
        from fastnn.runtime import devices

        if channels is not None:
            check_channels("to", channels)
            self._layout = channels
            if target is None:
                return self
        kind = getattr(target, "__name__", str(target))
        if kind in ("float32", "float64"):
            self.store(kind)
        elif isinstance(target, str):
            self.store().device = devices.choose(target)
        else:
            raise OptionError(
                "to: expected a device ('cpu', 'cuda:0') or an element type ('float32', "
                f"'float64'), got {target!r}"
            )
        return self

    def predictor(self) -> Predictor:
        """What runs the forward pass; kept between calls until something changes."""
        return self._kept_predictor().of(self)

    def _kept_predictor(self) -> Predictor:
        if "_predictor" not in self.__dict__:
            with building:  # the first calls of several threads
                return self._own_predictor()
        return self._own_predictor()

    def _own_predictor(self) -> Predictor:
        watch: structure.Watch | None = self.__dict__.get("_watch")
        found: Predictor | None = self.__dict__.get("_predictor")
        if found is None or watch is None or watch.changed() or found.store.stale:
            found = None
            device = self.store().device
        else:
            device = found.store.device
        if found is None or found.device != device:
            from fastnn.engine.predictor import Predictor

            found = Predictor(weakref.ref(self))
            self.__dict__["_watch"] = structure.Watch(self)
            self.__dict__["_predictor"] = found
        return found

    def predict(
        self, *inputs: Any, batch_size: int = 256, on_device: bool = False,
        precision: str = "highest", **named: Any,
    ) -> Any:  # fmt: skip
        """The outputs for arrays of samples (first dimension), in evaluation mode.

        Args:
            inputs: one array for each argument of `forward`, all with the same number of samples.
            batch_size: samples computed at a time. If an output is not made of one piece per sample
                that depends on that sample alone (a mean over all samples, for instance, or a
                recurrent layer with ``batch_first=False``, whose first dimension is time), all
                samples are computed at once.
            on_device: leave the outputs on the model's CUDA device (see `to`), as
                `fastnn.cuda.DeviceArray`, which CuPy and PyTorch accept without a copy.
            precision: what the factors of matrix products are rounded to, as for `Trainer`.
            named: inputs by the names of `forward`'s arguments: ``predict(x, lengths=lengths)``.

        Returns:
            The output as an array, or as the tuple, list or dict of arrays that `forward` returns.
            Integers are int64.

        Raises:
            ShapeError, DataError: the inputs do not fit the model or each other.
            BusyError: another thread is training the model with `Trainer.fit`, which would change
                the parameters during the prediction.

        Several threads may predict with one model at the same time; each uses its own working
        memory.
        """
        if named:
            inputs = tuple(by_name(self, inputs, named))
        own = self.__dict__
        found, watch = own.get("_predictor"), own.get("_watch")
        if (  # or something may have changed
            found is None or watch is None or watch.seen != structure.changes.count
            or watch.containers or found.store.stale or found.device != found.store.device
        ):  # fmt: skip
            found = self._kept_predictor()
        return found.call(inputs, batch_size, on_device, precision)

    def save(self, path: str | Path) -> None:
        """Write all parameters and buffers to a safetensors file."""
        from fastnn.nn.saving import save_model

        save_model(self, path)

    def load(self, path: str | Path, strict: bool = True, prefix: str = "") -> Module:
        """Read parameters and buffers from a safetensors file, written by `save`, by a trainer, or
        by other software such as PyTorch (float16 and bfloat16 included).

        Args:
            path: the file.
            strict, prefix: as for `load_state_dict`.

        Returns:
            The model.

        Raises:
            CheckpointError: the file is missing, damaged, or does not fit. The model is unchanged.
        """
        from fastnn.nn.saving import load_weights

        load_weights(self, path, strict, prefix)
        return self

    def summary(
        self,
        input_shape: Any = None,
        dtype: str | Sequence[str] = "float32",
        print_fn: Callable[[str], Any] = print,
    ) -> None:
        """Print a table of layers, output shapes and parameters, as in Keras.

        Args:
            input_shape: shape of one sample, without the batch, or a list of shapes for several
                inputs; needed if it does not follow from the layers.
            dtype: element type of the input ("int64" for token ids), or a list with one per input.
            print_fn: called once with the whole text instead of `print`, for example a list's
                `append` or a logger's `info`. `fastnn.nn.summary.summarize` returns the text
                instead.

        Raises:
            OptionError: the input's shape does not follow from the layers, or `dtype` is unknown.
            ShapeError: the model does not accept inputs of this shape.

        >>> from fastnn import nn
        >>> nn.Sequential(nn.Linear(4, 3)).summary()
        layer       type        output shape      parameters
        ----------  ----------  --------------  ------------
        Sequential  Sequential  (batch, 3)
        0           Linear      (batch, 3)                15
        <BLANKLINE>
        parameters: 15 (60 bytes in float32)
          trained: 15
          buffers: 0
        """
        print_fn(summarize(self, input_shape, dtype))

    def extra(self) -> str:
        """What `repr` shows between the parentheses."""
        return ""

    def __repr__(self) -> str:
        return self._text(())

    def _text(self, above: tuple[int, ...]) -> str:
        """`repr`, without those that are being shown already."""
        if id(self) in above:
            return f"{type(self).__name__}(...)"
        above = (*above, id(self))
        children = [f"  ({n}): {c._text(above)}".replace("\n", "\n  ") for n, c in self.children()]
        layout = "channels='last'" if self._layout == "last" else ""
        if not children:
            return f"{type(self).__name__}({', '.join(filter(None, (self.extra(), layout)))})"
        return f"{type(self).__name__}({layout}\n" + "\n".join(children) + "\n)"


def _constant(graph: Graph, given: Any) -> Any:
    """An array as a constant of the graph, of whole numbers or floats; anything else as it is."""
    if not isinstance(given, (np.ndarray, np.generic)):
        return given
    array = numbers(given, "a constant")
    return graph.constant(array, "i" if array.dtype.kind in "iu" else "f")


def _symbolic(value: Any) -> Value | None:
    """A symbolic value in an argument: itself, or one in a tuple, list or dict."""
    if isinstance(value, Value):
        return value
    if isinstance(value, (list, tuple, Mapping)):
        items = value.values() if isinstance(value, Mapping) else value
        return next((v for v in map(_symbolic, items) if v is not None), None)
    return None


publish(globals(), type)
