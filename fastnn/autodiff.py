"""Derivatives of whole models: products with the Jacobian, the Hessian, the Gauss-Newton matrix.

Within a model or a loss `fastnn.ops.gradient` and `fastnn.ops.tangent` do the same.

>>> import numpy as np
>>> import fastnn as fnn
>>> x, y = np.array([[1.0], [3.0]], np.float32), np.zeros((2, 1), np.float32)
>>> fnn.autodiff.hvp(fnn.nn.Linear(1, 1), "mse", x, y, np.array([0.0, 1.0], np.float32))
array([4., 2.], dtype=float32)
"""

from fastnn.train.curvature import Rates, eigenvalues, learning_rates
from fastnn.train.products import Products, gnvp, hvp, jvp

__all__ = ["Products", "Rates", "eigenvalues", "gnvp", "hvp", "jvp", "learning_rates"]
