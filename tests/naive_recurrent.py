"""The oracle of recurrent nets: plain loops over sequences and steps in float64 NumPy.

Weights are [I, G] and [H, G] with PyTorch's order of gates. Imports nothing of fastnn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Array = np.ndarray
#: (sums of x, sums of h, weight, states, extra) -> new states; the first one is the output
Cell = Callable[[Array, Array, dict[str, Array], list[Array]], list[Array]]


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


ACTIVATIONS = (np.tanh, lambda x: np.maximum(x, 0.0), sigmoid)


def rnn_cell(activation: int) -> Cell:
    def cell(zx: Array, zh: Array, w: dict[str, Array], states: list[Array]) -> list[Array]:
        return [ACTIVATIONS[activation](zx + zh)]

    return cell


def lstm_cell(zx: Array, zh: Array, w: dict[str, Array], states: list[Array]) -> list[Array]:
    c = states[1]
    zi, zf, zg, zo = np.split(zx + zh, 4)
    pi, pf, po = np.split(w["peephole"], 3) if "peephole" in w else (0.0, 0.0, 0.0)
    after = sigmoid(zf + pf * c) * c + sigmoid(zi + pi * c) * np.tanh(zg)
    return [sigmoid(zo + po * after) * np.tanh(after), after]


def gru_cell(reset_before: bool) -> Cell:
    def cell(zx: Array, zh: Array, w: dict[str, Array], states: list[Array]) -> list[Array]:
        h = states[0]
        (xr, xz, xn), (hr, hz, hn) = np.split(zx, 3), np.split(zh, 3)
        r, z = sigmoid(xr + hr), sigmoid(xz + hz)
        if reset_before:
            size = len(h)
            n = np.tanh(xn + (r * h) @ w["w_hh"][:, 2 * size :] + w["b_hh"][2 * size :])
        else:
            n = np.tanh(xn + r * hn)
        return [(1.0 - z) * n + z * h]

    return cell


def sequence(
    cell: Cell, x: Array, w: dict[str, Array], states: list[Array], lengths: Array, reverse: bool
) -> tuple[Array, list[Array]]:
    """Outputs of all steps (zero past the end) and the final states of all sequences."""
    batch, steps, _ = x.shape
    y = np.zeros((batch, steps, states[0].shape[1]))
    finals = [np.array(s, np.float64) for s in states]
    for b in range(batch):
        now = [s[b] for s in finals]
        order = range(int(lengths[b]))
        for t in reversed(order) if reverse else order:
            zx = x[b, t] @ w["w_ih"] + w["b_ih"]
            zh = now[0] @ w["w_hh"] + w["b_hh"]
            now = cell(zx, zh, w, now)
            y[b, t] = now[0]
        for final, value in zip(finals, now, strict=True):
            final[b] = value
    return y, finals


def leaky(
    x: Array, keep: float, state: Array, lengths: Array, reverse: bool
) -> tuple[Array, Array]:
    """y_t = (1 - keep) x_t + keep y_(t-1)."""
    y, final = np.zeros(x.shape), np.array(state, np.float64)
    for b in range(len(x)):
        order = range(int(lengths[b]))
        for t in reversed(order) if reverse else order:
            final[b] = (1.0 - keep) * x[b, t] + keep * final[b]
            y[b, t] = final[b]
    return y, final


def scrn(
    x: Array, w: dict[str, Array], h0: Array, s0: Array, alpha: float, lengths: Array
) -> tuple[Array, Array]:
    """Outputs h and s of the structurally constrained net: w has B, A, P, R (inputs x units)."""
    h, s = np.array(h0, np.float64), np.array(s0, np.float64)
    hs, ss = np.zeros((*x.shape[:2], h.shape[1])), np.zeros((*x.shape[:2], s.shape[1]))
    for b in range(len(x)):
        for t in range(int(lengths[b])):
            s[b] = (1.0 - alpha) * (x[b, t] @ w["B"]) + alpha * s[b]
            h[b] = sigmoid(x[b, t] @ w["A"] + s[b] @ w["P"] + h[b] @ w["R"])
            hs[b, t], ss[b, t] = h[b], s[b]
    return hs, ss
