"""What a function of symbolic values gives for arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.testing.gradcheck import as_model


def apply(
    function: Module | Callable[..., Any], *inputs: Any, dtype: str = "float64"
) -> np.ndarray | tuple[np.ndarray, ...]:
    """Apply a function of symbolic values (an op, or several) to arrays, to see what it gives.

    A program is made for each call, so a model that predicts often has a `forward` instead.

    Args:
        function: a function of symbolic values, or a module, which is copied first.
        inputs: arrays or nested lists with the samples first, all of the same length. An
            `nn.Parameter` stands for an input that is not one array per sample, such as a weight.
        dtype: "float64" or "float32", what is computed in.

    Returns:
        An array, or a tuple of them where the function returns several.

    Raises:
        DataError, ShapeError: the inputs don't fit each other or the function.

    >>> from fastnn import ops, testing
    >>> testing.apply(ops.relu, [[-1.0, 2.0]])
    array([[0., 2.]])
    >>> testing.apply(lambda a, b: ops.sum(a * b, axis=1), [[1.0, 2.0]], [[3.0, 4.0]])
    array([11.])
    """
    model = as_model(function, inputs)
    model.store(dtype)
    result: np.ndarray | tuple[np.ndarray, ...] = model.predict(
        *(np.asarray(a) for a in inputs if not isinstance(a, Parameter))
    )
    return result
