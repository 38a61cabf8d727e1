"""Parameters at a point beside where they are, for differences of gradients."""

from ..control_block import STEP
from ..declare import kernel
from ..simd import lanes, load_first, store_first


@kernel(elementwise=True)
def shift_parameter(
    p: "in rows f[R,C]",
    shift: "in rows f[R,C]",
    g: "in rows f[R,C]",
    y: "out rows f[R,C]",
    control: "in whole i[L]",
    lo: "begin",
    hi: "end",
):
    """y = p + shift; p + g in the first step, when there is no shift yet."""
    w, first = lanes(p), control[STEP] == 0
    begin, end = lo * p.shape[1], hi * p.shape[1]
    for i in range(begin, end, w):
        m = min(end - i, w)
        if first:
            store_first(y, i, load_first(p, i, m) + load_first(g, i, m), m)
        else:
            store_first(y, i, load_first(p, i, m) + load_first(shift, i, m), m)
