"""Units with gates on CUDA: a thread for each output."""

from ..cuda.device import divide_index, flat, flat_index, fours_launch
from ..declare import cuda_kernel
from ..scalar import sigmoid, tanh
from . import cpu
from .shared import linear_unit, tanh_unit


def units_launch(s):
    """A thread for every output."""
    return fours_launch(4 * s["N"] * s["C"])


@cuda_kernel(like=cpu.glu_forward, launch=units_launch)
def glu_forward(x, y):
    i, C = flat_index(), y.shape[1]
    if i < y.size:
        at = i + divide_index(i, C) * C
        flat(y)[i] = flat(x)[at] * sigmoid(flat(x)[at + C])


@cuda_kernel(like=cpu.glu_backward, launch=units_launch)
def glu_backward(x, dy, dx):
    i, C = flat_index(), dy.shape[1]
    if i < dy.size:
        at = i + divide_index(i, C) * C
        da, db = linear_unit(flat(x)[at], flat(x)[at + C], flat(dy)[i])
        flat(dx)[at] = da
        flat(dx)[at + C] = db


@cuda_kernel(like=cpu.gtu_forward, launch=units_launch)
def gtu_forward(x, y):
    i, C = flat_index(), y.shape[1]
    if i < y.size:
        at = i + divide_index(i, C) * C
        flat(y)[i] = tanh(flat(x)[at]) * sigmoid(flat(x)[at + C])


@cuda_kernel(like=cpu.gtu_backward, launch=units_launch)
def gtu_backward(x, dy, dx):
    i, C = flat_index(), dy.shape[1]
    if i < dy.size:
        at = i + divide_index(i, C) * C
        da, db = tanh_unit(flat(x)[at], flat(x)[at + C], flat(dy)[i])
        flat(dx)[at] = da
        flat(dx)[at + C] = db
