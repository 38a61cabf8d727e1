"""Steps of optimisers, written from their papers in float64 NumPy; see `tests/naive.py`.

A step takes p, g, the state (a dict that is empty at first), the rate and the step from 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray
State = dict[str, Any]


def adamax(
    p: Array, g: Array, s: State, lr: float, t: int, beta1: float = 0.9, beta2: float = 0.999,
    eps: float = 1e-8,
) -> Array:  # fmt: skip
    """Kingma & Ba 2015, algorithm 2, with PyTorch's epsilon."""
    s["m"] = beta1 * s.get("m", 0.0) + (1 - beta1) * g
    s["u"] = np.maximum(beta2 * s.get("u", np.zeros_like(p)), np.abs(g) + eps)
    return p - lr / (1 - beta1**t) * s["m"] / s["u"]


def nadam(
    p: Array, g: Array, s: State, lr: float, t: int, beta1: float = 0.9, beta2: float = 0.999,
    eps: float = 1e-8, decay: float = 4e-3,
) -> Array:  # fmt: skip
    """Dozat 2016, algorithm 2."""
    mu, after = (beta1 * (1 - 0.5 * 0.96 ** (k * decay)) for k in (t, t + 1))
    s["product"] = s.get("product", 1.0) * mu
    s["m"] = beta1 * s.get("m", 0.0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0.0) + (1 - beta2) * g * g
    mean = after * s["m"] / (1 - s["product"] * after) + (1 - mu) * g / (1 - s["product"])
    return p - lr * mean / (np.sqrt(s["v"] / (1 - beta2**t)) + eps)


def radam(
    p: Array, g: Array, s: State, lr: float, t: int, beta1: float = 0.9, beta2: float = 0.999,
    eps: float = 1e-8,
) -> Array:  # fmt: skip
    """Liu et al. 2020, algorithm 2, with the border 5."""
    s["m"] = beta1 * s.get("m", 0.0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0.0) + (1 - beta2) * g * g
    mean = s["m"] / (1 - beta1**t)
    last = 2 / (1 - beta2) - 1
    rho = last - 2 * t * beta2**t / (1 - beta2**t)
    if rho <= 5:
        return p - lr * mean
    r = np.sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
    return p - lr * mean * r * np.sqrt(1 - beta2**t) / (np.sqrt(s["v"]) + eps)


def lion(
    p: Array, g: Array, s: State, lr: float, t: int, beta1: float = 0.9, beta2: float = 0.99
) -> Array:
    """Chen et al. 2023, algorithm 2."""
    c = beta1 * s.get("m", 0.0) + (1 - beta1) * g
    s["m"] = beta2 * s.get("m", 0.0) + (1 - beta2) * g
    return p - lr * np.sign(c)


def rprop(
    p: Array, g: Array, s: State, lr: float, t: int, down: float = 0.5, up: float = 1.2,
    smallest: float = 1e-6, largest: float = 50.0, backtracking: bool = True,
) -> Array:  # fmt: skip
    """Riedmiller & Braun 1993, eqs. 4 to 6; without backtracking Igel & Hüsken 2000, algorithm 4.

    Sizes are kept in units of the rate, so that a schedule scales them."""
    before, size, d = (s.get(n, np.full_like(p, v)) for n, v in
                       (("g", 0.0), ("size", 1.0), ("d", 0.0)))  # fmt: skip
    p, g, size = p.copy(), g.copy(), size * lr
    d = d.copy()
    for i in np.ndindex(p.shape):
        if g[i] * before[i] > 0:
            size[i] = min(max(size[i] * up, smallest), largest)
        elif g[i] * before[i] < 0:
            size[i] = min(max(size[i] * down, smallest), largest)
            if backtracking:
                d[i] = -d[i]
                p[i] += d[i]
                g[i] = 0
                continue
            g[i] = 0
        else:
            size[i] = min(max(size[i], smallest), largest)
        d[i] = -np.sign(g[i]) * size[i]
        p[i] += d[i]
    s.update(g=g, size=size / lr, d=d)
    return p


