"""The formulas of gated units, for both devices."""

from ..declare import helper
from ..scalar import sigmoid, tanh


@helper
def linear_unit(a, b, dy):
    """Gradients of a * sigmoid(b) with respect to a and b."""
    s = sigmoid(b)
    return dy * s, dy * a * s * (1.0 - s)


@helper
def tanh_unit(a, b, dy):
    """Gradients of tanh(a) * sigmoid(b) with respect to a and b."""
    t, s = tanh(a), sigmoid(b)
    return dy * s * (1.0 - t * t), dy * t * s * (1.0 - s)
