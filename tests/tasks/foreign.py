"""A description of another training, of the same sizes, beside a checkpoint."""

import json

import pytest

from fastnn.engine.container import head
from fastnn.errors import DataError


def refused(load, folder, change, marked=True):
    """A description that differs is refused, and the right one accepted again.

    `load` reads a folder; `change` changes what its description holds; `marked` says whether the
    training has marked its checkpoints.
    """
    assert ("description" in head(folder / "model.safetensors")) == marked
    path = folder / "model.json"
    text = path.read_text()
    state = json.loads(text)
    change(state)
    path.write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"model\.json: expected .* got that of another training"):
        load(folder)
    path.write_text(text)
    load(folder)


def another_order(name):
    """A change: symbols in another order."""
    return lambda state: state[name].append(state[name].pop(-2))
