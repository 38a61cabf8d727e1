"""Finds what is wrong with a model, its data or its loss before training."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from fastnn import files, optim
from fastnn.diagnostics import data_checks
from fastnn.diagnostics.data_checks import BAD, GOOD, LOOK, Finding
from fastnn.diagnostics.signals import Signal, Signals, signals
from fastnn.engine.arrays import as_arrays, check_lengths
from fastnn.engine.model import resolved
from fastnn.errors import FastnnError, NonFiniteError, OptionError, check_whole
from fastnn.nn.module import Module
from fastnn.train.options import check_options
from fastnn.train.step import compile as compile_step

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: a layer's signal or gradient beyond these multiples of the first's or the last's
FADED, GROWN = 1e-2, 1e2
#: shares of units
MANY_DEAD, MANY_FLAT = 0.5, 0.3
#: relative difference of slopes that a gradient check allows
AGREE = 1e-4


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; its text is a table.

    Attributes:
        findings: one for each check, in the order in which to look.
        signals: each layer's outputs and gradients for the mini-batch.

    ``diagnosis[check]`` raises OptionError for a check that there is not.
    """

    findings: tuple[Finding, ...]
    signals: Signals

    @property
    def ok(self) -> bool:
        """Whether no verdict is "bad"."""
        return all(f.verdict != BAD for f in self.findings)

    def __getitem__(self, check: str) -> Finding:
        """The finding of a check."""
        for finding in self.findings:
            if finding.check == check:
                return finding
        raise OptionError(
            f"diagnosis: expected one of {[f.check for f in self.findings]}, got {check!r}"
        )

    def __str__(self) -> str:
        """The findings as a table, with the advice below."""
        table = tabulate(
            [(f.check, f.verdict, f.found) for f in self.findings], ("check", "verdict", "found")
        )
        advice = [f"{f.check}: {f.advice}" for f in self.findings if f.advice]
        return "\n".join([table, *([""] if advice else []), *advice])

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the spread of each layer's outputs and the size of its gradients, by depth.

        With a path the picture is saved there; the figure is returned either way. Raises
        ImportError where matplotlib is missing.
        """
        layers = self.signals.layers
        figure = files.new_figure(max(4.8, 0.5 * len(layers) + 3), 6.0)
        above, below = figure.subplots(2, 1, sharex=True)
        places = range(len(layers))
        above.bar(places, [layer.std for layer in layers], color="C0")
        above.set_ylabel("standard deviation\nof the outputs")
        below.bar(places, [layer.gradient_rms for layer in layers], color="C1")
        below.set_ylabel("gradient of a sample,\nroot mean square")
        for ax in (above, below):
            ax.set_yscale("log")
            ax.grid(alpha=0.3, axis="y")
        below.set_xticks(places, [layer.name for layer in layers], rotation=60, ha="right")
        if path is not None:
            files.save_figure(figure, path)
        return figure


def diagnose(
    model: Module,
    x: Any,
    y: Any,
    loss: str | Callable[..., Any] | None = None,
    *,
    batch_size: int = 32,
    steps: int = 300,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Diagnosis:
    """Look for the most common faults before a model is trained.

    In this order: are the inputs finite and normalised; is a class missing or much more frequent
    than others; is the first loss that of a model that knows nothing; does the signal vanish or
    explode from layer to layer, or the gradient on its way back; are units dead or saturated; do
    the gradients agree with differences of the loss (in float64, along random directions); can the
    model learn one mini-batch by heart (with Adam). The model, its parameters and the data are
    unchanged afterwards.

    (LeCun, Bottou, Orr & Müller 1998, "Efficient BackProp"; Glorot & Bengio 2010, "Understanding
    the difficulty of training deep feedforward neural networks".)

    Args:
        model: the model, trained or not.
        x, y: inputs and targets, as for `Trainer.fit`. The data are checked as a whole, the model
            on the first `batch_size` samples.
        loss: a loss or its name; by default "cross_entropy" for integer targets, else "mse".
        batch_size: samples in the mini-batch.
        steps: number of training steps on the mini-batch; 0 leaves this check out.
        learning_rate: of these steps.
        seed: of directions and steps.

    Returns:
        The findings with advice, as a table (`str`) and a picture (`plot`).

    Raises:
        OptionError, ShapeError, DataError: the model, the loss and the data do not fit each other.

    >>> import numpy as np
    >>> import fastnn as fnn
    >>> from fastnn import nn
    >>> x = np.random.default_rng(0).normal(size=(200, 10)).astype(np.float32)
    >>> y = (x[:, 0] > 0).astype(np.int64)
    >>> found = fnn.diagnose(nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 2)), x, y)
    >>> found.ok
    True
    >>> found["first loss"].verdict
    'good'
    """
    check_whole("diagnose", 1, batch_size=batch_size)
    check_whole("diagnose", 0, steps=steps)
    inputs, targets = as_arrays(x, "x", "inputs"), as_arrays(y, "y", "targets")
    check_lengths(inputs, targets)
    if loss is None:
        whole = len(targets.arrays) == 1 and np.asarray(targets.arrays[0]).dtype.kind in "iub"
        loss = "cross_entropy" if whole else "mse"
    check_options(model, loss, optim.Adam(lr=learning_rate), seed, "float32")
    inputs = inputs.with_specs(resolved(model, inputs.specs))
    findings = [data_checks.inputs(inputs), *data_checks.targets(targets, loss)]
    if any(f.verdict == BAD for f in findings):  # what follows would speak of the data
        return Diagnosis(tuple(findings), Signals([]))
    part = (_first(x, batch_size), _first(y, batch_size))
    found = signals(model, *part, loss)
    findings += _loss(found, part[1], loss)
    findings += [_forward(found, part[0]), _backward(found), *_units(found.layers)]
    findings.append(_slopes(model, *part, loss, seed))
    if steps:
        findings.append(_by_heart(model, *part, loss, steps, learning_rate, seed))
    return Diagnosis(tuple(findings), found)


def _first(data: Any, count: int) -> Any:
    return data_checks.each(data, lambda array: array[:count])


def _loss(found: Signals, y: Any, loss: Any) -> list[Finding]:
    """The first loss beside that of a model that knows nothing."""
    name = loss if isinstance(loss, str) else type(loss).__name__
    kind = name.lower().replace("loss", "").replace("_", "")
    output = found.outputs[0].astype(np.float64)
    check, advice = "first loss", ""
    if not math.isfinite(found.loss):
        return [Finding(check, BAD, f"{found.loss}", "check the targets and the last layer")]
    if getattr(loss, "reduction", "mean") == "sum":
        return [Finding(check, GOOD, f"{found.loss:.4g}, the sum of the samples' losses")]
    if kind == "crossentropy":
        wanted, why = math.log(output.shape[-1]), f"log {output.shape[-1]}"
        total = output.sum(axis=-1)
        if output.min() >= 0 and np.allclose(total, 1.0, atol=1e-4):
            advice = "cross entropy applies softmax itself: take the model's own away"
            return [Finding(check, BAD, "the outputs are probabilities already", advice)]
    elif kind in ("bce", "bcewithlogits"):
        wanted, why = math.log(2.0), "log 2"
    elif kind == "mse":
        target = np.asarray(as_arrays(y, "y", "targets").arrays[0], np.float64)
        wanted, why = float((target**2).mean()), "that of outputs of 0"
    else:
        return [Finding(check, GOOD, f"{found.loss:.4g}")]
    text = f"{found.loss:.4g}, expected about {wanted:.4g} ({why})"
    if found.loss > 2 * wanted + 1e-6:
        advice = "make the initial weights of the last layer smaller, or normalise the targets"
    elif found.loss < 0.5 * wanted:
        advice = "is the model trained already, or is the answer among its inputs?"
    return [Finding(check, LOOK if advice else GOOD, text, advice)]


def _forward(found: Signals, x: Any) -> Finding:
    arrays = [np.asarray(a) for a in as_arrays(x, "x", "inputs").arrays]
    floats = [a for a in arrays if a.dtype.kind == "f"]
    layers = found.layers[:-1] or found.layers
    if not layers:
        return Finding("signal", GOOD, "no layers outside loops")
    start = float(floats[0].std(dtype=np.float64)) if floats else layers[0].std
    spreads = {layer.name: layer.std for layer in layers}
    low, high = min(spreads, key=spreads.__getitem__), max(spreads, key=spreads.__getitem__)
    text = f"standard deviations {spreads[low]:.2g} ({low}) to {spreads[high]:.2g} ({high})"
    advice = ""
    if not spreads[low] >= FADED * start:
        advice = "the signal fades: He's or Glorot's initial weights, normalisation, or ReLU"
    elif not spreads[high] <= GROWN * max(start, 1e-30):
        advice = "the signal grows: smaller initial weights, or normalisation between the layers"
    return Finding("signal", BAD if advice else GOOD, text, advice)


def _backward(found: Signals) -> Finding:
    sizes = [(layer.name, layer.gradient_rms) for layer in found.layers]
    sizes = [(name, size) for name, size in sizes if not math.isnan(size)]
    if len(sizes) < 2:
        return Finding("gradient", GOOD, "fewer than two layers")
    (first, begin), (last, end) = sizes[0], sizes[-1]
    ratio = begin / end if end else math.inf if begin else math.nan
    text = f"{begin:.2g} at {first}, {end:.2g} at {last}"
    advice = ""
    if not math.isfinite(ratio) or ratio > GROWN:
        advice = "the gradient explodes: clip its norm, smaller initial weights, or normalisation"
    elif ratio < FADED * FADED:
        advice = "the gradient vanishes: ReLU for sigmoid or tanh, residual connections, LSTM"
    return Finding("gradient", BAD if advice else GOOD, text, advice)


def _units(layers: list[Signal]) -> list[Finding]:
    results = []
    for check, share, limit, advice in (
        ("dead units", "dead", MANY_DEAD, "a lower rate, LeakyReLU, or biases a little above 0"),
        ("saturation", "saturated", MANY_FLAT, "smaller initial weights, or normalised inputs"),
    ):
        found = [(getattr(layer, share), layer.name) for layer in layers]
        found = [pair for pair in found if not math.isnan(pair[0])]
        if found:
            most, name = max(found)
            bad = most > limit
            text = f"{most:.0%} at most ({name})"
            results.append(Finding(check, BAD if bad else GOOD, text, advice if bad else ""))
    return results


def _slopes(model: Module, x: Any, y: Any, loss: Any, seed: int) -> Finding:
    """The loss's slope along random directions, from gradients and from differences."""
    check = "gradient check"
    own = copy.deepcopy(model).to("float64")
    data = data_checks.each(x, _doubled), data_checks.each(y, _doubled)
    try:
        found = signals(own, *data, loss)
    except FastnnError as error:
        return Finding(check, LOOK, f"not possible in float64: {error}")
    if found.detached:
        why = f"left out: no gradient passes {found.detached}, which differences do not know"
        return Finding(check, GOOD, why)
    gradients = found.parameters
    if not gradients:
        return Finding(check, BAD, "the loss depends on no parameter", "check the model's forward")
    parameters = own.named_parameters()
    start = {name: np.array(parameters[name].value) for name in gradients}
    source, worst = np.random.default_rng(seed), 0.0
    for _ in range(3):
        # from finer to coarser: kinks such as ReLU's are met less often by small steps
        direction = {name: source.normal(size=a.shape) for name, a in start.items()}
        slope = sum(float((gradients[n] * d).sum()) for n, d in direction.items())
        size = math.sqrt(sum(float((d**2).sum()) for d in direction.values()))
        errors = []
        for step in (1e-6, 1e-5, 1e-4):
            ends = []
            for sign in (1.0, -1.0):
                for name, d in direction.items():
                    parameters[name].value = start[name] + sign * step / size * d
                ends.append(signals(own, *data, loss).loss)
            numeric = (ends[0] - ends[1]) / (2 * step) * size
            scale = max(abs(numeric), abs(slope), 1e-6 * max(abs(ends[0]), 1e-30))
            errors.append(abs(numeric - slope) / scale)
        worst = max(worst, min(errors))
    bad = not worst <= AGREE
    advice = "an op's gradient rule is wrong; fastnn.testing.gradcheck says which" if bad else ""
    return Finding(check, BAD if bad else GOOD, f"relative difference {worst:.1g}", advice)


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _by_heart(
    model: Module, x: Any, y: Any, loss: Any, steps: int, learning_rate: float, seed: int
) -> Finding:
    check = "one batch by heart"
    step = compile_step(copy.deepcopy(model), loss, optim.Adam(lr=learning_rate), seed=seed)
    try:
        first = lowest = step(x, y)
        while step.steps < steps and lowest >= 0.05 * first:
            lowest = min(lowest, step(x, y))
    except NonFiniteError as error:
        return Finding(check, BAD, str(error), "a lower rate, or normalised inputs")
    text = f"loss {first:.3g} to {lowest:.3g} in {step.steps} steps"
    if lowest < 0.2 * first or lowest < 1e-3:
        return Finding(check, GOOD, text)
    advice = (
        "do inputs and targets belong together, is the loss the right one, is all that is to learn "
        "connected; then a higher rate, more steps, or a larger model"
    )
    return Finding(check, LOOK if lowest < 0.9 * first else BAD, text, advice)
