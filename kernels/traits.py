"""What is declared of a kernel beside its signature."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from fastnn.errors import OptionError


@dataclass(frozen=True)
class Ending:
    """Says what a kernel does at once: a call of one kernel and the call of `after` that takes what
    the first has written, which nobody else looks at.

    Names are those of parameters: the first writes `written`, the other reads it as `taken` and
    writes `given`. The kernel's own parameters are called as theirs, its result by a name that is
    left.
    """

    first: str
    after: str
    written: str
    taken: str
    given: str
    #: what the other reads besides
    also: str = ""
    #: parameters that say which of several kernels the other is
    numbers: tuple[tuple[str, int], ...] = ()
    #: what `also` is called here, where its name is taken; it is as large as the result then
    called: str = ""
    #: sizes of the first (letters of its signature) up to which the kernel is the faster one
    most: tuple[tuple[str, int], ...] = ()


def term_of(
    first: str, written: str, most: tuple[tuple[str, int], ...] = ()
) -> tuple[Ending, Ending]:
    """The endings of a kernel that adds what `first` computes to its array `given`."""
    sides = (("a", "b"), ("b", "a"))
    return tuple(  # type: ignore[return-value]
        Ending(first, "add_forward", written, taken, "y", also, called="given", most=most)
        for taken, also in sides
    )


@dataclass(frozen=True)
class Besides:
    """Says what a kernel does at once: a call of one kernel and the call of `other`, which reads
    the same array (`read` of the first, `taken` of the other). What the other writes (`given`) is
    called `written` here."""

    first: str
    other: str
    read: str
    taken: str
    given: str
    written: str


@dataclass(frozen=True)
class InPlace:
    """Says that a kernel copies `x` to `y` but for a part, and which kernel (`kernel`) changes only
    that part of its own array `x`. That one's parameters are called the same; there is no `y`, and
    maybe working memory as large as `x` (`room`)."""

    x: str
    y: str
    kernel: str
    room: str = ""


@dataclass(frozen=True)
class Traits:
    """What graph, planner and compilers have to know of a kernel beside its signature."""

    #: sums over the rows of its inputs, however many: the sum of its results for the rows of
    #: several steps is its result for all of their rows
    sums_rows: bool = False
    #: an element of the result is a sum over the batch, of products of elements of these arrays (or
    #: of elements of the one): what bounds them bounds it
    factors: tuple[str, ...] = ()
    #: a matrix product: the letters whose sizes multiply to the number of multiply-adds
    product: tuple[str, ...] = ()
    #: kernels of one family do the same work at different sizes: which is wanted is known only when
    #: a model is planned, so they are compiled together
    family: str = ""
    #: exchanges the first two dimensions of its array `x`
    swaps_leading: bool = False
    #: arrays of which row i depends on row i alone, although the items are columns
    rows_apart: tuple[str, ...] = ()
    #: arrays of which row i is made of row i and of statistics of all rows
    by_statistics: tuple[str, ...] = ()
    #: the kernel that computes the same of many rows, from copies of `factors` that it makes
    copied_as: str = ""
    #: the kernel that computes the same from the matrix that is packed for it ("w")
    turned_as: str = ""
    #: the same, packing that matrix block by block
    blocked_as: str = ""
    #: as these two, split by columns of the result: rows of that matrix
    turned_columns_as: str = ""
    blocked_columns_as: str = ""
    #: the kernel that computes the same and leaves out elements of the left factor that are 0, or
    #: of the right one, `dy`
    sparse_as: str = ""
    turned_sparse_as: str = ""
    #: the kernel that computes the same of large matrices, as the product of the transposed left
    #: factor "x" and the matrix "w", and leaves out elements of that factor that are 0
    transposed_sparse_as: str = ""
    #: the kernel by which one worker computes the same of few rows, and takes the matrix "w" from
    #: the others' caches
    taking_as: str = ""
    #: many elements of its result may be 0
    many_zeros: bool = False
    #: elements of its result are 0 where those of its array `x` are
    keeps_zeros: bool = False
    #: likewise, and those of data are many: it copies them for a product
    copies: bool = False
    #: what its array `x`, an output of the model, has to be; beyond that results are not finite
    expects: str = ""
    #: factors of its products, which lower precisions round before it is called
    rounds: tuple[str, ...] = ()
    #: copies its array `w` to `packed`, the layout that products read fastest
    packs: bool = False
    #: looks at numbers only, and may ask for the end of the run
    checks: bool = False
    #: counts, remembers or ends a step: no part of the maths, and must not be made twice in a step
    bookkeeping: bool = False
    #: is a function of the host (`host.py`), which may raise an exception: no device has code of it
    host: bool = False
    #: adds numbers of the rows of its "in" arrays to running totals
    totals_rows: bool = False
    #: takes each element with those at the same place of its "rows" arrays, all as large and with
    #: two dimensions, whatever rows they are in
    elementwise: bool = False
    #: the result is the sum of the arrays that it reads, element by element
    adds: bool = False
    #: is compiled first, because it takes long
    slow_to_compile: bool = False
    #: pairs of calls that it may stand for
    endings: tuple[Ending, ...] = ()
    besides: tuple[Besides, ...] = ()
    #: how it is done where its array need not be kept
    in_place: InPlace | None = None
    #: the kernel whose sums it computes too, added to an array of zeros (its "inout" array), and
    #: faster where that has more rows than there are ids
    occurring_of: str = ""
    #: clears an array for others: such arrays may lie side by side and be cleared at once
    clears: bool = False
    #: counts the step
    advances: bool = False
    #: on CUDA one block computes all of it, and may compute other kernels in turn
    #: (`cuda/joined.py`)
    one_block: bool = False
    #: on CUDA, threads of a block in float64 at most, whose numbers take two registers each
    float64_threads: int = 0
    #: exists in float32 programs alone
    only_float32: bool = False
    #: is known when a step begins: a GPU computes it there, with what follows from it alone
    begins: bool = False
    #: the kernel that computes the same of few numbers by one block of a GPU
    few_as: str = ""
    #: the kernel that also does what a check of its result does, whose numbers it takes
    checked_as: str = ""
    #: the kernel that also writes what becomes of its array `p` in 16 bits
    halves_as: str = ""
    #: works in its result, also where that is wanted in 16 bits
    works_in_result: bool = False
    #: may compute on the CPU's tile unit
    tile_unit: bool = False

    def __repr__(self) -> str:
        told = {f.name: getattr(self, f.name) for f in fields(self)}
        found = [f"{n}={v!r}" for n, v in told.items() if v]
        return f"Traits({', '.join(found)})"


#: of a kernel that nothing is declared of
NONE = Traits()


def with_traits(label: str, known: Traits, given: dict[str, Any]) -> Traits:
    """`known` with those that are given by name; `label` is the kernel's name."""
    try:
        return replace(known, **given)
    except TypeError:
        names = [field.name for field in fields(Traits)]
        raise OptionError(
            f"kernel {label!r}: expected options among {names}, got "
            f"{sorted(set(given) - set(names))[0]!r}"
        ) from None
