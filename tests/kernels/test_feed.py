"""Gathering the mini-batch from the user's data and scattering results."""

import numpy as np
import pytest

import fastnn.kernels.feed.cpu  # noqa: F401
from fastnn.kernels import control_block
from fastnn.kernels.declare import KERNELS
from fastnn.testing.kernels import call
from tests.kernels.common import DTYPES, EDGES, compute

TYPES = ["float32", "float64", "uint8", "int8", "int16", "int32", "int64"]


def control_at(cursor):
    control = np.zeros(control_block.LENGTH, np.int64)
    control[control_block.CURSOR] = cursor
    return control


def samples(shape, dtype):
    rng = np.random.default_rng(1)
    return (100 * rng.standard_normal(shape)).astype(np.int64).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source_type", TYPES)
def test_gather_rows_converts(source_type, dtype):
    source = samples((50, 33), source_type)
    order = np.random.default_rng(2).permutation(50)
    control = control_at(20)
    given = dict(source=source, order=order, control=control)
    y = compute("gather_rows", dtype, {"y": (17, 33)}, **given)["y"]
    np.testing.assert_array_equal(y, source[order[20:37]].astype(dtype))


@pytest.mark.parametrize("C", EDGES)
def test_gather_rows_sizes(C):
    source = np.random.default_rng(3).standard_normal((20, C)).astype(np.float32)
    order = np.random.default_rng(4).integers(0, 20, 40)
    given = dict(source=source, order=order, control=control_at(7))
    y = compute("gather_rows", np.float32, {"y": (33, C)}, **given)["y"]
    np.testing.assert_array_equal(y, source[order[7:]])


@pytest.mark.parametrize("source_type", ["uint8", "int32", "int64"])
def test_gather_ids(source_type):
    source = samples((50, 3), source_type)
    order = np.random.default_rng(2).permutation(50)
    given = dict(source=source, order=order, control=control_at(3))
    y = compute("gather_ids", np.float32, {"y": (16, 3)}, **given)["y"]
    np.testing.assert_array_equal(y, source[order[3:19]])


@pytest.mark.parametrize("dtype", [*DTYPES, np.int64])
def test_scatter(dtype):
    x = (100 * np.random.default_rng(5).standard_normal((6, 17))).astype(dtype)
    name = "scatter_ids" if dtype == np.int64 else "scatter_rows"
    y = np.full((20, 17), 7, dtype)
    for lo, hi in ((0, 1), (1, 4), (4, 6)):
        call(KERNELS[name], lo, hi, x=x, control=control_at(9), y=y)
    np.testing.assert_array_equal(y[9:15], x)
    np.testing.assert_array_equal(y[:9], 7)
    np.testing.assert_array_equal(y[15:], 7)
