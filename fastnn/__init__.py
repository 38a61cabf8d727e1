"""fastnn trains neural networks on CPUs and GPUs with kernels written in Python.

Importing it is cheap: the parts are loaded when they are first used, and nothing is compiled.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastnn._version import __version__

#: public name -> module that has it (None: the name is a module itself)
_PUBLIC = {
    "Metric": "fastnn.train.metrics",
    "Trainer": "fastnn.train.trainer",
    "Value": "fastnn.graph.value",
    "compile": "fastnn.train.step",
    "define_op": "fastnn.ops.user",
    "diagnose": "fastnn.diagnostics.diagnosis",
    "kernel": "fastnn.kernels.declare",
    "profile": "fastnn.train.profile",
    "cuda_kernel": "fastnn.kernels.declare",
    "helper": "fastnn.kernels.declare",
    "range_test": "fastnn.train.range_test",
    "autodiff": None,
    "callbacks": None,
    "cuda": None,
    "data": None,
    "diagnostics": None,
    "errors": None,
    "metrics": None,
    "nn": None,
    "ops": None,
    "optim": None,
    "parallel": None,
    "plot": None,
    "generative": None,
    "pretrain": None,
    "testing": None,
}

if TYPE_CHECKING:
    from fastnn import autodiff as autodiff
    from fastnn import callbacks as callbacks
    from fastnn import cuda as cuda
    from fastnn import data as data
    from fastnn import diagnostics as diagnostics
    from fastnn import errors as errors
    from fastnn import generative as generative
    from fastnn import metrics as metrics
    from fastnn import nn as nn
    from fastnn import ops as ops
    from fastnn import optim as optim
    from fastnn import parallel as parallel
    from fastnn import plot as plot
    from fastnn import pretrain as pretrain
    from fastnn import testing as testing
    from fastnn.diagnostics.diagnosis import diagnose as diagnose
    from fastnn.graph.value import Value as Value
    from fastnn.kernels.declare import cuda_kernel as cuda_kernel
    from fastnn.kernels.declare import helper as helper
    from fastnn.kernels.declare import kernel as kernel
    from fastnn.ops.user import define_op as define_op
    from fastnn.train.metrics import Metric as Metric
    from fastnn.train.profile import profile as profile
    from fastnn.train.range_test import range_test as range_test
    from fastnn.train.step import compile as compile
    from fastnn.train.trainer import Trainer as Trainer

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fastnn' has no attribute {name!r}")
    module = _PUBLIC[name]
    if module is None:
        found = importlib.import_module(f"fastnn.{name}")
    else:
        found = getattr(importlib.import_module(module), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
