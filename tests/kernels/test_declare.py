"""How kernels are declared: signatures once, traits at the kernel, errors that say what to do."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import fastnn
import fastnn.optim
from fastnn.errors import OptionError
from fastnn.kernels import types
from fastnn.kernels.declare import CUDA_KERNELS, KERNELS, Array, Traits, cuda_kernel, kernel
from fastnn.kernels.host import host_call
from fastnn.runtime.cpu import ahead
from fastnn.runtime.cuda import report
from fastnn.testing import kernels as testing

ONE = {"launch": lambda s: (1, 32)}


@pytest.fixture(autouse=True)
def _tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test declares is forgotten afterwards."""
    for table in (KERNELS, CUDA_KERNELS):
        for name in ("scaled", "other"):
            monkeypatch.setitem(table, name, None)
            monkeypatch.delitem(table, name)


def scaled_for_cpu():
    @kernel(sums_rows=True, share=lambda s: (0, 1, 2))
    def scaled(x: "in rows f[N]", y: "part rows f[N]", by: "real", lo: "begin", hi: "end"):
        """y = by x."""
        for i in range(lo, hi):
            y[i] = by * x[i]

    return scaled


def test_a_cuda_kernel_takes_all_from_its_counterpart() -> None:
    ours = scaled_for_cpu()

    @cuda_kernel(like=ours, **ONE)
    def scaled(x, y, by):
        y[:] = by * x

    assert CUDA_KERNELS["scaled"].like is ours
    assert list(scaled.params.items()) == list(ours.params.items())
    assert scaled.traits is not None
    assert scaled.traits.sums_rows
    assert scaled.share is ours.share
    assert scaled.doc == "y = by x."
    x, y = np.arange(3.0), np.zeros(3)
    ours(x, y, 2.0, 0, 3)  # plain Python, both
    assert y.tolist() == [0, 2, 4]
    scaled.function(x, y, 3.0)
    assert y.tolist() == [0, 3, 6]


def test_traits_may_differ_on_cuda() -> None:
    made = cuda_kernel(lambda x, y, by: None, like=scaled_for_cpu(), name="other", **ONE,
                       only_float32=True)  # fmt: skip
    assert made.traits == Traits(sums_rows=True, only_float32=True)
    assert made.name == "other"


def test_parameters_that_differ_are_an_error() -> None:
    def scaled(x, y, factor):
        pass

    with pytest.raises(OptionError, match=r"expected the parameters \['x', 'y', 'by'\] of its"):
        cuda_kernel(scaled, like=scaled_for_cpu(), **ONE)

    def swapped(y, x, by):
        pass

    with pytest.raises(OptionError, match=r"got \['y', 'x', 'by'\]"):
        cuda_kernel(swapped, like=scaled_for_cpu(), name="scaled", **ONE)
    assert "scaled" not in CUDA_KERNELS


def test_another_name_is_an_error() -> None:
    def rescaled(x, y, by):
        pass

    with pytest.raises(OptionError, match="'rescaled': expected the name of its counterpart"):
        cuda_kernel(rescaled, like=scaled_for_cpu(), **ONE)


def test_annotations_twice_are_an_error() -> None:
    def scaled(x, y: "part rows f[N]", by):
        pass

    with pytest.raises(OptionError, match="'y': its annotation is that of the kernel for the CPU"):
        cuda_kernel(scaled, like=scaled_for_cpu(), **ONE)


def test_a_counterpart_is_a_kernel() -> None:
    def scaled(x, y, by):
        pass

    with pytest.raises(OptionError, match="expected like= to be a kernel for the CPU"):
        cuda_kernel(scaled, like=scaled, **ONE)


def test_without_a_counterpart_annotations_are_needed() -> None:
    def other(x):
        pass

    with pytest.raises(OptionError, match="kernel 'other', parameter 'x': it has none; expected"):
        cuda_kernel(other, **ONE)


def test_unknown_traits_are_an_error() -> None:
    def other(x: "in whole f[N]"):
        pass

    with pytest.raises(OptionError, match=r"expected options among .*'sums_rows'.* got 'sum_rows'"):
        kernel(other, sum_rows=True)
    with pytest.raises(OptionError, match="got 'grains'"):
        cuda_kernel(other, **ONE, grains=2)


