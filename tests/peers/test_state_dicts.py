"""Weights to and from PyTorch's state dicts, of each layer that has some: the same numbers give the
same outputs, and come back to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastnn import nn

torch = pytest.importorskip("torch", reason="PyTorch is not installed (pip install torch)")
pytestmark = pytest.mark.peers

#: label -> layer of either library, from the module that has it; shape of an input
LAYERS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "1-D": (lambda m: m.Conv1d(6, 4, 3, padding=1, groups=2), (2, 6, 7)),
    "2-D": (lambda m: m.Conv2d(3, 5, (3, 2), bias=False), (2, 3, 6, 5)),
    "depthwise": (lambda m: m.Conv2d(5, 10, 3, groups=5), (2, 5, 6, 5)),
    "transposed 1-D": (lambda m: m.ConvTranspose1d(6, 4, 3, stride=2, groups=2), (2, 6, 7)),
    "transposed 2-D": (
        lambda m: m.ConvTranspose2d(3, 5, (3, 2), stride=2, output_padding=1), (2, 3, 4, 5),
    ),
    "batch norm": (lambda m: m.BatchNorm2d(4), (2, 4, 3, 5)),
    "batch norm over time": (lambda m: m.BatchNorm1d(4, affine=False), (2, 4, 3)),
    "group norm": (lambda m: m.GroupNorm(2, 4), (2, 4, 3, 5)),
    "instance norm": (
        lambda m: m.InstanceNorm1d(4, affine=True), (2, 4, 6),
    ),
    "instance norm, tracked": (
        lambda m: m.InstanceNorm2d(4, track_running_stats=True), (2, 4, 3, 5),
    ),
    "weight norm": (lambda m: weight_norm(m, m.Conv2d(3, 4, 3)), (2, 3, 5, 5)),
    "weight norm, transposed": (
        lambda m: weight_norm(m, m.ConvTranspose1d(3, 4, 3)), (2, 3, 5),
    ),
    "spectral norm": (lambda m: spectral_norm(m, m.Conv1d(3, 4, 3)), (2, 3, 5)),
    "spectral norm, transposed": (
        lambda m: spectral_norm(m, m.ConvTranspose2d(3, 4, 3)), (2, 3, 5, 5),
    ),
}  # fmt: skip


def weight_norm(module: Any, layer: Any) -> Any:
    if module is nn:
        return nn.WeightNorm(layer)
    return torch.nn.utils.parametrizations.weight_norm(layer)


def spectral_norm(module: Any, layer: Any) -> Any:
    if module is nn:
        return nn.SpectralNorm(layer)
    return torch.nn.utils.parametrizations.spectral_norm(layer)


@pytest.mark.parametrize("name", LAYERS)
def test_there_and_back(name: str) -> None:
    make, shape = LAYERS[name]
    ours, theirs = (m.Sequential(m.Identity(), make(m)) for m in (nn, torch.nn))
    theirs.eval()
    rng = np.random.default_rng(0)
    state = {
        n: torch.tensor(rng.uniform(0.2, 1.0, t.shape).astype(np.float32))
        for n, t in theirs.state_dict().items()
        if t.ndim
    }
    theirs.load_state_dict(state, strict=False)
    assert ours.load_state_dict(theirs.state_dict()) == ([], [])
    x = rng.normal(size=shape).astype(np.float32)
    want = theirs(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(ours.predict(x), want, rtol=1e-5, atol=1e-6 * abs(want).max())
    back = ours.state_dict(pytorch=True)
    assert back.keys() == state.keys()
    for n, array in back.items():
        np.testing.assert_array_equal(array, state[n].numpy())
    missing, unexpected = theirs.load_state_dict(
        {n: torch.tensor(a) for n, a in back.items()}, strict=False
    )
    assert not unexpected
    assert all(n.endswith("num_batches_tracked") for n in missing)
