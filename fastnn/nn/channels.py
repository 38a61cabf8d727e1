"""Normalisation of channels: over the batch, over groups of them, over each one."""

from __future__ import annotations

from typing import Any, ClassVar

from fastnn import ops
from fastnn.errors import OptionError, ShapeError, check_eps, check_flags, check_whole, where
from fastnn.graph.value import Value
from fastnn.nn.module import Module
from fastnn.nn.parameter import Parameter
from fastnn.nn.regularization import BatchNorm, _check_momentum
from fastnn.ops.layout import as_given, check_channels, extents_of, from_last, to_last
from fastnn.ops.lengths import checked_lengths, valid_steps, within
from fastnn.public import publish


def _checked(name: str, channels: str) -> str:
    check_channels(name, channels)
    return channels


class _OfChannels(Module):
    """What the layers share: an input's channels, and where they are."""

    channels: str
    num_features: int
    #: numbers of axes beside batch and channels that are taken
    ranks: ClassVar[tuple[int, ...]] = (0, 1, 2)

    def _check(self, x: Value) -> None:
        count = x.shape[1 if self.channels == "first" else -1] if x.ndim > 1 else 0
        if x.ndim - 2 not in self.ranks or count != self.num_features:
            shape, channels, remedy = as_given(x, self.channels)
            shapes = " or ".join(self._shape(rank, channels) for rank in self.ranks)
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected an input of shape {shapes}, got "
                f"{shape}; set the number of channels, or {remedy}"
            )

    def _shape(self, rank: int, channels: str) -> str:
        """What an input looks like, for messages."""
        names = [str(self.num_features)]
        others = ["T"] if rank == 1 else ["H", "W"][:rank]
        names = [*names, *others] if channels == "first" else [*others, *names]
        return f"(N, {', '.join(names)})"

    def _of_sequences(self, x: Value, lengths: Value) -> tuple[Value, Value]:
        """Sequences (N, T, C), and their lengths checked."""
        self._check(x)
        if x.ndim != 3:
            shape, channels, _ = as_given(x, self.channels)
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected sequences, of shape "
                f"{self._shape(1, channels)}, with lengths, got an input of shape {shape}; call it "
                "without lengths"
            )
        last, name = self._last(x), type(self).__name__
        return last, checked_lengths(x.graph, lengths, last.shape[0], last.shape[1], name)

    def _last(self, x: Value) -> Value:
        label = f"{where(x.graph.scope)}{type(self).__name__}"
        last = x if x.ndim == 2 else to_last(x, x.ndim - 2, self.channels, label)
        extents_of(last, label)
        return last

    def _back(self, y: Value) -> Value:
        return y if y.ndim == 2 else from_last(y, self.channels)


