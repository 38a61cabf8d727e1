"""What a unit of the GRU computes and leaves in a turn, on CUDA."""

from typing import Any, NamedTuple

from ..declare import helper
from ..recurrent.cuda import Unit
from ..scalar import tanh
from .shared import gru_output


@helper
def forward_unit(z, xn, hn, h):
    """n and the new h of one unit."""
    n = tanh(xn + hn)
    return n, gru_output(z, n, h)


@helper
def keep_unit(r, z, n, fourth, out, saved, y, row, H, j):
    """Write what one unit's step leaves in row b*T + t of y and saved (both flat); `fourth` is
    h W_hn + b_hn, or r h."""
    k = row * 4 * H + j
    saved[k] = r
    saved[k + H] = z
    saved[k + 2 * H] = n
    saved[k + 3 * H] = fourth
    y[row * H + j] = out


class Slopes(NamedTuple):
    """Gradients to the gates' sums: of r, of z, of n by x, of n by h."""

    r: Any
    z: Any
    n: Any
    nh: Any


class Gradients(NamedTuple):
    """What the backward pass leaves, flat: gradients to the sums of x and of h, the h that each
    step began with; with the reset before the product r h and the gradients of n, else absent."""

    sums: Any
    sums_h: Any
    begun: Any
    products: Any
    candidates: Any


@helper
def keep_gradient(slopes: Slopes, h, fourth, out: Gradients, early, unit: Unit):
    """Write what one unit's step leaves. With the reset before the product dr follows later."""
    dr, dz, dn, dnh = slopes
    sums, sums_h, begun, products, candidates = out
    row, H, j = unit
    x = row * 3 * H + j
    sums[x + H] = dz
    sums[x + 2 * H] = dn
    begun[row * H + j] = h
    if early:
        sums_h[row * 2 * H + H + j] = dz
        products[row * H + j] = fourth
        candidates[row * H + j] = dn
    else:
        sums[x] = dr
        sums_h[x] = dr
        sums_h[x + H] = dz
        sums_h[x + 2 * H] = dnh
