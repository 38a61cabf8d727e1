"""ONNX's node tests of the ops that fastnn has; each module enters its operators."""

from tests.onnx import layers as layers
from tests.onnx import operators as operators
from tests.onnx import shapes as shapes
