"""Which places of an axis a window has, for both devices.

Element i of window p is the place ``p*stride - before + i*dilation``; places outside of the axis
are left out.
"""

from ..declare import helper


@helper
def first_inside(begin, step):
    """The first i >= 0 with begin + i*step >= 0."""
    return 0 if begin >= 0 else (-begin + step - 1) // step


@helper
def end_inside(begin, step, extent, count):
    """The first i >= 0 with begin + i*step >= extent, but no more than count."""
    return min(count, max((extent - begin + step - 1) // step, 0))


@helper
def window_of(place, element, stride, dilation, before, windows):
    """The window that has this place as its element number `element`; -1 if there is none. (On the
    CPU the same lines in a kernel's own loops are a fifth faster.)"""
    begin = place + before - element * dilation
    window = begin // stride
    if begin < 0 or window * stride != begin or window >= windows:
        return -1
    return window
