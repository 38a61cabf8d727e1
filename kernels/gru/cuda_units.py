"""What a unit of the GRU computes and leaves in a turn, on CUDA."""

from ..declare import helper
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


@helper
def keep_gradient(
    dr, dz, dn, dnh, h, fourth, sums, sums_h, begun, products, candidates, early, row, H, j
):  # fmt: skip
    """Write what one unit's step leaves in row b*T + t (arrays are flat). With the reset before the
    product there are `products` (r h) and `candidates` (gradients of n), and dr follows later."""
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