def test_every_trait_has_a_kernel_and_names_its_parameters() -> None:
    ahead.load_all()
    report.declare_all()
    everything = [*KERNELS.values(), *CUDA_KERNELS.values(), KERNELS[host_call(2)]]
    for field in fields(Traits):
        assert any(getattr(k.traits, field.name) for k in everything), field.name
    for made in everything:
        named = {*made.traits.factors, *made.traits.rows_apart}
        # so all of them is written and may be looked at, as the verifier proves
        assert not any(made.arrays[name].gaps for name in made.traits.factors), made.name
        if made.traits.packs:
            named |= {"w", "packed"}
        if made.traits.swaps_leading:
            named |= {"x", "y"}
        assert named <= set(made.params), made.name
        letters = {d for p in made.arrays.values() for d in p.dims}
        assert set(made.traits.product) <= letters, made.name
        if made.traits.elementwise:
            rows = {p.dims for p in made.arrays.values() if p.axis == "rows"}
            assert [len(dims) for dims in rows] == [2], made.name


def test_every_trait_is_asked_for() -> None:
    """What nobody wants to know is not declared."""
    folder = Path(fastnn.__file__).parent
    sources = [path.read_text(encoding="utf-8") for path in folder.rglob("*.py")]
    asking = [text for text in sources if re.search("traits", text, re.IGNORECASE)]
    for trait in fields(Traits):
        assert any(re.search(rf"\.{trait.name}\b", text) for text in asking), trait.name


@pytest.mark.parametrize(("name", "trait"), [
    ("check_finite", "checks"), ("check_size", "checks"), ("check_range", "checks"),
    ("accumulate", "bookkeeping"), ("accumulate_rows", "totals_rows"), ("latch", "bookkeeping"),
    ("add_forward", "adds"), ("bce_forward", "expects"), ("swap_leading_ids", "swaps_leading"),
    ("linear_backward_weight", "copied_as"), ("affine", "elementwise"), ("sum_rows", "sums_rows"),
    ("embedding_backward", "sums_rows"), ("linear_forward", "slow_to_compile"),
])  # fmt: skip
def test_traits_of_some(name: str, trait: str) -> None:
    ahead.load_all()
    assert getattr(KERNELS[name].traits, trait)


def test_the_cpu_loads_nothing_for_cuda() -> None:
    """Nor do kernels for CUDA need Numba's CUDA when they are imported."""
    source = (
        "import sys; from fastnn.kernels import topics; topics.load('cpu')\n"
        "import fastnn; fastnn.optim.Adam().kernels()\n"
        "print([m for m in sys.modules if 'cuda' in m and m.startswith('fastnn')])\n"
        "topics.load('cuda')\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('numba', 'numba_cuda', 'cuda')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_kernels_are_found_by_name() -> None:
    """Nobody has to import a module for that; updates for CUDA are made when CUDA's are listed."""
    source = (
        "import sys; from fastnn.kernels.declare import declared, KERNELS, CUDA_KERNELS\n"
        "print('softmax_forward' in KERNELS, declared('softmax_forward').name, declared('no'))\n"
        "from fastnn.runtime.cuda import report\n"
        "report.declare_all(['fastnn.optim.forms'])\n"
        "names = {n for n in KERNELS if n.endswith('_update')}\n"
        "print('adam_update' in names, names <= set(CUDA_KERNELS))"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split("\n")[:2] == ["False softmax_forward None", "True True"]


def test_the_table_of_types() -> None:
    for letter, row in types.TYPES.items():
        assert letter == row.letter
        fixed = {types.storage(letter, program, "uint8") for program in ("float32", "float64")}
        assert len(fixed) == 2 if letter == "f" else fixed == {types.storage(letter, "x", "uint8")}
        np.dtype(types.constant_type(letter))
    assert [types.item_size("f", p) for p in ("float32", "float64")] == [4, 8]
    assert [types.item_size(letter, "float32") for letter in "ri"] == [8, 8]
    assert types.storage("d", "float32", "uint8") == "uint8"
    assert types.item_size("d", "float32") == 8  # a word, whatever the data's type is
    kinds = [types.scalar(kind, "float32") for kind in ("real", "double", "int")]
    assert kinds == ["float32", "float64", "int64"]
    assert [types.constant_type(letter) for letter in "fri"] == ["float64", "float64", "int64"]


def test_a_new_row_is_a_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """Annotations, sizes and compiled entries go by the table."""
    monkeypatch.setitem(types.TYPES, "i", types.ElementType("i", "half", "int16", "int64"))
    made = scaled_for_cpu()
    params = {**made.params, "x": Array("in", "rows", "i", ("N",))}
    halves = dataclasses.replace(made, params=params)
    x, y = np.arange(3, dtype=np.int16), np.zeros(3)
    assert types.item_size("i", "float64") == 2
    testing.call(halves, x=x, y=y, by=0.5)
    assert y.tolist() == [0, 0.5, 1]
