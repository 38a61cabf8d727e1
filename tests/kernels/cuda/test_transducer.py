"""The transducer's loss on CUDA, against the CPU's kernels as plain Python."""

from __future__ import annotations

import numpy as np

from fastnn.kernels.declare import CUDA_KERNELS, KERNELS
from fastnn.testing.kernels import call_cuda
from tests.kernels.common import close, poisoned


def test_loss_and_gradient() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 3, 3)).astype(np.float32)
    given = dict(x=x, target=np.array([[1, 2], [2, 0]]), lengths=np.array([3, 2]))
    given |= dict(target_lengths=np.array([2, 1]), blank=0, mean=1)
    dloss, results = np.float32([1.5, -0.5]), []
    for table, run, more in (
        (CUDA_KERNELS, call_cuda, {}),
        (KERNELS, lambda kernel, **k: kernel(**k), {"lo": 0, "hi": 2}),
    ):
        loss, norm = (poisoned(s, np.float32, 0xFF)[0] for s in ((2,), (2, 3, 3, 2)))
        dx = poisoned(x.shape, np.float32, 0xFF)[0]
        alpha, beta = (poisoned((2, 3, 3), np.float64, 0xFF)[0] for _ in range(2))
        kept = dict(loss=loss, norm=norm, alpha=alpha)
        run(table["transducer_forward"], **given, **kept, **more)
        run(table["transducer_backward"], **given, **kept, dloss=dloss, dx=dx, beta=beta, **more)
        results.append((loss, dx))
    for a, b in zip(*results, strict=True):
        assert np.isfinite(a).all()
        close(a, b, np.float32, factor=5)
