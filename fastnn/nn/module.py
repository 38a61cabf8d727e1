"""Modules: trees of layers that describe a computation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastnn.engine.numbers import numbers
from fastnn.engine.store import ParameterStore, Stored
from fastnn.engine.turns import building
from fastnn.errors import DataError, OptionError, ShapeError
from fastnn.graph.graph import Graph, Value, traced
from fastnn.nn import structure
from fastnn.nn.parameter import Parameter

if TYPE_CHECKING:
    from fastnn.engine.predictor import Predictor


class Loaded(NamedTuple):
    """What `Module.load_state_dict` did not find, and what it did not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module(structure.Part):
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
        """Apply to symbolic values while tracing; to arrays it is `predict`.

        Arrays among the arguments are constants while a `forward` is traced: positions for an
        embedding, say, ``self.places(np.arange(x.shape[1]))``.
        """
        graph = next((v.graph for v in map(_symbolic, inputs) if v is not None), traced())
        if graph is None:
            if inputs and not options:
                return self.predict(*inputs)
            raise ShapeError(
                f"{type(self).__name__}: expected arrays or symbolic values, got "
                f"{[type(x).__name__ for x in (*inputs, *options.values())]}"
            )
        inputs = tuple(_constant(graph, x) for x in inputs)
        with graph.inside_scope(graph.module_names.get(id(self), graph.scope)):
            return self.forward(*inputs, **options)

    def handed_on(self, result: Any) -> Any:
        """What a `Sequential` hands on of this layer's result: all of it."""
        return result

    # ---------------------------------------------------------------- the tree

    def __setattr__(self, name: str, value: Any) -> None:
        current = self.__dict__.get(name)
        if isinstance(current, Parameter) and not isinstance(value, structure.Part):
            if value is None:
                raise ShapeError(f"parameter {name!r} cannot be removed; expected an array")
            current.value = value
            return
        for own, part in structure.inside(name, value):
            structure.adopt(self, part)
            if isinstance(part, Parameter) and not part.name:
                part._name = own
        object.__setattr__(self, name, value)
        structure.touch(self)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        structure.touch(self)

    def attributes(self) -> Iterable[tuple[str, Any]]:
        """Names and values among which parameters and sub-modules are looked for."""
        return self.__dict__.items()

    def children(self) -> Iterator[tuple[str, Module]]:
        """Direct sub-modules with their names; those in lists, tuples and dicts count at any depth,
        with their indices and keys ("blocks.0", "heads.left.1")."""
        for name, part in structure.held(self):
            if isinstance(part, Module):
                yield name, part

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it, with their dotted names; each module once."""
        yield from self._walk(prefix, set())

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self.children():
            structure.adopt(self, child)
            yield from child._walk(f"{prefix}.{name}" if prefix else name, seen)

    def named_arrays(self) -> dict[str, Parameter]:
        """All parameters and buffers by dotted name; a shared one under its first name."""
        found: dict[str, Parameter] = {}
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in structure.held(module):
                if not isinstance(value, Parameter) or id(value) in seen:
                    continue
                structure.adopt(module, value)
                seen.add(id(value))
                full = f"{prefix}.{name}" if prefix else name
                if full in found:
                    raise OptionError(
                        f"{type(self).__name__}: two parameters are called {full!r}; use other "
                        "attribute names or keys"
                    )
                value._name = full
                found[full] = value
        return found

    def _other_names(self) -> dict[str, str]:
        """Further names of shared parameters, each with the name that counts."""
        first = {id(p): name for name, p in self.named_arrays().items()}
        found: dict[str, str] = {}

        def walk(module: Module, prefix: str, above: tuple[int, ...]) -> None:
            if id(module) in above:
                return
            for name, part in structure.held(module):
                full = f"{prefix}.{name}" if prefix else name
                if isinstance(part, Module):
                    walk(part, full, (*above, id(module)))
                elif first[id(part)] != full:
                    found[full] = first[id(part)]

        walk(self, "", ())
        return found

    def named_parameters(self) -> dict[str, Parameter]:
        """The trained parameters by dotted name: neither buffers nor frozen ones.

        A dict, where PyTorch gives pairs: loop over its ``items()``.
        """
        return {n: p for n, p in self.named_arrays().items() if p.trainable}

    def parameters(self) -> list[Parameter]:
        """The trained parameters."""
        return list(self.named_parameters().values())

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(p.size for p in self.parameters())

    # ---------------------------------------------------------------- what is trained

    def freeze(self, *chosen: str | Module | Parameter) -> Module:
        """Keep parameters as they are: training moves them no more, nor do weight decay or
        momentum. It may be done at any time, between two calls of `fit` or in a callback.

        Running statistics of `BatchNorm` are buffers and follow the data all the same, as in
        PyTorch.

        Args:
            chosen: name patterns ("body.*", "*.bias"), names of modules ("body"), modules or
                parameters of this model; all parameters if there are none.

        Returns:
            The model.

        Raises:
            OptionError: one of them has no parameter of this model.

        >>> from fastnn import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).freeze("0.*")
        >>> list(model.named_parameters())
        ['1.weight', '1.bias']
        """
        self._set_trainable(chosen, False)
        return self

    def unfreeze(self, *chosen: str | Module | Parameter) -> Module:
        """Train parameters again that `freeze` has frozen; arguments as there. The optimiser goes
        on with the state that it had for them."""
        self._set_trainable(chosen, True)
        return self

    def _set_trainable(self, chosen: Sequence[Any], trainable: bool) -> None:
        for parameter in structure.select(self, chosen or None, "freeze").values():
            parameter.trainable = trainable

    @property
    def trainable(self) -> bool:
        """Whether training moves any of its parameters; setting it freezes or unfreezes all."""
        return any(p.trainable for p in self.named_arrays().values())

    @trainable.setter
    def trainable(self, trainable: bool) -> None:
        own = [p for p in self.named_arrays().values() if not p.buffer]
        if not own:
            raise OptionError(
                f"{type(self).__name__}.trainable: it has no parameters yet; set it after the "
                "layers are made, or call an attribute of your own something else"
            )
        for parameter in own:
            parameter.trainable = trainable

    requires_grad = trainable

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """PyTorch's name for freezing (False) and unfreezing (True) all parameters."""
        self.trainable = requires_grad
        return self

    # ---------------------------------------------------------------- contents

    def initialize(self, seed: int = 0) -> None:
        """Give all parameters their initial contents, drawn from `seed`."""
        for parameter in self.named_arrays().values():
            parameter.initialize(seed)

    def store(self, dtype: str | None = None, seed: int | None = None) -> ParameterStore:
        """The flat memory of all parameters; made on the first call.

        A part of a model shares the memory of the whole. Where parts have memory already, or that
        of another element type, it is made anew for all that share it, and the contents move.

        Args:
            dtype: "float32" or "float64"; None: as it is, float32 for a new model.
            seed: what parameters are drawn from to which nothing was assigned yet, and for which
                nobody chose a seed before; None: nobody has chosen, seed 0 for the time being.
        """
        arrays = self.named_arrays()
        current: ParameterStore | None = self.__dict__.get("_store")
        found = _common(arrays, current, dtype)
        if found is None:
            with building:  # so that two threads don't make two
                found = _common(arrays, current, dtype) or self._gather(arrays, dtype)
        found.chosen = found.chosen or dtype is not None
        if seed is not None:
            found.settle(arrays.items(), seed)
        if found is not current:
            self.__dict__["_store"] = found
            self.__dict__.pop("_predictor", None)
        return found

    def _gather(self, arrays: dict[str, Parameter], dtype: str | None) -> ParameterStore:
        """A new store for this model, those it is a part of, and all that shared theirs."""
        everything: dict[int, tuple[str, Stored]] = {}
        for root in structure.roots(self):
            for name, parameter in root.named_arrays().items():
                everything.setdefault(id(parameter), (name, parameter))
        for name, parameter in arrays.items():
            everything.setdefault(id(parameter), (name, parameter))
        for _, stored in list(everything.values()):
            if stored.home is not None:
                for other in stored.home.members:
                    everything.setdefault(id(other), (other.name, other))
        return ParameterStore(everything.values(), dtype or _widest(arrays.values()))

    def memory(self) -> ParameterStore | None:
        """The store that the parameters have, or None if none was made yet."""
        homes = {id(p.home): p.home for p in self.named_arrays().values()}
        return next(iter(homes.values())) if len(homes) == 1 else None

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers by name; a shared one once, under its first name."""
        self.store()
        return {name: np.array(p) for name, p in self.named_arrays().items()}

    def load_state_dict(
        self, arrays: Mapping[str, Any], strict: bool = True, prefix: str = ""
    ) -> Loaded:
        """Set parameters and buffers from arrays by name, such as PyTorch's ``state_dict()``.

        PyTorch's ``num_batches_tracked`` is left out, and a shared parameter may come under any of
        its names, or under all.

        Args:
            arrays: NumPy arrays, PyTorch's tensors, or anything else that NumPy makes an array of.
            strict: whether the names have to match exactly. False: what is missing stays as it is,
                what is unknown is left out; both are returned.
            prefix: take only the names that begin with it, without it: "encoder." for a part of a
                larger model's dict.

        Returns:
            Two lists of names, `missing_keys` and `unexpected_keys`.

        Raises:
            DataError: names or shapes don't fit, not even one with ``strict=False``, or what comes
                are no numbers. Nothing is changed.

        >>> from fastnn import nn
        >>> nn.Linear(2, 1).load_state_dict({"weight": [[1.0, 2.0]]}, strict=False)
        Loaded(missing_keys=['bias'], unexpected_keys=[])
        """
        mine = self.named_arrays()
        given = structure.fitting_names(self._other_names(), arrays, prefix)
        missing = [n for n in mine if n not in given]
        unexpected = [n for n in given if n not in mine]
        problems = [f"missing {n!r}" for n in missing] if strict else []
        problems += [f"unexpected {n!r}" for n in unexpected] if strict else []
        found = {n: numbers(given[n], repr(n)) for n in mine if n in given}
        problems += [
            f"{n!r}: expected shape {mine[n].shape}, got {a.shape}"
            for n, a in found.items()
            if a.shape != mine[n].shape
        ]
        if not found and mine and not problems:
            problems = [f"none of {list(mine)} is among them"]
        if problems:
            raise DataError(
                "the arrays don't fit the model: " + "; ".join(problems) + ". See the options "
                "prefix and strict"
            )
        for name, array in found.items():
            mine[name].check_range(array)
        for name, array in found.items():
            mine[name].value = array
        return Loaded(missing, unexpected)

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: not the memory, nor what runs the model."""
        return {k: v for k, v in self.__dict__.items() if k not in structure.OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for _, part in structure.held(self):
            structure.adopt(self, part)
        structure.touch(self)

    # ---------------------------------------------------------------- use

    def to(self, target: Any) -> Module:
        """Choose the device that the model runs on, or its element type.

        Args:
            target: "cpu", "cuda", "cuda:1", or "auto" (see `Trainer`): the parameters move when
                they are next used. Or "float32" or "float64": they are converted at once, with all
                models that share them; trainers and steps have to be made anew then.

        Raises OptionError where the device can't be had, saying why.
        """
        from fastnn.runtime import devices

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
        """What runs the model forward; kept from call to call, until something changes."""
        if "_predictor" not in self.__dict__:
            with building:  # the first calls of several threads
                return self._own_predictor()
        return self._own_predictor()

    def _own_predictor(self) -> Predictor:
        from fastnn.engine.predictor import Predictor

        watch: structure.Watch | None = self.__dict__.get("_watch")
        found: Predictor | None = self.__dict__.get("_predictor")
        if found is None or watch is None or watch.changed() or found.session.store.stale:
            found = None
            device = self.store().device
        else:
            device = found.session.store.device
        if found is None or found.session.device != device:
            found = Predictor(self)
            self.__dict__["_watch"] = structure.Watch(self)
            self.__dict__["_predictor"] = found
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
                `fastnn.cuda.DeviceArray`, which CuPy and PyTorch take without a copy.

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
        from fastnn.nn.saving import save_model

        save_model(self, path)

    def load(self, path: str | Path, strict: bool = True, prefix: str = "") -> Module:
        """Read parameters and buffers from a safetensors file: one that `save` or a trainer wrote,
        or weights from elsewhere, such as PyTorch's (also in float16 and bfloat16).

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
                inputs; needed where no layer tells it.
            dtype: element type of the input ("int64" for token ids), or a list, one for each.
            print_fn: what is called once with the whole text instead of `print`: the `append` of a
                list, say, or a logger's `info`. See also `fastnn.nn.summary.summarize`, which
                returns it.

        Raises:
            OptionError: no layer tells the input's shape, or `dtype` is unknown.
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
        from fastnn.nn.summary import summarize

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
        if not children:
            return f"{type(self).__name__}({self.extra()})"
        return f"{type(self).__name__}(\n" + "\n".join(children) + "\n)"


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


def _common(
    arrays: Mapping[str, Parameter], current: ParameterStore | None, dtype: str | None
) -> ParameterStore | None:
    """The store of all these parameters, if they are in one of this element type."""
    homes = {id(p.home): p.home for p in arrays.values()} if arrays else {0: current}
    found = next(iter(homes.values())) if len(homes) == 1 else None
    return found if found is not None and dtype in (None, found.dtype) else None


def _widest(parameters: Iterable[Parameter]) -> str:
    kinds = {p._dtype if p.home is None else p.home.dtype for p in parameters}
    return "float64" if "float64" in kinds else "float32"
