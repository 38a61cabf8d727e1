"""Layers that normalise data by statistics of the training data.

They have no trained parameters: what `adapt` finds is kept in buffers, which are saved with models
and checkpoints and which `predict` and `evaluate` apply.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_flags, check_numbers, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn.adapted import Adapted
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.statistics import Everything, Extremes, Moments
from fastnn.public import publish


class Standardize(Adapted):
    """Makes each feature have mean 0 and variance 1 over the training data, ``y = (x - mean) /
    std``, as scikit-learn's `StandardScaler`.

    A feature that is constant in the training data is only shifted (its `std` counts as 1).

    Args:
        features: C, the size of the last axis, or the sizes of several last axes.
        center: whether the mean is subtracted.
        scale: whether to divide by the standard deviation.

    Attributes:
        mean, std: buffers of the features' shape; the standard deviation is that of the data as a
            whole population (divided by n).
        samples: a buffer, how many rows it was adapted to.

    Shapes: input and output (batch, ..., features). With `lengths` (batch,), everything past the
    end of a sequence is set to 0. A layer that has not been adapted raises OptionError.

    Raises ShapeError for another last dimension, and for lengths that do not fit the input.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> x = np.array([[1.0, 50.0], [3.0, 50.0]])
    >>> model = nn.Sequential(nn.Standardize(2).adapt(x), nn.Linear(2, 1))
    >>> model[0].predict(x)
    array([[-1.,  0.],
           [ 1.,  0.]], dtype=float32)
    """

    least = 2

    def __init__(self, features: int | Sequence[int], center: bool = True, scale: bool = True):
        check_flags("Standardize", center=center, scale=scale)
        super().__init__(features)
        self.center, self.scale = bool(center), bool(scale)
        self.mean = Parameter(self.shape, 0.0, trainable=False)
        self.std = Parameter(self.shape, 1.0, trainable=False)

    def _statistics(self) -> Moments:
        return Moments()

    def _take(self, found: Moments) -> None:
        std = np.sqrt(found.spread / found.count)
        self.mean.value = found.mean.reshape(self.shape)
        self.std.value = np.where(found.constant, 1.0, std).reshape(self.shape)

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        y = self._input(x)
        y = ops.subtract(y, self.mean) if self.center else y
        y = ops.divide(y, self.std) if self.scale else y
        return self._unpadded(y, lengths)

    def _back(self, y: np.ndarray) -> np.ndarray:
        y = y * np.array(self.std, np.float64) if self.scale else y
        return y + np.array(self.mean, np.float64) if self.center else y


class MinMaxScale(Adapted):
    """Brings each feature into a range, ``y = low + (x - min) (high - low) / (max - min)``, as
    scikit-learn's `MinMaxScaler`.

    A feature that is constant in the training data becomes `low`.

    Args:
        features: C, the size of the last axis, or the sizes of several last axes.
        low, high: the ends of the range.
        clip: whether other data are clipped to the range as well.

    Attributes:
        minimum, maximum: buffers of the features' shape.
        samples: a buffer, how many rows it was adapted to.

    Shapes: as of `Standardize`.

    Raises OptionError unless `low` is below `high`, and before it has been adapted; ShapeError for
    another last dimension, and for lengths that do not fit the input.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.MinMaxScale(1).adapt(np.array([[0.0], [4.0]])).predict(np.array([[1.0], [8.0]]))
    array([[0.25],
           [2.  ]], dtype=float32)
    """

    def __init__(
        self,
        features: int | Sequence[int],
        low: float = 0.0,
        high: float = 1.0,
        clip: bool = False,
    ):
        super().__init__(features)
        check_numbers("MinMaxScale", low=low, high=high)
        check_flags("MinMaxScale", clip=clip)
        if not low < high:
            raise OptionError(f"MinMaxScale: expected low < high, got {low} and {high}")
        self.low, self.high, self.clip = float(low), float(high), bool(clip)
        self.minimum = Parameter(self.shape, 0.0, trainable=False)
        self.maximum = Parameter(self.shape, 1.0, trainable=False)

    def _statistics(self) -> Extremes:
        return Extremes()

    def _take(self, found: Extremes) -> None:
        self.minimum.value = found.low.reshape(self.shape)
        self.maximum.value = found.high.reshape(self.shape)

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        apart = ops.subtract(self._input(x), self.minimum)
        extent = ops.subtract(self.maximum, self.minimum)
        extent = ops.where(ops.equal(extent, 0.0), 1.0, extent)
        y = ops.affine(ops.divide(apart, extent), self.high - self.low, self.low)
        y = ops.clip(y, self.low, self.high) if self.clip else y
        return self._unpadded(y, lengths)

    def _back(self, y: np.ndarray) -> np.ndarray:
        low, high = (np.array(p, np.float64) for p in (self.minimum, self.maximum))
        return low + (y - self.low) / (self.high - self.low) * (high - low)


class RobustScale(Adapted):
    """Subtracts the median and divides by the distance between two quantiles, ``y = (x - median) /
    (upper - lower)``, which outliers hardly move, as scikit-learn's `RobustScaler`.

    Where the quantiles are equal, only the median is subtracted. Quantiles are exact, so that
    `adapt` keeps the data in memory as float64.

    Args:
        features: C, the size of the last axis, or the sizes of several last axes.
        lower, upper: the quantiles, 0 <= lower < upper <= 1.

    Attributes:
        median, width: buffers of the features' shape; `width` is the quantiles' distance.
        samples: a buffer, how many rows it was adapted to.

    Shapes: as of `Standardize`.

    Raises OptionError unless 0 <= lower < upper <= 1, and before it has been adapted; ShapeError
    for another last dimension, and for lengths that do not fit the input.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> x = np.array([[0.0], [1.0], [2.0], [3.0], [1000.0]])
    >>> nn.RobustScale(1).adapt(x).predict(x).ravel()
    array([ -1. ,  -0.5,   0. ,   0.5, 499. ], dtype=float32)
    """

    least = 2

    def __init__(self, features: int | Sequence[int], lower: float = 0.25, upper: float = 0.75):
        super().__init__(features)
        check_numbers("RobustScale", lower=lower, upper=upper)
        if not 0 <= lower < upper <= 1:
            raise OptionError(
                f"RobustScale: expected 0 <= lower < upper <= 1, got {lower} and {upper}"
            )
        self.lower, self.upper = float(lower), float(upper)
        self.median = Parameter(self.shape, 0.0, trainable=False)
        self.width = Parameter(self.shape, 1.0, trainable=False)

    def _statistics(self) -> Everything:
        return Everything()

    def _take(self, found: Everything) -> None:
        low, median, high = found.quantiles((self.lower, 0.5, self.upper))
        self.median.value = median.reshape(self.shape)
        self.width.value = np.where(high > low, high - low, 1.0).reshape(self.shape)

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        y = ops.divide(ops.subtract(self._input(x), self.median), self.width)
        return self._unpadded(y, lengths)

    def _back(self, y: np.ndarray) -> np.ndarray:
        return y * np.array(self.width, np.float64) + np.array(self.median, np.float64)


class Whiten(Adapted):
    """Makes features uncorrelated, with variance 1: ``y = (x - mean) @ weight.T``, by the
    eigenvectors U and eigenvalues s of the training data's covariance matrix.

    - PCA: ``weight = (s + eps)^-1/2 U^T``, the largest eigenvalue first: `components` of them, as
      scikit-learn's ``PCA(whiten=True)``;
    - ZCA: ``weight = U (s + eps)^-1/2 U^T``, which stays as close to the data as possible (Bell &
      Sejnowski 1997; Krizhevsky 2009).

    A direction in which the training data do not vary becomes 0.

    Args:
        features: C, the size of the last axis.
        method: "pca" or "zca".
        components: how many to keep (PCA); None keeps all.
        eps: added to the eigenvalues; for images 0.01 or so keeps noise small where there is hardly
            any variance.

    Attributes:
        mean, variance: buffers of shapes (C,) and (components,); the variances along U, which are
            the eigenvalues.
        weight: a buffer of shape (components, C).
        samples: a buffer, how many rows it was adapted to.

    Shapes: input (batch, ..., C), output (batch, ..., components). `lengths` as of `Standardize`.
    Without `eps`, adapting needs more samples than components.

    Raises OptionError for an unknown `method`, a negative `eps`, too many `components`, and before
    it has been adapted; ShapeError for another last dimension, and for lengths that do not fit the
    input.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> x = np.random.default_rng(0).normal(size=(500, 3)) @ np.diag([1.0, 5.0, 0.1])
    >>> y = nn.Whiten(3).adapt(x).predict(x)
    >>> bool(np.allclose(np.cov(y.T), np.eye(3), atol=1e-4))
    True
    """

    def __init__(
        self, features: int, method: str = "pca", components: int | None = None, eps: float = 0.0
    ):
        check_whole("Whiten", 1, features=features)
        super().__init__(features)
        if method not in ("pca", "zca"):
            raise OptionError(f"Whiten: expected method to be 'pca' or 'zca', got {method!r}")
        check_numbers("Whiten", eps=eps)
        if not eps >= 0:
            raise OptionError(f"Whiten: expected eps >= 0, got {eps}")
        if components is not None:
            check_whole("Whiten", 1, components=components)
            if method == "zca" or components > features:
                raise OptionError(
                    f"Whiten: expected components to be None with method='zca', and at most "
                    f"{features}, got {components}"
                )
        self.method, self.eps = method, float(eps)
        self.components = int(features if components is None else components)
        self.least = 2 if eps else self.components + 1
        self.mean = Parameter(self.shape, 0.0, trainable=False)
        self.variance = Parameter((self.components,), 1.0, trainable=False)
        self.weight = Parameter(
            (self.components, int(features)), "zeros", transposed=True, trainable=False
        )

    def _statistics(self) -> Moments:
        return Moments(products=True)

    def _take(self, found: Moments) -> None:
        varied = ~found.constant
        covariance = found.spread / (found.count - 1) * np.multiply.outer(varied, varied)
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        values, vectors = values[: self.components], vectors[:, : self.components]
        largest = np.abs(vectors).argmax(
            axis=0
        )  # its sign is positive, so that there is one answer
        vectors = vectors * np.sign(vectors[largest, np.arange(len(values))])
        none = values <= max(float(values[0]), 0.0) * found.mean.size * np.finfo(float).eps
        values = np.where(none, 0.0, values)
        safe = np.where(values + self.eps > 0, values + self.eps, 1.0)
        factors = np.where(none, 0.0, 1.0 / np.sqrt(safe))
        weight = factors[:, None] * vectors.T
        self.weight.value = vectors @ weight if self.method == "zca" else weight
        self.mean.value, self.variance.value = found.mean, values

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        y = ops.linear(ops.subtract(self._input(x), self.mean), self.weight)
        return self._unpadded(y, lengths)

    def _back(self, y: np.ndarray) -> np.ndarray:
        back = np.linalg.pinv(np.array(self.weight, np.float64))
        return y @ back.T + np.array(self.mean, np.float64)

    def extra(self) -> str:
        more = f", components={self.components}" if self.components != self.shape[0] else ""
        return f"{self.shape[0]}, {self.method!r}{more}"


class UnitNorm(Module):
    """Divides each sample by its length, as scikit-learn's `Normalizer`; a sample of zeros stays as
    it is.

    To normalise the mean and variance of each sample use ``nn.LayerNorm(C, affine=False)``, and
    over each mini-batch ``nn.BatchNorm(C, affine=False)``.

    Args:
        norm: "l2" (the square root of the sum of squares), "l1" (the sum of sizes), or "max" (the
            largest size).

    Shapes: input and output (batch, ..., C); the last axis is normalised.

    Raises OptionError for an unknown `norm`; ShapeError for an input without features.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.UnitNorm().predict(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """

    def __init__(self, norm: str = "l2"):
        if norm not in ("l1", "l2", "max"):
            raise OptionError(f"UnitNorm: expected norm to be 'l1', 'l2' or 'max', got {norm!r}")
        self.norm = norm

    def forward(self, x: Value) -> Value:
        if x.ndim < 2:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected input of shape (batch, ..., features), "
                f"got {x.shape}"
            )
        if self.norm == "l2":
            top = ops.max(ops.absolute(x), axis=-1, keepdims=True)  # squares would leave the range
            top = ops.detach(ops.where(ops.equal(top, 0.0), 1.0, top))
            x = ops.divide(x, top)
            total = ops.sum(ops.square(x), axis=-1, keepdims=True)
            size = ops.sqrt(ops.where(ops.equal(total, 0.0), 1.0, total))
        else:
            reduce = ops.sum if self.norm == "l1" else ops.max
            size = reduce(ops.absolute(x), axis=-1, keepdims=True)
            size = ops.where(ops.equal(size, 0.0), 1.0, size)
        return ops.divide(x, size)

    def extra(self) -> str:
        return repr(self.norm)


publish(globals(), type)
