"""Which places of an axis a window has, for both devices."""

from ..declare import helper


@helper
def window_begin(place, stride, before, kernel, extent, places, adaptive):
    """The first place of window number `place` within the axis of `extent` places; `adaptive`
    windows share out the axis among `places` windows."""
    if adaptive:
        return place * extent // places
    return max(place * stride - before, 0)


@helper
def window_end(place, stride, before, kernel, extent, places, adaptive):
    """The place after its last one within the axis."""
    if adaptive:
        return ((place + 1) * extent + places - 1) // places
    return min(place * stride - before + kernel, extent)


@helper
def window_size(place, stride, before, kernel, extent, places, adaptive):
    """How many places it has, the padding included."""
    if adaptive:
        begin = place * extent // places
        return ((place + 1) * extent + places - 1) // places - begin
    begin = place * stride - before
    return min(begin + kernel, extent + before) - begin
