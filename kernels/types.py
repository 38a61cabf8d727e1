"""The element types of arrays, a row each: the letters of annotations, of values and of operands.

*Storage* is how elements lie in memory, *arithmetic* what they are computed and written down in.
The program's float type, float32 or float64, takes the place of PROGRAM, that of the user's data
the place of DATA.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from . import recorded

recorded.record()

PROGRAM = "the program's"
DATA = "the data's"


class ElementType(NamedTuple):
    """A row of the table; types by their NumPy names."""

    letter: str
    words: str  # what it is called in messages
    storage: str
    arithmetic: str


TYPES = {
    row.letter: row
    for row in (
        ElementType("f", "floating-point", PROGRAM, PROGRAM),
        ElementType("r", "double-precision", "float64", "float64"),
        ElementType("i", "integer", "int64", "int64"),
        ElementType("d", "user's", DATA, PROGRAM),
        ElementType("b", "bfloat16", "uint16", PROGRAM),
        ElementType("h", "float16", "uint16", PROGRAM),
    )
}
LETTERS = "".join(TYPES)
#: types of scalar parameters, by the word in an annotation
SCALARS = {"real": PROGRAM, "double": "float64", "int": "int64"}


def storage(letter: str, program: str, data: str = "") -> str:
    """NumPy's name of the type that elements lie in memory as.

    Args:
        letter: the element type's.
        program: the program's float type.
        data: the type of the user's data, for "d".
    """
    return {PROGRAM: program, DATA: data}.get(TYPES[letter].storage, TYPES[letter].storage)


def scalar(kind: str, program: str) -> str:
    """NumPy's name of the type of a scalar parameter."""
    return {PROGRAM: program}.get(SCALARS[kind], SCALARS[kind])


def item_size(letter: str, program: str) -> int:
    """Bytes of an element in memory; a word's for "d", which lie in segments of their own."""
    return np.dtype(storage(letter, program, data="int64")).itemsize


def constant_type(letter: str) -> str:
    """NumPy's name of the type that constants are kept in until a program's float type is known."""
    return {PROGRAM: "float64"}.get(TYPES[letter].arithmetic, TYPES[letter].arithmetic)
