"""Pictures: learning curves, loss surfaces, weights, filters, activations and more.

Each function returns a matplotlib figure, and saves it if given a path; no display is needed. Some
objects draw themselves: `RangeTest.plot`, `GradientHealth.plot`, `Diagnosis.plot` and others.

Raises ImportError if matplotlib is missing: ``pip install matplotlib``.

>>> import fastnn as fnn
>>> figure = fnn.plot.activations(["relu", "tanh"])
>>> [ax.get_title() for ax in figure.axes]
['relu', 'tanh']
"""

from fastnn.plot.alignment import alignment
from fastnn.plot.confusion import confusion_matrix
from fastnn.plot.curves import learning_curves
from fastnn.plot.filters import filters, frequency_responses
from fastnn.plot.forced import forced_alignment
from fastnn.plot.functions import activations
from fastnn.plot.gradients import gradient_flow
from fastnn.plot.images import weights
from fastnn.plot.landscape import loss_surface
from fastnn.plot.projection import embedding
from fastnn.plot.rates import schedules
from fastnn.plot.samples import samples
from fastnn.plot.surfaces import SURFACES, Surface, descend, optimizer_paths

__all__ = [
    "SURFACES",
    "Surface",
    "activations",
    "alignment",
    "confusion_matrix",
    "descend",
    "embedding",
    "filters",
    "forced_alignment",
    "frequency_responses",
    "gradient_flow",
    "learning_curves",
    "loss_surface",
    "optimizer_paths",
    "samples",
    "schedules",
    "weights",
]
