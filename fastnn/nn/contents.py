"""The numbers that a module's parameters hold: their memory, and setting and copying them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fastnn.engine.access import Access, access_to, building
from fastnn.engine.model import Stateful
from fastnn.engine.numbers import numbers
from fastnn.engine.store import ParameterStore, Stored
from fastnn.errors import DataError
from fastnn.nn import structure
from fastnn.nn.parameter import Parameter
from fastnn.nn.tree import Tree


class Loaded(NamedTuple):
    """What `Module.load_state_dict` did not find, and what it did not use."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Contents(Tree):
    """Base of `Module`: what its parameters hold."""

    def initialize(self, seed: int = 0) -> None:
        """Give all parameters their initial contents, drawn from `seed`."""
        for parameter in self.named_arrays().values():
            parameter.initialize(seed)

    def store(self, dtype: str | None = None, seed: int | None = None) -> ParameterStore:
        """The flat memory of all parameters; made on the first call.

        A part of a model shares the memory of the whole. If parts already have memory of their own,
        or memory of another element type, new memory is made for everything that shares it, and the
        contents are moved there.

        Args:
            dtype: "float32" or "float64"; None keeps the present type (float32 for a new model).
            seed: the seed for parameters that have not been assigned and for which no seed has been
                chosen yet; None leaves the choice open (seed 0 until then).
        """
        arrays = self.named_arrays()
        current: ParameterStore | None = self.__dict__.get("_store")
        found = _common(arrays, current, dtype)
        if found is None:
            with building:  # so that two threads don't make two
                found = _common(arrays, current, dtype) or self._gather(arrays, dtype)
        found.chosen = found.chosen or dtype is not None
        if seed is not None:
            found.fill(arrays.items(), seed)
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
            if stored.store is not None:
                for other in stored.store.members:
                    everything.setdefault(id(other), (other.name, other))
        return ParameterStore(everything.values(), dtype or _widest(arrays.values()))

    def memory(self) -> ParameterStore | None:
        """The store that holds the parameters, or None if there is none yet."""
        stores = {id(p.store): p.store for p in self.named_arrays().values()}
        return next(iter(stores.values())) if len(stores) == 1 else None

    def state_dict(self, pytorch: bool = False) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers by name; a shared one once, under its first name.

        Args:
            pytorch: whether those of `WeightNorm` and `SpectralNorm` have the names and shapes that
                PyTorch's `parametrizations` give them. (All others have PyTorch's anyway, and
                `load_state_dict` takes either.)

        Raises:
            BusyError: another thread is training the model (it waits for the end of a single step).
        """
        turn = access_to(self.store()).read(Access("state_dict", sys._getframe()))
        try:
            found = {name: np.array(p) for name, p in self.named_arrays().items()}
        finally:
            turn.end()
        other = self._in_pytorch() if pytorch else {}
        places = {n: other.get(n, (n, a.shape)) for n, a in found.items()}
        return {places[n][0]: a.reshape(places[n][1]) for n, a in found.items()}

    def load_state_dict(
        self, arrays: Mapping[str, Any], strict: bool = True, prefix: str = ""
    ) -> Loaded:
        """Set parameters and buffers from arrays by name, such as PyTorch's ``state_dict()``.

        PyTorch's ``num_batches_tracked`` is left out, and a shared parameter may appear under any
        or all of its names.

        Args:
            arrays: NumPy arrays, PyTorch's tensors, or anything else that NumPy makes an array of.
            strict: whether the names must match exactly. If False, missing parameters keep their
                values and unknown ones are ignored; both are returned. States that a `stateful`
                layer carried for another number of sequences are ignored too: they start as zeros.
            prefix: load only the names that begin with this, and strip it: "encoder." for part of a
                larger model's dict.

        Returns:
            Two lists of names, `missing_keys` and `unexpected_keys`.

        Raises:
            DataError: names or shapes do not fit, no name fits with ``strict=False``, or values are
                not numbers. Nothing is changed.
            BusyError: another thread is training the model. Nothing is changed.

        >>> from fastnn import nn
        >>> nn.Linear(2, 1).load_state_dict({"weight": [[1.0, 2.0]]}, strict=False)
        Loaded(missing_keys=['bias'], unexpected_keys=[])
        """
        mine = self.named_arrays()
        pytorch = self._in_pytorch()
        others = self._other_names() | {theirs: n for n, (theirs, _) in pytorch.items()}
        given = structure.fitting_names(others, arrays, prefix)
        missing = [n for n in mine if n not in given]
        unexpected = [n for n in given if n not in mine]
        problems = [f"missing {n!r}" for n in missing] if strict else []
        problems += [f"unexpected {n!r}" for n in unexpected] if strict else []
        found = {n: numbers(given[n], repr(n)) for n in mine if n in given}
        for n, (_, shape) in pytorch.items():
            if n in found and found[n].shape == shape:
                found[n] = found[n].reshape(mine[n].shape)
        carried = [n for n in self._carried() if n in found and _other_rows(found[n], mine[n])]
        if not strict:
            found |= {n: np.zeros(mine[n].shape) for n in carried}
        problems += [
            f"{n!r}: expected shape {mine[n].shape}, got {a.shape}"
            for n, a in found.items()
            if a.shape != mine[n].shape
        ]
        if not found and mine and not problems:
            problems = [f"none of {list(mine)} is among them"]
        if problems:
            remedy = "See the options prefix and strict"
            if carried:
                remedy = "States carried for another number of sequences are left out: strict=False"
            raise DataError(f"the arrays don't fit the model: {'; '.join(problems)}. {remedy}")
        for name, array in found.items():
            mine[name].check_range(array)
        self._set(found)
        return Loaded(missing, unexpected)

    def _set(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set parameters and buffers, all of them between two steps of another thread."""
        mine, store = self.named_arrays(), self.memory()
        turn = None if store is None else access_to(store).train(Access("loading", sys._getframe()))
        try:
            for name, array in arrays.items():
                mine[name].value = array
        finally:
            if turn is not None:
                turn.end()

    def _carried(self) -> list[str]:
        """Names of the states that layers carry from batch to batch."""
        parts = {n: p for n, p in self.named_modules() if isinstance(p, Stateful) and p.stateful}
        return [
            name
            for name, array in self.named_arrays().items()
            if array.buffer
            and (part := parts.get(name.rpartition(".")[0])) is not None
            and array.shape[:1] == (part.stateful,)
        ]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy is made of: not the memory, nor what runs the model."""
        return {k: v for k, v in self.__dict__.items() if k not in structure.OWN}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for _, part in structure.held(self):
            structure.adopt(self, part)
        structure.touch(self)


def _common(
    arrays: Mapping[str, Parameter], current: ParameterStore | None, dtype: str | None
) -> ParameterStore | None:
    """The store of all these parameters, if they are in one of this element type."""
    stores = {id(p.store): p.store for p in arrays.values()} if arrays else {0: current}
    found = next(iter(stores.values())) if len(stores) == 1 else None
    return found if found is not None and dtype in (None, found.dtype) else None


def _widest(parameters: Iterable[Parameter]) -> str:
    kinds = {p._dtype if p.store is None else p.store.dtype for p in parameters}
    return "float64" if "float64" in kinds else "float32"


def _other_rows(array: np.ndarray, mine: Parameter) -> bool:
    """Whether an array fits but for the number of its rows."""
    return array.shape != mine.shape and array.shape[1:] == mine.shape[1:]
