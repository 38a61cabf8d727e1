"""Full-batch methods, second derivatives, machines and dropout, each beside what they must match.

    python -m benchmarks.methods [ROW ...] [--rounds 5] [--results FOLDER]

Rows: lbfgs-evaluations and cg-evaluations (beside SciPy's), marquardt, hvp (beside JAX), lbfgs
(beside PyTorch), rbm (beside scikit-learn), partition (annealed beside exact) and dropout (beside
the average of sampled nets). One worker and one thread of the others; times are processor time of
sides that take turns, the least of the rounds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

import fastnn as fnn
from benchmarks import harness
from fastnn import nn, ops, optim
from fastnn.diagnostics import signals
from fastnn.pretrain import RBM

Found = dict[str, Any]
QUIET = {"verbose": False}


# ---------------------------------------------------------------- evaluations


def flat_problem(model: nn.Module, x: Any, y: Any) -> tuple[Callable[[Any], Any], Any]:
    """Mean square error and gradient as a function of a flat vector, and where it begins."""
    step = fnn.compile(model, "mse", dtype="float64")
    parameters = step.parameters

    def function(vector: np.ndarray) -> tuple[float, np.ndarray]:
        begin = 0
        for p in parameters.values():
            p.value = vector[begin : begin + p.size].reshape(p.shape)
            begin += p.size
        found = step.gradients(x, y)
        return step.evaluate(x, y), np.concatenate([found[n].reshape(-1) for n in parameters])

    return function, np.concatenate([p.value.reshape(-1) for p in parameters.values()])


def evaluations(name: str, rounds: int) -> Found:
    """Of loss and gradient, to the same largest element of the gradient, over 6 beginnings of nets
    of tanh and of softplus."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 4))
    y = np.sin(x[:, :2]) + 0.1 * rng.normal(size=(100, 2))
    make = optim.LBFGS if name == "lbfgs" else optim.ConjugateGradient
    ours = theirs = 0
    limit, ratios = 1e-2, []
    for activation in (nn.Tanh, nn.Softplus):
        for seed in range(6):
            net = nn.Sequential(nn.Linear(4, 6), activation(), nn.Linear(6, 2))
            method = make(tolerance_change=0.0, tolerance_gradient=limit)
            trainer = fnn.Trainer(net, "mse", method, dtype="float64", seed=seed, workers=1)
            function, start = flat_problem(net, x, y)
            options = {"gtol": limit, "maxiter": 1000}
            more = {"ftol": 0.0, "maxfun": 2000} if name == "lbfgs" else {}
            kind = "L-BFGS-B" if name == "lbfgs" else "CG"
            found = minimize(function, start, jac=True, method=kind, options=options | more)
            function(start)
            history = trainer.fit(x, y, epochs=1000, **QUIET)
            for gradient in (history["gradient"][-1], np.abs(function(found.x)[1]).max()):
                assert gradient <= limit, f"stopped at a gradient of {gradient}"
            ratios.append(history["evaluations"][-1] / found.nfev)
            ours, theirs = ours + int(history["evaluations"][-1]), theirs + found.nfev
    return {
        "fastnn": f"{ours} evaluations", "other": f"{theirs} (SciPy)",
        "ratio": f"{ours / theirs:.2f} (single ones {min(ratios):.2f} to {max(ratios):.2f})",
        "wanted": "at most 1.2",
    }  # fmt: skip


class Curve(nn.Module):
    """a exp(b x) + c tanh(d x)."""

    def __init__(self, start: list[float]):
        self.p = nn.Parameter((4,), lambda shape, rng: np.array(start))

    def forward(self, x: Any) -> Any:
        a, b, c, d = (self.p[k : k + 1] for k in range(4))
        return ops.exp(x * b) * a + ops.tanh(x * d) * c


def marquardt(rounds: int) -> Found:
    """Iterations to a sum of squares of 1e-12, of a curve with four parameters."""
    x = np.linspace(-1.0, 2.0, 80)[:, None]
    y = 1.5 * np.exp(-0.7 * x) + 0.8 * np.tanh(2.0 * x)
    model = Curve([1.0, -0.1, 0.3, 1.0])
    loss = nn.MSELoss(reduction="sum")
    trainer = fnn.Trainer(model, loss, optim.LevenbergMarquardt(), dtype="float64", workers=1)
    losses = trainer.fit(x, y, epochs=30, **QUIET)["loss"]
    reached = [k + 1 for k, value in enumerate(losses) if value <= 1e-12]
    assert reached, f"the sum of squares is {losses[-1]} after {len(losses)} iterations"
    return {"fastnn": f"{reached[0]} iterations", "ratio": f"ends at {losses[-1]:.0e}",
            "wanted": "1e-12 within 30"}  # fmt: skip


