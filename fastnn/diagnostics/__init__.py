"""Diagnostics: the signals in a model, what is wrong with it, and what to try next.

>>> from fastnn.diagnostics import advise
>>> print(advise({"accuracy": [0.6, 0.97]}, goal=0.95, mode="max", monitor="accuracy"))
good: accuracy 0.97 in training, wanted 0.95
1. measure on test data, once; then keep this model
"""

from fastnn.diagnostics.advice import Advice, advise
from fastnn.diagnostics.data_checks import Finding
from fastnn.diagnostics.diagnosis import Diagnosis, diagnose
from fastnn.diagnostics.signals import Signal, Signals, signals

__all__ = ["Advice", "Diagnosis", "Finding", "Signal", "Signals", "advise", "diagnose", "signals"]
