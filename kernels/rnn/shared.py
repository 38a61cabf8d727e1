"""Activations by number, on vectors or single numbers: those of simple recurrent nets, and what
products on CUDA may end with."""

from ..declare import helper
from ..scalar import relu, relu_gradient, sigmoid, sigmoid_gradient, tanh, tanh_gradient

#: the activations' numbers by their ops; the gradient of each follows from its output
ACTIVATIONS = {"tanh": 0, "relu": 1, "sigmoid": 2}


@helper
def activate(v, activation):
    """f(v): tanh (0), relu (1) or sigmoid (2)."""
    if activation == 0:
        return tanh(v)
    if activation == 1:
        return relu(v)
    return sigmoid(v)


@helper
def activate_gradient(y, dy, activation):
    """dy times the derivative of f, from the output y."""
    if activation == 0:
        return tanh_gradient(y, dy)
    if activation == 1:
        return relu_gradient(y, dy)
    return sigmoid_gradient(y, dy)
