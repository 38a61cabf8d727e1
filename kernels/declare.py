"""How a kernel is declared: an ordinary Python function with annotated parameters.

A kernel is written like this::

    @kernel
    def relu_backward(
        y: "in rows f[N,C]",      # output of the forward pass
        dy: "in rows f[N,C]",
        dx: "out rows f[N,C]",
        lo: "begin",
        hi: "end",
    ):
        ...

It computes items ``lo`` to ``hi`` (exclusive) of its *items*: here the N rows. Whoever calls it
decides on the range: the run loop gives each worker a share and may cut the share into blocks; a
test may call it with any split at all, and the bits have to be the same.

An array's annotation says, in this order:

- ``in``: read; ``out``: written completely (within the items); ``inout``: read and written;
  ``part``: written in part, the rest left as it is; ``scratch``: the call's own working memory,
  of which nobody may use what was there before or is there afterwards. ``out*`` (and ``part*``)
  has gaps that the call leaves as they are, and a call does not look at the gaps that an ``in*``
  has: for arrays whose layout two kernels share (padding between time steps, steps past the end);
  ``inout*`` fills them;
  ``flag``: single words of it may be set, each to one value only, by any item in any order;
- ``rows``: item ``i`` touches only row ``i`` (the first dimension), ``cols``: only column ``i``
  (the last dimension), ``whole``: any part of it;
- the element type: ``f`` the program's float type (float32 or float64), ``r`` float64 always,
  ``i`` int64, ``d`` the type of the user's data (the table is in `types.py`);
- the dimensions, one letter each; equal letters have to be equal sizes (checked when a kernel is
  bound). An array of higher rank is folded to the declared rank by merging leading dimensions.

Scalars are ``"real"`` (the program's float type), ``"double"`` (float64) or ``"int"`` (int64).
Nothing here imports Numba: an undecorated call runs the function as plain Python on NumPy arrays.

What else fastnn has to know of a kernel is declared with it, too (`Traits`)::

    @kernel(sums_rows=True, factors=("x",))
    def sum_rows(x: "in whole f[N,C]", ...

A signature is written once, at the kernel for the CPU. Its counterpart for CUDA has the same name
and parameters, less ``lo`` and ``hi``, and takes their annotations and traits from it; it says how
many blocks of how many threads it is launched with::

    @cuda_kernel(like=cpu.relu_backward, launch=lambda s: (ceil_div(s["N"] * s["C"], 256), 256))
    def relu_backward(y, dy, dx):
        ...

where ``s`` has the size of each dimension letter and the value of each integer parameter. A kernel
that only CUDA has is annotated like one for the CPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any

from fastnn.cached import cached
from fastnn.errors import OptionError

from .signature import Array as Array  # others take both from here
from .signature import Scalar, annotations_of, parse_parameter
from .topics import load
from .traits import NONE, with_traits
from .traits import Traits as Traits

ShareRule = Callable[[dict[str, int]], tuple[int, int, int]]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A kernel's Python function with its parsed signature.

    ``grain``: shares of workers begin at multiples of it. ``block``: fewest items that a share is
    cut into, for kernels that read something large once for all items of a range. ``items`` is the
    dimension letter that ``lo`` and ``hi`` count, or None for a kernel that runs once, on one
    worker. ``share``: for "part" arrays, from sizes (dimension letters and integer parameters, by
    name) to which part a call writes: (from, to, of how many). ``given``: the name that its author
    gave, where it is entered under another one.
    """

    name: str
    function: Callable[..., None]
    params: dict[str, Array | Scalar]
    items: str | None
    grain: int = 1
    block: int = 1
    share: ShareRule | None = None
    traits: Traits = NONE
    given: str = ""

    @property
    def shown(self) -> str:
        """The name for messages: the one that stands in the source."""
        return self.given or self.name

    @property
    def doc(self) -> str:
        """What the kernel computes."""
        return inspect.getdoc(self.function) or ""

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Run as plain Python (NumPy arrays in, results written in place)."""
        self.function(*args, **kwargs)

    @cached
    def arrays(self) -> dict[str, Array]:
        return {n: p for n, p in self.params.items() if isinstance(p, Array)}

    @property
    def may_raise(self) -> bool:
        """Whether it may raise an exception: one that is not fastnn's own (`raise`, `assert`, an
        assignment of arrays whose shapes differ, an index that is checked). Updates don't count,
        which have no module: what they raise is no longer before them."""
        module = self.function.__module__
        own = module is None or module.startswith(f"{__package__}.")
        return self.traits.host or not own


@dataclass(frozen=True, eq=False)
class CudaKernel:
    """A CUDA kernel's Python function with its parsed signature and launch geometry.

    ``launch``: from sizes (dimension letters and integer parameters, by name) to the grid (a
    number of blocks, or a tuple of up to three) and the threads of a block (likewise).
    ``cooperative``: the blocks wait for each other (a grid barrier), so all have to fit on the
    device at once. ``shared``: from the same sizes, and "shared_limit", the elements that a block
    may have, to the elements (of the program's float type) of dynamic shared memory that it needs.
    ``bounds``: most threads of a block and, if wanted, fewest blocks that share a processor; the
    compiler gives a thread no more registers than fit that. ``share``: as of `Kernel`. ``like``:
    its counterpart for the CPU, which has its annotations. ``cluster``: from the same sizes to how
    many neighbouring blocks are a cluster, whose blocks reach each other's shared memory (compute
    capability 9.0).
    """

    name: str
    function: Callable[..., None]
    params: dict[str, Array | Scalar]
    launch: Callable[[dict[str, int]], tuple[Any, Any]]
    cooperative: bool = False
    shared: Callable[[dict[str, int]], int] | None = None
    bounds: int | tuple[int, int] | None = None
    share: ShareRule | None = None
    traits: Traits = NONE
    like: Kernel | None = None
    cluster: Callable[[dict[str, int]], int] | None = None
    #: what the planner asks of a kernel: one that only CUDA has computes all items at once
    items: str | None = None
    grain: int = 1
    block: int = 1
    may_raise: bool = False
    shown = property(lambda self: self.name)  # as of `Kernel`

    @property
    def doc(self) -> str:
        """What the kernel computes; its counterpart says it where it has nothing to add."""
        return inspect.getdoc(self.function) or (self.like.doc if self.like else "")

    @cached
    def arrays(self) -> dict[str, Array]:
        return {n: p for n, p in self.params.items() if isinstance(p, Array)}

    def bounds_in(self, dtype: str) -> int | tuple[int, int] | None:
        """``bounds`` in a program of this float type.

        In float64, whose numbers take two registers each, half as many blocks share them.
        """
        if dtype != "float64":
            return self.bounds
        if self.traits.float64_threads:
            return self.traits.float64_threads
        if isinstance(self.bounds, tuple):
            threads, blocks = self.bounds
            return threads, max(1, blocks // 2)
        return self.bounds

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Whether a device of this compute capability has what the kernel needs."""
        return self.cluster is None or capability >= CLUSTERS