class _BatchNorm(BatchNorm, _OfChannels):
    """Batch normalisation of channels, wherever they are."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
        track_running_stats: bool = True, channels: str = "first",
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats)
        self.channels = _checked(type(self).__name__, channels)

    def forward(self, x: Value) -> Value:
        self._check(x)
        return self._back(super().forward(self._last(x)))


class BatchNorm1d(_BatchNorm):
    """Normalises each channel over the batch and the steps of its sequences (Ioffe & Szegedy 2015).

    Arguments and attributes as of `BatchNorm`, and

    Args:
        num_features: C, the number of channels.
        eps, momentum, affine, track_running_stats: as of `BatchNorm`.
        channels: where they are, "first" as in PyTorch or "last".

    Shapes: input and output (N, C), or (N, C, T), with ``channels="last"`` (N, T, C). Called with
    ``lengths``, integers of shape (N,), the number of valid steps of each sequence: statistics are
    those of valid steps alone, whatever lies past the ends, and outputs past them are 0.

    Raises OptionError for options that `BatchNorm` refuses and for unknown `channels`; ShapeError
    for another number of channels, and for lengths with an input that is no sequence.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.BatchNorm1d(3).predict(np.ones((2, 3, 10), np.float32)).shape
    (2, 3, 10)
    """

    ranks = (0, 1)

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        if lengths is None:
            return super().forward(x)
        x, lengths = self._of_sequences(x, lengths)
        if not x.graph.training and self.running_mean is not None:
            return self._back(within(BatchNorm.forward(self, x), lengths))
        count = ops.maximum(ops.sum(valid_steps(lengths, x.shape[1])), 1.0)
        # sums of each sequence, then of all: padding adds zeros behind, and changes no bit
        mean = ops.divide(_of_all(within(x, lengths)), count)
        centred = within(ops.subtract(x, mean), lengths)
        var = ops.divide(_of_all(ops.square(centred)), count)
        if x.graph.training and self.running_mean is not None and self.running_var is not None:
            others = ops.maximum(ops.affine(count, 1.0, -1.0), 1.0)
            unbiased = ops.multiply(var, ops.divide(count, others))
            for buffer, now in ((self.running_mean, mean), (self.running_var, unbiased)):
                kept = ops.affine(ops.as_value(x.graph, buffer), 1.0 - self.momentum, 0.0)
                ops.store_state(ops.add(kept, ops.affine(now, self.momentum, 0.0)), buffer)
        y = ops.divide(centred, ops.sqrt(ops.affine(var, 1.0, self.eps)))
        if self.weight is not None and self.bias is not None:
            y = ops.add(ops.multiply(y, self.weight), self.bias)
        return self._back(within(y, lengths))


def _of_all(x: Value) -> Value:
    """The sum over steps, then over sequences: (N, T, C) to (C,)."""
    return ops.sum(ops.sum(x, axis=1), axis=0)


class BatchNorm2d(_BatchNorm):
    """Normalises each channel over the batch and the pixels of its images (Ioffe & Szegedy 2015).

    Args:
        num_features: C, the number of channels.
        eps, momentum, affine, track_running_stats: as of `BatchNorm`.
        channels: where they are, "first" as in PyTorch or "last".

    Shapes: input and output (N, C, H, W), with ``channels="last"`` (N, H, W, C).

    Raises OptionError for options that `BatchNorm` refuses and for unknown `channels`; ShapeError
    for another number of channels.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.BatchNorm2d(3).predict(np.ones((2, 3, 4, 4), np.float32)).shape
    (2, 3, 4, 4)
    """

    ranks = (2,)


class GroupNorm(_OfChannels):
    """Normalises groups of channels of each sample to mean 0 and variance 1, then applies a gain
    and a bias to each channel (Wu & He 2018).

    Args:
        num_groups: G, which divides the number of channels.
        num_channels: C.
        eps: added to the variance.
        affine: whether to apply a gain and a bias.
        channels: where the channels are, "first" as in PyTorch or "last".

    Attributes:
        weight, bias: gain and bias, each of shape (C,), or None.

    Shapes: input and output (N, C), (N, C, T) or (N, C, H, W), or with the channels last. In
    memory a group's numbers have to lie together, so channels that come last are transposed. Called
    with ``lengths``, integers of shape (N,), the number of valid steps of each of N sequences, the
    numbers of a group are those of valid steps alone, and outputs past the ends are 0. (A group of
    a single number becomes 0.)

    Raises OptionError for a number of groups that does not divide the channels, sizes below 1, a
    negative `eps` and unknown `channels`; ShapeError for another number of channels, and for groups
    of a single number.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.GroupNorm(2, 4).predict(np.ones((2, 4, 5), np.float32)).shape
    (2, 4, 5)
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        channels: str = "first",
    ):  # fmt: skip
        name = type(self).__name__
        check_whole(name, 1, num_groups=num_groups, num_channels=num_channels)
        check_eps(name, eps)
        check_flags(name, affine=affine)
        if num_channels % num_groups:
            raise OptionError(
                f"{name}: expected a number of groups that divides {num_channels} channels, got "
                f"{num_groups}"
            )
        self.num_groups, self.num_features = int(num_groups), int(num_channels)
        self.eps, self.channels = float(eps), _checked(name, channels)
        self.weight = Parameter((self.num_features,), 1.0) if affine else None
        self.bias = Parameter((self.num_features,), 0.0) if affine else None

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        if lengths is not None:
            return self._back(self._within(*self._of_sequences(x, lengths)))
        self._check(x)
        last = self.channels == "last" and x.ndim > 2
        first = ops.transpose(x, (0, x.ndim - 1, *range(1, x.ndim - 1))) if last else x
        grouped = ops.reshape(first, (x.shape[0], self.num_groups, -1))
        if grouped.shape[-1] < 2:
            raise ShapeError(
                f"{where(x.graph.scope)}{self!r}: expected at least 2 numbers in a group, got an "
                f"input of shape {as_given(x, self.channels)[0]}; use fewer groups or larger "
                "samples"
            )
        y = ops.reshape(ops.layer_norm(grouped, eps=self.eps), first.shape)
        shape = (-1, *[1] * (x.ndim - 2))
        if self.weight is not None and self.bias is not None:
            gain, bias = (
                ops.reshape(ops.as_value(x.graph, p), shape) for p in (self.weight, self.bias)
            )
            y = ops.add(ops.multiply(y, gain), bias)
        if last:
            return ops.transpose(y, (0, *range(2, x.ndim), 1))
        self._last(y)  # so that it is known what its axes are
        return y

    def _within(self, x: Value, lengths: Value) -> Value:
        """The same of sequences (N, T, C) up to their lengths."""
        _, centred, var = self._moments(x, lengths, self.num_groups)
        y = ops.divide(centred, ops.sqrt(ops.affine(var, 1.0, self.eps)))
        if self.weight is not None and self.bias is not None:
            y = ops.add(ops.multiply(y, self.weight), self.bias)
        return within(y, lengths)

    def _moments(self, x: Value, lengths: Value, groups: int) -> tuple[Value, Value, Value]:
        """The means of each sequence's groups, the numbers less these, and the variances: those of
        each channel, (N, 1, C)."""
        count = ops.maximum(ops.astype(lengths), 1.0)
        each = ops.reshape(ops.affine(count, float(x.shape[2] // groups), 0.0), -1, 1, 1)

        def mean_of(values: Value) -> Value:
            # over steps first, then over channels: padding adds zeros behind, and changes no bit
            total = ops.reshape(ops.sum(values, axis=1), x.shape[0], groups, -1)
            total = ops.divide(ops.sum(total, axis=2, keepdims=True), each)
            whole = ops.expand(total, (x.shape[0], groups, x.shape[2] // groups))
            return ops.reshape(whole, x.shape[0], 1, -1)

        mean = mean_of(within(x, lengths))
        centred = within(ops.subtract(x, mean), lengths)
        return mean, centred, mean_of(ops.square(centred))

    def extra(self) -> str:
        return f"{self.num_groups}, {self.num_features}"


class _InstanceNorm(GroupNorm):
    """Each channel of each sample by itself."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, channels: str = "first",
    ):  # fmt: skip
        super().__init__(num_features, num_features, eps, affine, channels)
        name = type(self).__name__
        check_flags(name, track_running_stats=track_running_stats)
        _check_momentum(name, momentum)
        self.momentum, shape = float(momentum), (self.num_features,)
        tracked = track_running_stats
        self.running_mean = Parameter(shape, 0.0, trainable=False) if tracked else None
        self.running_var = Parameter(shape, 1.0, trainable=False) if tracked else None

    def forward(self, x: Value, lengths: Value | None = None) -> Value:
        if self.running_mean is None or self.running_var is None:
            return super().forward(x, lengths)
        if lengths is not None:
            return self._back(self._tracked(*self._of_sequences(x, lengths)))
        self._check(x)
        if not x.graph.training:
            last, running = self._last(x), (self.running_mean, self.running_var)
            return self._back(ops.batch_norm(last, self.weight, self.bias, *running, self.eps))
        y = super().forward(x)
        samples = ops.detach(ops.reshape(self._last(x), x.shape[0], -1, self.num_features))
        mean = ops.mean(samples, axis=1, keepdims=True)
        squares = ops.sum(ops.square(ops.subtract(samples, mean)), axis=1)
        var = ops.affine(squares, 1.0 / (samples.shape[1] - 1), 0.0)
        mean = ops.reshape(mean, var.shape)
        for buffer, now in ((self.running_mean, mean), (self.running_var, var)):
            kept = ops.affine(ops.as_value(x.graph, buffer), 1.0 - self.momentum, 0.0)
            new = ops.affine(ops.mean(now, axis=0), self.momentum, 0.0)
            ops.store_state(ops.add(kept, new), buffer)
        return y

    def _tracked(self, x: Value, lengths: Value) -> Value:
        """The result for sequences (N, T, C) up to their lengths, with running statistics."""
        buffers: tuple[Any, Any] = (self.running_mean, self.running_var)
        if not x.graph.training:
            y = ops.batch_norm(within(x, lengths), self.weight, self.bias, *buffers, self.eps)
            return within(y, lengths)
        mean, _, var = self._moments(ops.detach(x), lengths, self.num_features)
        steps = ops.reshape(ops.astype(lengths), -1, 1)
        counts = ops.greater(steps, 1.5)  # the others have no variance
        several = ops.sum(counts)
        unbiased = ops.divide(steps, ops.maximum(ops.affine(steps, 1.0, -1.0), 1.0))
        share = ops.multiply(ops.greater(several, 0.0), self.momentum)
        for buffer, now in zip(buffers, (mean, var), strict=True):
            each = ops.reshape(now, x.shape[0], -1)
            each = each if now is mean else ops.multiply(each, unbiased)
            total = ops.sum(ops.multiply(each, counts), axis=0)
            new = ops.multiply(ops.divide(total, ops.maximum(several, 1.0)), share)
            kept = ops.multiply(ops.as_value(x.graph, buffer), ops.affine(share, -1.0, 1.0))
            ops.store_state(ops.add(kept, new), buffer)
        return self._within(x, lengths)

    def extra(self) -> str:
        return f"{self.num_features}"


class InstanceNorm1d(_InstanceNorm):
    """Normalises each channel of each sequence to mean 0 and variance 1 (Ulyanov et al. 2016).

    Args:
        num_features: C, the number of channels.
        eps: added to the variance.
        momentum: weight of the new batch in the running averages.
        affine: whether to apply a gain and a bias to each channel.
        track_running_stats: whether to keep running averages, over samples and batches, of the
            means and (unbiased) variances, as PyTorch does: evaluation then uses these.
        channels: where the channels are, "first" as in PyTorch or "last".

    Attributes:
        weight, bias: gain and bias, shape (C,), or None. running_mean, running_var: buffers of
            shape (C,), or None.

    Shapes: input and output (N, C, T), with ``channels="last"`` (N, T, C). Called with ``lengths``,
    integers of shape (N,), the number of valid steps of each sequence, it normalises these alone,
    and outputs past the ends are 0. (A single step becomes 0; running averages are of sequences
    with at least two.)

    Raises OptionError for options that do not fit; ShapeError for another number of channels, and
    for inputs of a single step without lengths.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.InstanceNorm1d(3).predict(np.arange(12.0).reshape(1, 3, 4)).mean(axis=2).round(3) + 0.0
    array([[0., 0., 0.]], dtype=float32)
    """

    ranks = (1,)


class InstanceNorm2d(_InstanceNorm):
    """Normalises each channel of each image to mean 0 and variance 1 (Ulyanov et al. 2016).

    Args:
        num_features: C, the number of channels.
        eps, momentum, affine, track_running_stats, channels: as of `InstanceNorm1d`.

    Shapes: input and output (N, C, H, W), with ``channels="last"`` (N, H, W, C).

    Raises OptionError and ShapeError as `InstanceNorm1d`.

    >>> import numpy as np
    >>> from fastnn import nn
    >>> nn.InstanceNorm2d(3).predict(np.ones((2, 3, 4, 4), np.float32)).shape
    (2, 3, 4, 4)
    """

    ranks = (2,)


publish(globals(), type)