# ---------------------------------------------------------------- times


def in_turns(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least processor seconds of a call of each side; a side may return how many things it did
    in a call, for seconds of one."""
    least = dict.fromkeys(sides, np.inf)
    for turn in range(rounds + 1):
        for name, side in sides.items():
            begin = time.process_time()
            count = side()
            spent = (time.process_time() - begin) / (count if isinstance(count, int) else 1)
            least[name] = min(least[name], spent) if turn else np.inf  # the first warms up
    return least


def digits_like(samples: int, features: int = 784) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = (rng.random((samples, features)) < 0.2).astype(np.float32)
    return x, rng.integers(0, 10, samples)


def times(found: dict[str, float], other: str, unit: str, wanted: str) -> Found:
    ours, theirs = found["fastnn"], found[other]
    return {"fastnn": f"{1e3 * ours:.2f} ms {unit}", "other": f"{1e3 * theirs:.2f} ms ({other})",
            "ratio": f"{theirs / ours:.2f}", "wanted": wanted}  # fmt: skip


def hvp(rounds: int) -> Found:
    """A Hessian-vector product of the 784-128-10 net at batch 128."""
    import jax
    import jax.numpy as jnp

    x, y = digits_like(128)
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    products = fnn.autodiff.Products(model, "cross_entropy", workers=1)
    rng = np.random.default_rng(1)
    v = {n: rng.normal(size=p.shape).astype(np.float32) for n, p in products.parameters.items()}
    at = {n: jnp.asarray(np.array(p.value)) for n, p in products.parameters.items()}
    along, given = {n: jnp.asarray(a) for n, a in v.items()}, (jnp.asarray(x), jnp.asarray(y))

    def loss(p: Any, x: Any, y: Any) -> Any:
        h = jax.nn.relu(x @ p["0.weight"].T + p["0.bias"])
        out = jax.nn.log_softmax(h @ p["2.weight"].T + p["2.bias"])
        return -out[jnp.arange(len(y)), y].mean()

    @jax.jit
    def product(p: Any, v: Any, x: Any, y: Any) -> Any:
        return jax.jvp(lambda q: jax.grad(loss)(q, x, y), (p,), (v,))[1]

    wanted = product(at, along, *given)
    for name, got in products.hvp(x, y, v).items():
        scale = float(np.abs(wanted[name]).max())
        assert np.abs(got - np.asarray(wanted[name])).max() < 1e-4 * scale, name

    def ours_on() -> int:
        for _ in range(10):
            products.hvp(x, y, v)
        return 10

    def theirs_on() -> int:
        for _ in range(10):
            jax.block_until_ready(product(at, along, *given))
        return 10

    found = in_turns({"fastnn": ours_on, "JAX": theirs_on}, rounds)
    return times(found, "JAX", "a product", "at least 3")


def lbfgs(rounds: int) -> Found:
    """An evaluation of L-BFGS with its directions: 101,770 parameters, 1,000 samples."""
    import torch

    torch.set_num_threads(1)
    x, y = digits_like(1000)
    net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    method = optim.LBFGS(history_size=10, tolerance_change=0.0, tolerance_gradient=0.0)
    trainer = fnn.Trainer(net, "cross_entropy", method, workers=1)
    theirs = torch.nn.Sequential(
        torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
    )
    store = trainer.get_parameters()
    for name, p in theirs.named_parameters():
        p.data = torch.tensor(np.ascontiguousarray(store[name]))
    loss, given = torch.nn.CrossEntropyLoss(), (torch.from_numpy(x), torch.from_numpy(y))
    epochs, counts = 10, [0]
    other = torch.optim.LBFGS(
        theirs.parameters(), max_iter=epochs, history_size=10, line_search_fn="strong_wolfe",
        tolerance_grad=0.0, tolerance_change=0.0,
    )  # fmt: skip

    def ours_on() -> int:
        history = trainer.fit(x, y, epochs=epochs, **QUIET)
        counts.append(int(history["evaluations"][-1]))  # of all runs so far
        return counts[-1] - counts[-2]

    def theirs_on() -> int:
        counted = 0

        def closure() -> Any:
            nonlocal counted
            counted += 1
            other.zero_grad()
            value = loss(theirs(given[0]), given[1])
            value.backward()
            return value

        other.step(closure)
        return counted

    found = in_turns({"fastnn": ours_on, "PyTorch": theirs_on}, rounds)
    return times(found, "PyTorch", "an evaluation", "at least 3")


def rbm(hidden: int, batch: int) -> Callable[[int], Found]:
    """An epoch of CD-1 over 2,000 samples of 784 numbers."""

    def measured(rounds: int) -> Found:
        from sklearn.neural_network import BernoulliRBM
        from threadpoolctl import threadpool_limits

        x, _ = digits_like(2000)
        trainer = RBM(784, hidden).trainer(momentum=0.5, workers=1)
        other = BernoulliRBM(hidden, batch_size=batch, n_iter=1, random_state=0)
        sides = {
            "fastnn": lambda: trainer.fit(x, epochs=5, batch_size=batch, **QUIET) and 5,
            "scikit-learn": lambda: other.fit(x),
        }
        with threadpool_limits(1):  # threads of the products would wait for each other, and count
            found = in_turns(sides, rounds)
        return times(found, "scikit-learn", "an epoch", "at least 3")

    return measured


# ---------------------------------------------------------------- averages


def partition(rounds: int) -> Found:
    """log Z of a machine of 64-12 units after training on 8x8 digits: annealed, beside the sum over
    all states."""
    from fastnn.data import load_digits

    (x, _), _ = load_digits()
    x = (x.reshape(len(x), -1) / x.max()).astype(np.float32)
    machine = RBM(64, 12)
    machine.fit(x, epochs=20, batch_size=20, chains=50, workers=1, **QUIET)
    exact = machine.log_partition()
    found = machine.estimate_log_partition(runs=100, temperatures=1000, base=x)
    return {"fastnn": f"{found.log_z:.3f}", "other": f"{exact:.3f} (exact)",
            "ratio": f"{abs(found.log_z - exact):.3f} apart; interval {found.low:.2f} to "
            f"{found.high:.2f}", "wanted": "within the interval"}  # fmt: skip


def dropout(rounds: int) -> Found:
    """Outputs in evaluation, beside the mean over 4,000 sampled nets, in standard errors of it."""
    nets, rng = 4000, np.random.default_rng(0)
    rows = rng.normal(size=(8, 64)).astype(np.float32)
    repeated, said = np.repeat(rows, nets, axis=0), []
    for layers in ([], [nn.Linear(64, 64), nn.ReLU()]):
        net = nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(64, 10))
        (y,) = signals(net, repeated, training=True).outputs
        y = y.reshape(len(rows), nets, 10).astype(np.float64)
        apart = np.abs(y.mean(axis=1) - net.predict(rows)) / (y.std(axis=1) / nets**0.5)
        said.append(f"{apart.max():.1f}")
    return {"fastnn": f"at most {said[0]} and {said[1]} standard errors of 80 means",
            "wanted": "at most 5"}  # fmt: skip


ROWS: dict[str, tuple[str, Callable[[int], Found]]] = {
    "lbfgs-evaluations": ("L-BFGS to a gradient of 1e-2", lambda n: evaluations("lbfgs", n)),
    "cg-evaluations": ("conjugate gradients to 1e-2", lambda n: evaluations("cg", n)),
    "marquardt": ("Levenberg-Marquardt, a curve", marquardt),
    "hvp": ("Hessian-vector product, 784-128-10, batch 128", hvp),
    "lbfgs": ("L-BFGS, 101,770 parameters, 1,000 samples", lbfgs),
    "rbm-256-10": ("CD-1, 784-256, batches of 10, 2,000 samples", rbm(256, 10)),
    "rbm-256-100": ("CD-1, 784-256, batches of 100", rbm(256, 100)),
    "rbm-500-100": ("CD-1, 784-500, batches of 100", rbm(500, 100)),
    "partition": ("log Z of a 64-12 machine by annealing", partition),
    "dropout": ("dropout in evaluation and 4,000 sampled nets", dropout),
}


def main(arguments: list[str] | None = None) -> list[Found]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--results", type=Path, default=None)
    a = parser.parse_args(arguments)
    unknown = set(a.rows) - set(ROWS)
    if unknown:
        parser.error(f"expected rows of {', '.join(ROWS)}, got {', '.join(sorted(unknown))}")
    found = []
    for name, (what, measure) in ROWS.items():
        if not a.rows or name in a.rows:
            found.append({"row": name, "what": what, **measure(a.rounds)})
            print(found[-1], flush=True)
    columns = ["what", "fastnn", "other", "ratio", "wanted"]
    print(tabulate([[r.get(c, "") for c in columns] for r in found], columns, tablefmt="github"))
    if a.results is not None:
        harness.write("methods", "python -m benchmarks.methods", found, a.results)
    return found


if __name__ == "__main__":
    # before JAX counts the cores
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    main()