#: compute capability from which on blocks form clusters
CLUSTERS = (9, 0)


class Table(dict[str, Any]):
    """Kernels of a device by name. Those of fastnn are imported when one is looked up that is not
    there (`table[name]`); what else a dict does goes by what is there already (see `topics.load`).
    """

    def __init__(self, device: str):
        super().__init__()
        self.device = device

    def __missing__(self, name: str) -> Any:
        if self.device == "cpu" and name in HOST_CALLS:
            return HOST_CALLS[name]
        load(self.device)
        if name not in self:
            raise KeyError(name)
        return self[name]


#: what stands for calls of the host (`host.py`): found in `KERNELS`, but not among them
HOST_CALLS: dict[str, Kernel] = {}
#: kernels by name, and those for CUDA
KERNELS: dict[str, Kernel] = Table("cpu")
CUDA_KERNELS: dict[str, CudaKernel] = Table("cuda")


def declared(name: str) -> Kernel | CudaKernel | None:
    """The kernel of this name, for the planner: the CPU's, or one that only CUDA has."""
    try:
        return KERNELS[name]
    except KeyError:
        return declared_for_cuda(name)


def kernel_of(name: str) -> Kernel | CudaKernel:
    """The kernel of this name, which has to be there: KeyError if it is not."""
    found = declared(name)
    if found is None:
        raise KeyError(f"no kernel is called {name!r}")
    return found


def declared_for_cuda(name: str) -> CudaKernel | None:
    """The kernel for CUDA of this name."""
    try:
        return CUDA_KERNELS[name]
    except KeyError:
        return None


