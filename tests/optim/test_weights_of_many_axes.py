"""Whatever follows or precedes an update, of weights with three and four axes."""

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn, optim

OPTIONS = {
    "clip_norm": {"clip_norm": 0.05},
    "clip_global_norm": {"clip_global_norm": 0.05},
    "clip_value": {"clip_value": 0.01},
    "max_norm": {"max_norm": 0.3},
    "proximal_l1": {"proximal_l1": 0.01},
    "gradient_noise": {"gradient_noise": 0.1},
    "accumulate": {"accumulate": 2, "clip_global_norm": 0.05},
    "weight_decay": {"weight_decay": 0.1, "clip_norm": 0.05},
}
NETS = {
    "images": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(48, 2)),
        (2, 6, 6),
    ),
    "sequences": (
        lambda: nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2)),
        (2, 6),
    ),
}


def step_of(net, options, workers=1):
    make, shape = NETS[net]
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, *shape)), rng.integers(0, 2, 8)
    model = make()
    model.initialize(seed=1)
    trainer = fnn.Trainer(
        model, "cross_entropy", optim.SGD(lr=1.0, **options), workers=workers, dtype="float64"
    )
    before = {n: np.array(p.value) for n, p in model.named_parameters().items()}
    trainer.fit(x, y, epochs=2, batch_size=8, verbose=False)
    return {n: np.array(p.value) - before[n] for n, p in model.named_parameters().items()}


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("options", OPTIONS)
def test_options_take_weights_of_any_rank(options, net):
    found = step_of(net, OPTIONS[options])
    again = step_of(net, OPTIONS[options], workers=2)
    assert all(np.abs(change).max() > 0 for change in found.values())
    assert {n: c.tobytes() for n, c in found.items()} == {n: c.tobytes() for n, c in again.items()}


@pytest.mark.parametrize("net", NETS)
def test_the_global_norm_counts_every_weight(net):
    """Two steps of norm 0.05 each lead no further than 0.1, and the first exactly 0.05 away."""
    changes = step_of(net, {"clip_global_norm": 0.05})
    total = np.sqrt(sum((c**2).sum() for c in changes.values()))
    assert 0.09 < total <= 0.1 + 1e-9
