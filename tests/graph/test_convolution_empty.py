"""Inputs without a step, a row or a column: windows would have nothing but padding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fastnn import nn
from fastnn.errors import ShapeError

#: label -> layer for an input with two channels
OVER_TIME: dict[str, Callable[[str], nn.Module]] = {
    "convolution": lambda c: nn.Conv1d(2, 3, 3, padding=2, channels=c),
    "of kernel 1": lambda c: nn.Conv1d(2, 3, 1, channels=c),
    "causal": lambda c: nn.Conv1d(2, 3, 3, padding="causal", channels=c),
    "transposed": lambda c: nn.ConvTranspose1d(2, 3, 3, stride=2, output_padding=1, channels=c),
    "maxima": lambda c: nn.MaxPool1d(3, padding=1, channels=c),
    "averages": lambda c: nn.AvgPool1d(3, padding=1, channels=c),
    "norms": lambda c: nn.LPPool1d(2, 1, channels=c),
    "adaptive": lambda c: nn.AdaptiveAvgPool1d(2, channels=c),
    "global average": nn.GlobalAvgPool1d,
    "global maximum": nn.GlobalMaxPool1d,
    "up-sampling": lambda c: nn.Upsample(4, channels=c),
    "batch normalisation": lambda c: nn.BatchNorm1d(2, channels=c),
}
OF_IMAGES: dict[str, Callable[[str], nn.Module]] = {
    "convolution": lambda c: nn.Conv2d(2, 3, 3, padding=2, channels=c),
    "transposed": lambda c: nn.ConvTranspose2d(2, 3, 3, channels=c),
    "maxima": lambda c: nn.MaxPool2d(3, padding=1, channels=c),
    "averages": lambda c: nn.AvgPool2d(3, padding=1, channels=c),
    "adaptive": lambda c: nn.AdaptiveAvgPool2d(2, channels=c),
    "global average": nn.GlobalAvgPool2d,
    "up-sampling": lambda c: nn.Upsample(scale_factor=2, channels=c),
    "batch normalisation": lambda c: nn.BatchNorm2d(2, channels=c),
}


@pytest.mark.parametrize("name", OVER_TIME)
def test_no_steps(name: str) -> None:
    for channels, shape in (("first", (2, 2, 0)), ("last", (2, 0, 2))):
        with pytest.raises(ShapeError, match=r"expected an input with steps, got \(0,\) of them"):
            OVER_TIME[name](channels).predict(np.zeros(shape, np.float32))


@pytest.mark.parametrize("extents", [(0, 5), (5, 0)])
@pytest.mark.parametrize("name", OF_IMAGES)
def test_no_rows_or_columns(name: str, extents: tuple[int, int]) -> None:
    for channels, shape in (("first", (2, 2, *extents)), ("last", (2, *extents, 2))):
        with pytest.raises(ShapeError, match=r"expected an input with rows and columns, got \("):
            OF_IMAGES[name](channels).predict(np.zeros(shape, np.float32))


def test_sequences_without_steps_alone() -> None:
    """A batch of which no sequence has a step; one among others is no error."""
    layer = nn.Conv1d(2, 3, 3, padding=2)
    with pytest.raises(ShapeError, match="leave out what has none"):
        layer.predict(np.zeros((2, 2, 0), np.float32), np.array([0, 0]))