#: plain functions that kernels may call (registered with Numba at the first compilation)
HELPERS: list[Callable[..., Any]] = []


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a plain function as callable from kernels: it is compiled into them, always inlined.

    Raises OptionError for a function that calls print, which compiled code cannot.
    """
    _refuse_print(function, function.__name__)
    HELPERS.append(function)
    return function


def _refuse_print(function: Callable[..., Any], name: str) -> None:
    """Compiled code runs without Python's lock and can't print."""

    def prints(code: Any) -> bool:
        inner = (c for c in code.co_consts if isinstance(c, CodeType))
        return "print" in code.co_names or any(map(prints, inner))

    if "print" not in function.__globals__ and prints(function.__code__):
        raise OptionError(
            f"{name!r} calls print, which compiled code can't; write what you want to see into an "
            "'out' array, or call the function as plain Python on NumPy arrays"
        )


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def kernel(
    function: Callable[..., None] | None = None,
    *,
    grain: int = 1,
    block: int = 1,
    share: ShareRule | None = None,
    name: str | None = None,
    **traits: Any,
) -> Any:
    """Declare a kernel: a function of arrays and numbers that computes its items `lo` to `hi`.

    Annotations say what each parameter is: ``"in rows f[N,C]"`` is a float array that is read, item
    ``i`` being its row ``i``; ``"out rows f[N,C]"`` one that is written completely; ``"whole"``
    instead of ``"rows"`` means any part of it, ``"cols"`` column ``i``; ``i`` instead of ``f``
    integers; ``"real"`` and ``"int"`` are numbers. Equal letters are equal sizes. The text of
    `fastnn.kernels.declare` has all of it.

    Args:
        function: the function; its name is the kernel's, unless `name` gives another.
        grain, block, share: as of `Kernel`.
        name: the kernel's name.
        traits: as of `Traits`.

    Raises:
        OptionError: an annotation can't be read, the items don't fit each other, or a kernel of
            fastnn has the name.
    """
    if function is None:
        return lambda f: kernel(f, grain=grain, block=block, share=share, name=name, **traits)
    label = name or function.__name__
    _refuse_print(function, label)
    annotations = annotations_of(function)
    names = list(annotations)
    ranged = names[-2:] == ["lo", "hi"]
    params = {
        n: parse_parameter(label, n, annotations[n]) for n in (names[:-2] if ranged else names)
    }
    letters = {p.item_letter for p in params.values() if isinstance(p, Array)} - {None}
    if ranged and len(letters) != 1:
        raise OptionError(
            f"kernel {label!r} takes lo and hi: all of its 'rows' and 'cols' arrays must share one "
            f"item dimension, found {sorted(map(str, letters)) or 'none'}"
        )
    if not (function.__module__ or "fastnn.").startswith("fastnn."):
        load("cpu")
    module = getattr(KERNELS.get(label), "function", function).__module__ or ""
    if module.startswith("fastnn.") and module != function.__module__:
        raise OptionError(
            f"a kernel called {label!r} exists already, in {module}; choose another name"
        )
    items = letters.pop() if ranged else None
    told = with_traits(label, NONE, traits)
    result = Kernel(label, function, params, items, grain, block, share, told)
    KERNELS[label] = result
    return result


def cuda_kernel(
    function: Callable[..., None] | None = None,
    *,
    launch: Callable[[dict[str, int]], tuple[Any, Any]],
    like: Kernel | None = None,
    cooperative: bool = False,
    shared: Callable[[dict[str, int]], int] | None = None,
    bounds: int | tuple[int, int] | None = None,
    share: ShareRule | None = None,
    cluster: Callable[[dict[str, int]], int] | None = None,
    name: str | None = None,
    **traits: Any,
) -> Any:
    """Declare a kernel for CUDA (see the module's text) and enter it in `CUDA_KERNELS`.

    Args:
        function: the function. With `like` its parameters are that kernel's, less ``lo`` and
            ``hi``, without annotations; otherwise they are annotated as of `kernel`.
        launch, cooperative, shared, bounds, share, cluster: as of `CudaKernel`.
        like: the kernel for the CPU that this one computes the same as: it gives the name, what
            parameters are, `share` and the traits.
        name: the kernel's name, where it is neither the function's nor that of `like`.
        traits: as of `Traits`.

    Raises:
        OptionError: an annotation can't be read, or names and parameters are not those of `like`.
    """
    if function is None:
        return lambda f: cuda_kernel(
            f, launch=launch, like=like, cooperative=cooperative, shared=shared, bounds=bounds,
            share=share, cluster=cluster, name=name, **traits,
        )  # fmt: skip
    label = name or function.__name__
    annotations = annotations_of(function)
    if like is None:
        params = {n: parse_parameter(label, n, text) for n, text in annotations.items()}
        told = NONE
    else:
        _compare(label, like, annotations, name is None)
        params, told, share = like.params, like.traits, share or like.share
    told = with_traits(label, told, traits)
    result = CudaKernel(
        label, function, params, launch, cooperative, shared, bounds, share, told, like, cluster
    )
    CUDA_KERNELS[label] = result
    return result


def _compare(label: str, like: Kernel, annotations: dict[str, str], named_alike: bool) -> None:
    """Refuse a CUDA kernel that has not the name and the parameters of its counterpart."""
    if not isinstance(like, Kernel):
        raise OptionError(
            f"CUDA kernel {label!r}: expected like= to be a kernel for the CPU, a function "
            f"decorated with @fnn.kernel, got {type(like).__name__}"
        )
    if named_alike and label != like.name:
        raise OptionError(
            f"CUDA kernel {label!r}: expected the name of its counterpart, {like.name!r}; rename "
            "the function, or give name="
        )
    if list(annotations) != list(like.params):
        raise OptionError(
            f"CUDA kernel {label!r}: expected the parameters {list(like.params)} of its "
            f"counterpart for the CPU, got {list(annotations)}"
        )
    twice = [n for n, text in annotations.items() if text != str(inspect.Parameter.empty)]
    if twice:
        raise OptionError(
            f"CUDA kernel {label!r}, parameter {twice[0]!r}: its annotation is that of the kernel "
            "for the CPU (like=); leave it out here"
        )