def irprop(*args: Any, **options: Any) -> Array:
    return rprop(*args, **options, backtracking=False)


def quickprop(p: Array, g: Array, s: State, lr: float, t: int, mu: float = 1.75) -> Array:
    """Fahlman 1988, with the cases of his program (update_weights), weight by weight."""
    zero, shrink = np.zeros_like(p), mu / (1 + mu)
    before, step = s.get("g", zero), s.get("d", zero)
    d = np.zeros_like(p)
    for i in np.ndindex(p.shape):
        slope, first, last = g[i], before[i], step[i]
        if last < 0:
            if slope > 0:
                d[i] -= lr * slope
            if slope >= shrink * first:
                d[i] += mu * last
            else:
                d[i] += last * slope / (first - slope)
        elif last > 0:
            if slope < 0:
                d[i] -= lr * slope
            if slope <= shrink * first:
                d[i] += mu * last
            else:
                d[i] += last * slope / (first - slope)
        else:
            d[i] -= lr * slope
    s.update(g=g, d=d)
    return p + d


def delta_bar_delta(
    p: Array, g: Array, s: State, lr: float, t: int, up: float = 0.05, down: float = 0.95,
    smallest: float = 0.1, largest: float = 10.0, theta: float = 0.0,
) -> Array:  # fmt: skip
    """Jacobs 1988, eqs. 7 and 8, with gains in place of rates."""
    average = s.get("average", np.zeros_like(p))
    gain = s.get("gain", np.ones_like(p))
    same = average * g
    gain = np.where(same > 0, gain + up, np.where(same < 0, gain * down, gain))
    s["gain"] = np.clip(gain, smallest, largest)
    s["average"] = theta * average + (1 - theta) * g
    return p - lr * s["gain"] * g


def asgd(
    p: Array, g: Array, s: State, lr: float, t: int, lambd: float = 1e-4, alpha: float = 0.75,
    t0: float = 1e6,
) -> Array:  # fmt: skip
    """Bottou's rates and the average of Polyak & Juditsky 1992."""
    eta = lr / (1 + lambd * lr * (t - 1)) ** alpha
    p = (1 - lambd * eta) * p - eta * g
    average = s.get("average", np.zeros_like(p))
    s["average"] = average + (p - average) / max(1, t - 1 - t0)
    return p


def schedule_free_adamw(
    p: Array, g: Array, s: State, lr: float, t: int, beta1: float = 0.9, beta2: float = 0.999,
    eps: float = 1e-8, decay: float = 0.0, warmup: int = 0,
) -> Array:  # fmt: skip
    """Defazio et al. 2024, algorithm 1, with x and z; p is y."""
    x, z = s.get("x", p), s.get("z", p)
    rate = lr * min(1.0, t / warmup) if warmup else lr
    s["v"] = beta2 * s.get("v", 0.0) + (1 - beta2) * g * g
    d = g / (np.sqrt(s["v"] / (1 - beta2**t)) + eps) + decay * p
    z = z - rate * d
    s["sum"] = s.get("sum", 0.0) + rate**2
    c = rate**2 / s["sum"]
    x = (1 - c) * x + c * z
    s.update(x=x, z=z, average=x)
    return (1 - beta1) * z + beta1 * x


def averaged(inner: Any, weight: Any) -> Any:
    """A step beside which an average is kept; `weight` gives what a step's point counts in it."""

    def step(p: Array, g: Array, s: State, lr: float, t: int) -> Array:
        p = inner(p, g, s, lr, t)
        average = s.get("average", p)
        s["average"] = average + weight(t) * (p - average)
        return p

    return step


def swa_weight(start: int, every: int) -> Any:
    """Izmailov et al. 2018, algorithm 1: the average's new point counts 1 / (n + 1)."""

    def weight(t: int) -> float:
        if t <= start:
            return 1.0
        count = (t - start) // every
        return 1 / (count + 1) if (t - start) % every == 0 else 0.0

    return weight


