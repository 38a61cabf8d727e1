"""Averaged parameters of an optimiser that keeps some: put in the parameters' place, and back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.engine.access import Access, access_to
from fastnn.errors import OptionError

if TYPE_CHECKING:
    from fastnn.train.base import Training


def begin(owner: Training) -> None:
    """Before the first step: the slots that begin as copies of the parameters."""
    for slot in owner.optimizer.copied:
        owner.session.memory[f"slots/{slot}"][...] = owner.session.runtime.read("params")


def averaged_values(owner: Training) -> np.ndarray | None:
    """The averages in the order of the parameters' memory; None where there are none."""
    runtime, optimizer = owner.session.runtime, owner.optimizer
    slots = {slot: runtime.read(f"slots/{slot}") for slot in optimizer.slots}
    found = optimizer.averages(runtime.read("params"), slots)
    return None if found is None else np.array(found, owner.store.dtype)


def swap_in(owner: Training) -> None:
    """Put the averages in the parameters' place; what was there is kept aside."""
    values = averaged_values(owner)
    if values is not None and owner.aside is None:
        owner.aside = owner.session.runtime.save(["params"])
        owner.session.memory["params"][...] = values
        owner._rates_changed()  # so that a step asks whether they are in place


def swap_out(owner: Training) -> None:
    """Put back what was kept aside."""
    if owner.aside is not None:
        owner.session.runtime.restore(owner.aside)
        owner.aside = None


def refuse_aside(owner: Training, what: str) -> None:
    """Nothing trains or saves a run while averages stand in the parameters' place."""
    if owner.aside is not None:
        raise OptionError(
            f"{what}: the averages are in the parameters' place; leave the block of "
            "`with averaged():` first"
        )


@contextmanager
def averaged(owner: Training) -> Iterator[Any]:
    """What `Training.averaged` does."""
    if owner.optimizer.averages(np.zeros(1), dict.fromkeys(owner.optimizer.slots, 0.0)) is None:
        raise OptionError(
            f"averaged: {type(owner.optimizer).__name__} keeps no averages; train with "
            "optim.EMA(...), SWA(...), ASGD or ScheduleFreeAdamW"
        )
    refuse_aside(owner, "averaged")
    _turn(owner, swap_in)
    try:
        yield owner.model
    finally:
        _turn(owner, swap_out)


def _turn(owner: Training, change: Any) -> None:
    turn = access_to(owner.store).train(Access("averaged", sys._getframe()))
    try:
        change(owner)
    finally:
        turn.end()
