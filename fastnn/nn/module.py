"""Modules: trees of layers that describe a computation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.errors import DataError, OptionError, ShapeError, refuse_masked
from fastnn.graph.graph import Value
from fastnn.nn.parameter import Parameter, ParameterStore
from fastnn.runtime.turns import building

if TYPE_CHECKING:
    from fastnn.train.predictor import Predictor


class Module:
    """Base class of layers and models.

    A subclass makes its layers and parameters in `__init__` and writes `forward` with layers and
    `fastnn.ops`. `forward` is traced once per shape: it gets and returns symbolic values, any
    directed acyclic graph of them.

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

    def forward(self, *inputs: Any) -> Any:
        """Describe the output for symbolic inputs; to be written by subclasses."""
        raise OptionError(f"{type(self).__name__} has no forward(); write one in the subclass")

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Apply to symbolic values while tracing; to arrays it is `predict`."""
        if inputs and not options and all(isinstance(x, (np.ndarray, list)) for x in inputs):
            return self.predict(*inputs)
        graph = next((x.graph for x in inputs if isinstance(x, Value)), None)
        if graph is None:
            raise ShapeError(
                f"{type(self).__name__}: expected arrays or symbolic values, got "
                f"{[type(x).__name__ for x in inputs]}; convert with np.asarray"
            )
        with graph.inside_scope(graph.module_names.get(id(self), graph.scope)):
            return self.forward(*inputs, **options)

    # ---------------------------------------------------------------- the tree

    def __setattr__(self, name: str, value: Any) -> None:
        current = self.__dict__.get(name)
        if isinstance(current, Parameter) and not isinstance(value, Parameter):
            if value is None:
                raise ShapeError(f"parameter {name!r} cannot be removed; expected an array")
            current.value = value
            return
        object.__setattr__(self, name, value)

    def children(self) -> Iterator[tuple[str, Module]]:
        """Direct sub-modules with their names; lists of modules count, with their indices."""
        for name, value in self.__dict__.items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, (list, tuple)):
                for index, item in enumerate(value):
                    if isinstance(item, Module):
                        yield f"{name}.{index}", item

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their dotted names; each module once."""
        yield from self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self.children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name, seen)

    def named_arrays(self) -> dict[str, Parameter]:
        """All parameters and buffers by dotted name; a shared one under its first name."""
        found: dict[str, Parameter] = {}
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in module.__dict__.items():
                if isinstance(value, Parameter) and id(value) not in seen:
                    seen.add(id(value))
                    full = f"{prefix}.{name}" if prefix else name
                    value.name = full
                    found[full] = value
        return found

    def named_parameters(self) -> dict[str, Parameter]:
        """The trained parameters by dotted name."""
        return {n: p for n, p in self.named_arrays().items() if p.trainable}

    def parameters(self) -> list[Parameter]:
        """The trained parameters."""
        return list(self.named_parameters().values())

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(p.size for p in self.parameters())

    # ---------------------------------------------------------------- contents

    def initialize(self, seed: int = 0) -> None:
        """Give all parameters their initial contents, drawn from `seed`."""
        for parameter in self.named_arrays().values():
            parameter.initialize(seed)

    def store(self, dtype: str | None = None, seed: int = 0) -> ParameterStore:
        """The flat memory of all parameters; made on the first call.

        Parameters that have no contents yet are initialised with `seed`. A module whose parameters
        are all in the store of a larger one uses that.
        """
        current: ParameterStore | None = self.__dict__.get("_store")
        arrays = self.named_arrays()
        homes = {id(p.home): p.home for p in arrays.values()}
        found = next(iter(homes.values())) if len(homes) == 1 else None if arrays else current
        wanted = dtype or (found.dtype if found else current.dtype if current else "float32")
        if found is None or found.dtype != wanted:
            for parameter in arrays.values():
                if not parameter.initialized:
                    parameter.initialize(seed)
            found = ParameterStore(arrays, wanted)
        if found is not current:
            object.__setattr__(self, "_store", found)
            self.__dict__.pop("_predictor", None)
        return found

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers by name."""
        return {name: np.array(p) for name, p in self.named_arrays().items()}

    def load_state_dict(self, arrays: dict[str, np.ndarray]) -> None:
        """Set all parameters and buffers; names and shapes have to match exactly."""
        mine = self.named_arrays()
        problems = [f"missing {n!r}" for n in mine if n not in arrays]
        problems += [f"unexpected {n!r}" for n in arrays if n not in mine]
        problems += [
            f"{n!r}: expected shape {p.shape}, got {np.shape(arrays[n])}"
            for n, p in mine.items()
            if n in arrays and np.shape(arrays[n]) != p.shape
        ]
        if problems:
            raise DataError("the arrays don't fit the model: " + "; ".join(problems))
        for name, array in arrays.items():  # before anything is changed
            refuse_masked(array, name)
        for name, parameter in mine.items():
            parameter.value = arrays[name]

    # ---------------------------------------------------------------- use

    def to(self, device: str) -> Module:
        """Choose the device that the model runs on; its parameters move when they are next used.

        Args:
            device: "cpu", "cuda", "cuda:1", or "auto"; see `Trainer`.

        Raises OptionError where the device can't be had, saying why.
        """
        from fastnn.runtime import devices

        self.store().device = devices.choose(device)
        return self

    def predictor(self) -> Predictor:
        """What runs the model forward; kept from call to call."""
        if "_predictor" not in self.__dict__:
            with building:  # the first calls of several threads
                return self._own_predictor()
        return self._own_predictor()

    def _own_predictor(self) -> Predictor:
        from fastnn.train.predictor import Predictor

        device = self.store().device
        found: Predictor | None = self.__dict__.get("_predictor")
        if found is None or found.session.device != device:
            found = Predictor(self)
            object.__setattr__(self, "_predictor", found)
        return found

    def predict(self, *inputs: Any, batch_size: int = 256, on_device: bool = False) -> Any:
        """The outputs for arrays of samples (first dimension), in evaluation mode.

        Args:
            inputs: one array for each argument of `forward`, all of the same length.
            batch_size: samples computed at a time. Where an output is no piece for each sample that
                depends on this sample alone (a mean over all of them, say, or a recurrent layer
                with ``batch_first=False``, whose first dimension is time), all are computed at
                once.
            on_device: leave the outputs on the CUDA device where the model is (`to`): they come as
                `fastnn.data.device.DeviceArray`, which CuPy and PyTorch take without a copy.

        Returns:
            The output as an array, or the tuple, list or dict of them that `forward` returns.
            Integers are int64.

        Several threads may predict with one model at a time, each with working memory of its own.
        While another thread is in the middle of a `Trainer.fit` of the model, it is refused
        (BusyError): the parameters would change meanwhile.
        """
        return self.predictor()(*inputs, batch_size=batch_size, on_device=on_device)

    def save(self, path: str | Path) -> None:
        """Write all parameters and buffers to a safetensors file."""
        from fastnn.train.checkpoint import save_model

        save_model(self, path)

    def load(self, path: str | Path) -> Module:
        """Read parameters and buffers from a file written by `save` or by a trainer."""
        from fastnn.train.checkpoint import load_model

        load_model(self, path)
        return self

    def summary(self, input_shape: tuple[int, ...] | None = None, dtype: str = "float32") -> str:
        """A table of layers, output shapes and parameters; printed and returned.

        Args:
            input_shape: shape of one sample, without the batch; needed where no layer tells it.
            dtype: element type of the input ("int64" for token ids).
        """
        from fastnn.nn.summary import summarize

        text = summarize(self, input_shape, dtype)
        print(text)  # noqa: T201  (the method's purpose, as in Keras)
        return text

    def extra(self) -> str:
        """What `repr` shows between the parentheses."""
        return ""

    def __repr__(self) -> str:
        children = [f"  ({n}): {c!r}".replace("\n", "\n  ") for n, c in self.children()]
        if not children:
            return f"{type(self).__name__}({self.extra()})"
        return f"{type(self).__name__}(\n" + "\n".join(children) + "\n)"


class Sequential(Module):
    """Layers one after the other.

    >>> from fastnn import nn
    >>> nn.Sequential(nn.Linear(4, 3), nn.ReLU()).parameter_count
    15
    """

    def __init__(self, *layers: Module):
        for index, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise OptionError(
                    f"Sequential: expected layers, got {type(layer).__name__} at place {index}; "
                    "write nn.ReLU(), with parentheses"
                )
            self.__dict__[str(index)] = layer

    @property
    def layers(self) -> list[Module]:
        return [child for _, child in self.children()]

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Module:
        return self.layers[index]