def lookahead(inner: Any, k: int = 5, alpha: float = 0.5) -> Any:
    """Zhang et al. 2019, algorithm 1."""

    def step(p: Array, g: Array, s: State, lr: float, t: int) -> Array:
        slow = s.setdefault("slow", p)
        p = inner(p, g, s, lr, t)
        if t % k == 0:
            p = s["slow"] = slow + alpha * (p - slow)
        return p

    return step


def lamb(
    p: Array, g: Array, s: State, lr: float, t: int, beta1: float = 0.9, beta2: float = 0.999,
    eps: float = 1e-6, decay: float = 0.0,
) -> Array:  # fmt: skip
    """You et al. 2020, algorithm 2."""
    s["m"] = beta1 * s.get("m", 0.0) + (1 - beta1) * g
    s["v"] = beta2 * s.get("v", 0.0) + (1 - beta2) * g * g
    mean, square = s["m"] / (1 - beta1**t), s["v"] / (1 - beta2**t)
    r = mean / (np.sqrt(square) + eps) + decay * p
    above, below = np.linalg.norm(p), np.linalg.norm(r)
    return p - lr * (above / below if above > 0 and below > 0 else 1.0) * r


def rms(x: Array) -> float:
    return float(np.sqrt((x * x).mean()))


def adafactor(
    p: Array, g: Array, s: State, lr: float, t: int, decay_rate: float = 0.8,
    eps: float = 2.0**-23, scale_eps: float = 1e-3, threshold: float = 1.0,
) -> Array:  # fmt: skip
    """Shazeer & Stern 2018, algorithms 4 and 5, with PyTorch's epsilons."""
    rest = t**-decay_rate
    if p.ndim == 2:
        for name, axis in (("r", 1), ("c", 0)):
            s[name] = (1 - rest) * s.get(name, 0.0) + rest * (g * g).mean(axis)
        v = np.outer(s["r"], s["c"]) / max(s["r"].mean(), eps)
    else:
        v = s["v"] = (1 - rest) * s.get("v", 0.0) + rest * g * g
    u = g / np.sqrt(np.maximum(v, eps**2))
    rate = max(scale_eps, rms(p)) * min(lr, 1 / np.sqrt(t))
    return p - rate / max(1.0, rms(u) / threshold) * u


def muon(
    p: Array, g: Array, s: State, lr: float, t: int, momentum: float = 0.95,
    nesterov: bool = True, steps: int = 5, match_rms: bool = True, decay: float = 0.1,
    orthogonal: bool = True,
) -> Array:  # fmt: skip
    """Jordan et al. 2024; other parameters by AdamW (Loshchilov & Hutter 2019, algorithm 2)."""
    p = p - lr * decay * p
    if p.ndim != 2 or not orthogonal:
        s["m"] = 0.9 * s.get("m", 0.0) + 0.1 * g
        s["v"] = 0.999 * s.get("v", 0.0) + 0.001 * g * g
        return p - lr * s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-8)
    s["m"] = momentum * s.get("m", 0.0) + (1 - momentum) * g
    u = momentum * s["m"] + (1 - momentum) * g if nesterov else s["m"]
    left, values, right = np.linalg.svd(u / max(np.linalg.norm(u), 1e-7), full_matrices=False)
    for _ in range(steps):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    size = 0.2 * np.sqrt(max(p.shape)) if match_rms else np.sqrt(max(1, p.shape[0] / p.shape[1]))
    return p - lr * size * (left * values) @ right


