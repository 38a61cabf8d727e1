"""Which places of an axis a window of an average has, for both devices."""

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


@helper
def share(p, q, rows, columns, places_h, places_w, kernel_h, kernel_w, stride_h, stride_w, top,
          left, adaptive, padding_counts, divisor):  # fmt: skip
    """How many elements the sum of window (p, q) is divided by."""
    if divisor > 0:
        return divisor
    if padding_counts:
        return window_size(p, stride_h, top, kernel_h, rows, places_h, adaptive) * window_size(
            q, stride_w, left, kernel_w, columns, places_w, adaptive
        )
    high = window_end(p, stride_h, top, kernel_h, rows, places_h, adaptive) - window_begin(
        p, stride_h, top, kernel_h, rows, places_h, adaptive
    )
    return high * (
        window_end(q, stride_w, left, kernel_w, columns, places_w, adaptive)
        - window_begin(q, stride_w, left, kernel_w, columns, places_w, adaptive)
    )
