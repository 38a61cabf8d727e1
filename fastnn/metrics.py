"""Metrics for `Trainer(metrics=[...])`: your own, and those that a name can't say.

>>> from fastnn import metrics
>>> metrics.binary_accuracy(threshold=0.5)
Metric('binary_accuracy')
"""

from fastnn.train.metrics import Metric, binary_accuracy, categorical_accuracy, top_k

__all__ = ["Metric", "binary_accuracy", "categorical_accuracy", "top_k"]