def adasecant(
    p: Any, g: Any, s: Any, lr: float, t: int, decay: float = 0.95, clip: float = 1.8,
    eps: float = 1e-6,
) -> Any:  # fmt: skip
    """AdaSecant (Gulcehre & Bengio 2014, algorithm 1 with sections 2 to 5)."""
    zero = np.zeros_like(p)
    g = g / (np.sqrt((g**2).sum()) + eps)  # block normalisation
    tau = s.get("tau", np.full_like(p, 2.1))

    def running(name: str, value: Any) -> Any:
        s[name] = (1 - 1 / tau) * s.get(name, zero) + value / tau
        return s[name]

    s["m"] = decay * s.get("m", zero) + (1 - decay) * g
    s["m2"] = decay * s.get("m2", zero) + (1 - decay) * g**2
    m, c = s["m"], s.get("c", zero)
    top, bottom = running("top", ((g - c) * (c - m)) ** 2), running("bot", ((g - m) * (c - m)) ** 2)
    gamma = np.minimum(np.sqrt(top / (bottom + eps)), clip)
    s["c"] = (g + gamma * m) / (1 + gamma)
    a = g - s.get("g", zero)
    s["g"] = g
    a1, a2 = running("a", a), running("a2", a**2)
    if t == 1:
        s["d"], s["d2"] = g, g**2
    rate = np.sqrt((s["d2"] + eps) / (a2 + eps)) - s.get("ad", zero) / (a2 + eps)
    d = -lr * np.maximum(rate, 0.0) * s["c"]
    after = (1 - s["d"] ** 2 / (s["d2"] + eps)) * tau + 1
    far = (g - m) ** 2 > 4 * (s["m2"] - m**2)
    bent = (a - a1) ** 2 > 4 * (a2 - a1**2)
    s["tau"] = np.clip(np.where(far | bent, 2.2, after), 1.5, 1e8)
    running("d", d)
    running("d2", d**2)
    running("ad", a * d)
    return p + d


# ---------------------------------------------------------------- with a second gradient


def vsgd(
    p: Any, g: Any, second: Any, s: Any, lr: float, t: int, fd: bool = False, initial: int = 10,
    slow: float = 2.0, eps: float = 1e-3,
) -> Any:  # fmt: skip
    """vSGD-l (Schaul, Zhang & LeCun 2013, algorithm 1; eqs. 8 and 9), or vSGD-fd (Schaul & LeCun
    2013, algorithm 1). `second` is the gradient at p + `vsgd_shift`."""
    h = np.abs(second - g) / (np.abs(vsgd_shift(g, s)) + eps) + eps
    zero = np.zeros_like(p)
    if t <= initial:
        for name, value in (("g", g), ("v", g * g), ("h", h), ("h2", h * h)):
            s[name] = s.get(name, zero) + (value - s.get(name, zero)) / t
        if t == initial:
            s["v"], s["h"] = s["v"] * slow, s["h"] * slow
            s["h2"] = s["h2"] * slow**2
        s["tau"] = np.full_like(p, float(t))
        return p
    tau = s["tau"]
    if fd:
        far = (g - s["g"]) ** 2 > 4 * (s["v"] - s["g"] ** 2)
        bent = (h - s["h"]) ** 2 > 4 * (s["h2"] - s["h"] ** 2)
        tau = tau + (far | bent)
    for name, value in (("g", g), ("v", g * g), ("h", h), ("h2", h * h)):
        s[name] = (1 - 1 / tau) * s[name] + value / tau
    share = s["g"] ** 2 / (s["v"] + eps**2)
    s["tau"] = (1 - share) * tau + 1
    rate = share * s["h"] / s["h2"] if fd else share / s["h"]
    return p - lr * rate * g


def vsgd_shift(g: Any, s: Any) -> Any:
    """How far away the second gradient is taken: by the mean gradient so far."""
    return s.get("g", g)


# ---------------------------------------------------------------- beside any rule


def proximal_l1(p: Any, limit: float) -> Any:
    """sign(p) max(|p| - limit, 0) (Duchi & Singer 2009, equation 19)."""
    return np.sign(p) * np.maximum(np.abs(p) - limit, 0.0)


def max_norm(p: Any, limit: float) -> Any:
    """Rows of at most this length (Srivastava et al. 2014, section 5.1)."""
    p = np.array(p)
    if p.ndim < 2:
        return p
    for row in p.reshape(len(p), -1):
        size = np.sqrt((row**2).sum())
        if size > limit:
            row *= limit / size
    return p
