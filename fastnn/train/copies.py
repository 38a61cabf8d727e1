"""Copies of trainers and steps (`copy.deepcopy`, `pickle`, joblib), as independent as new ones.

A copy is made of the options, the model and what the optimiser remembers, by parameter. Memory,
bound programs and threads are made anew where the copy is; it goes on like the original, bit for
bit.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import numpy as np

from fastnn.engine.access import Access, access_to
from fastnn.engine.store import ParameterStore
from fastnn.errors import OptionError
from fastnn.nn.module import Module

State = dict[str, Any]


def contents(owner: Any, rebuilt: Collection[str]) -> State:
    """What a copy of a trainer or step is made of.

    Args:
        owner: it; it has a `model`, an `optimizer`, a `store` and a `session`.
        rebuilt: names of its attributes that a copy makes anew.
    """
    session = owner.session
    if session.running:
        raise OptionError(
            f"a {type(owner).__name__} cannot be copied while its steps are running; copy it "
            "between two calls, or in on_epoch_end"
        )
    owner.store.check()
    turn = access_to(owner.store).read(Access("a copy", sys._getframe()))
    try:
        return _contents(owner, rebuilt)
    finally:
        turn.end()


def _contents(owner: Any, rebuilt: Collection[str]) -> State:
    session = owner.session
    parameters = {n: p for n, p in owner.model.named_arrays().items() if p.store is owner.store}
    slots = {}
    for slot in owner.optimizer.arrays:
        flat = session.runtime.read(f"slots/{slot}")
        slots[slot] = {
            n: np.array(owner.store.view(flat, p)) for n, p in parameters.items() if not p.buffer
        }
    state = {name: value for name, value in vars(owner).items() if name not in rebuilt}
    state["_copied"] = {
        "workers": session.workers, "graphs": session.graphs, "slots": slots,
        "dtype": owner.store.dtype, "control": session.control.copy(),
        "totals": session.totals.copy(),
    }  # fmt: skip
    return state


def fill(owner: Any, copied: State) -> None:
    """Put the optimiser's memory and the control block of the original into the copy's session."""
    session, parameters = owner.session, owner.model.named_arrays()
    for slot, arrays in copied["slots"].items():
        flat = session.memory[f"slots/{slot}"]
        for name, array in arrays.items():
            owner.store.view(flat, parameters[name])[...] = array
    session.control[:] = copied["control"]
    session.totals[:] = copied["totals"]


def refuse_new_parameters(model: Module, store: ParameterStore, what: str) -> None:
    """Raise an error if the model has parameters that have no place in the store."""
    new = [name for name, p in model.named_arrays().items() if p.store is not store]
    if new:
        raise OptionError(
            f"the model has parameters that it had not when the {what} was made: "
            f"{', '.join(new)}; make a new {what} for the changed model"
        )
