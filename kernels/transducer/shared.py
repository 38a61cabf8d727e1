"""The lattice of frames and labels, a node at a time, as both devices compute it.

A path begins at frame 0 with no label, writes a label (and stays at the frame) or a blank (and goes
to the next frame), and ends with the blank of the last frame. Scores are natural logarithms in
float64. `alpha` of a node is the sum over what leads to it, `beta` over what follows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ctc.decode import NEVER, either
from ..declare import helper


@helper
def score(x: Any, norm: Any, b: int, t: int, u: int, c: int) -> Any:
    """log softmax at a node; nothing is less than NEVER."""
    distance = np.float64(x[b, t, u, c]) - np.float64(norm[b, t, u, 0])
    return max(distance - np.float64(norm[b, t, u, 1]), np.float64(NEVER))


@helper
def forward_node(
    x: Any, target: Any, norm: Any, alpha: Any, b: int, t: int, u: int, blank: int
) -> None:
    """alpha[t,u] of the nodes before it."""
    total = np.float64(0.0) if t == 0 and u == 0 else np.float64(NEVER)
    if t > 0:
        total = either(total, alpha[b, t - 1, u] + score(x, norm, b, t - 1, u, blank))
    if u > 0:
        own = score(x, norm, b, t, u - 1, target[b, u - 1])
        total = either(total, alpha[b, t, u - 1] + own)
    alpha[b, t, u] = max(total, np.float64(NEVER))


@helper
def backward_node(
    x: Any, target: Any, norm: Any, beta: Any, b: int, t: int, u: int, frames: int, L: int,
    blank: int,
) -> None:  # fmt: skip
    """beta[t,u] of the nodes behind it."""
    own, total = score(x, norm, b, t, u, blank), np.float64(NEVER)
    if t + 1 < frames:
        total = either(total, beta[b, t + 1, u] + own)
    elif u == L:
        total = own
    if u < L:
        label = score(x, norm, b, t, u, target[b, u])
        total = either(total, beta[b, t, u + 1] + label)
    beta[b, t, u] = max(total, np.float64(NEVER))


@helper
def after_blank(beta: Any, b: int, t: int, u: int, frames: int, L: int) -> Any:
    """What follows a node's blank."""
    if t + 1 < frames:
        return beta[b, t + 1, u]
    return np.float64(0.0) if u == L else np.float64(NEVER)
