"""Kernels that read their arguments from memory: what becomes of their PTX."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pytest

from fastnn.runtime.cuda import again, rows
from fastnn.runtime.cuda.place import Piece

PTX = """//
.version 8.3
.target sm_90
.address_size 64

	// .globl	fastnn_entry_scale
.visible .entry fastnn_entry_scale(
	.param .u64 fastnn_entry_scale_param_0,
	.param .u64 fastnn_entry_scale_param_1,
	.param .f32 fastnn_entry_scale_param_2
)
.maxntid 256, 1, 1
{
	.reg .b64 	%rd<3>;

	ld.param.b64 	%rd1, [fastnn_entry_scale_param_0];
	ld.param.f32 	%f1, [fastnn_entry_scale_param_2];
	ret;
}
"""


def test_parameters_become_words_of_a_row() -> None:
    found = rows.from_row(PTX)
    assert found.count(".param") == 2  # the row's address, and where it is read
    assert "(\n\t.param .u64 fastnn_entry_scale_row\n)\n.maxntid 256, 1, 1\n{" in found
    assert "ld.param.u64 \t%argument_row, [fastnn_entry_scale_row];" in found
    assert "ld.global.nc.b64 \t%rd1, [%argument_row+0];" in found
    assert "ld.global.nc.f32 \t%f1, [%argument_row+16];" in found
    assert found.endswith("\tret;\n}\n")


def test_functions_that_are_called_keep_their_parameters() -> None:
    called = """.func (.param .b64 back) power(.param .b64 power_param_0)
{
	ld.param.f64 	%fd1, [power_param_0];
	st.param.f64 	[back], %fd1;
	ret;
}
"""
    call = "\tld.param.f64 \t%fd2, [retval0];\n\tret;"
    plain = PTX.replace("\tret;", call)
    assert rows.from_row(plain + called) == rows.from_row(PTX).replace("\tret;", call) + called


def test_what_else_is_done_with_a_parameter_is_refused() -> None:
    for line in (
        "mov.b64 \t%rd2, fastnn_entry_scale_param_1;",
        "ld.param.v2.b64 \t{%rd1, %rd2}, [fastnn_entry_scale_param_0];",
    ):
        with pytest.raises(RuntimeError, match="fastnn_entry_scale does something with a param"):
            rows.from_row(PTX.replace("\tret;", f"\t{line}\n\tret;"))
    with pytest.raises(RuntimeError, match="expected a kernel with parameters"):
        rows.from_row(PTX.replace(".entry", ".func"))


def test_a_row_has_the_bits_of_its_arguments() -> None:
    given = [np.int64(-3), np.float32(0.1), np.float64(0.1), np.int64(2**62)]
    row = rows.row_of(given)
    assert (row[0], row[3]) == (-3, 2**62)
    assert (row[1:2].view(np.float32)[0], row[1] >> 32) == (np.float32(0.1), 0)
    assert row[2:3].view(np.float64)[0] == 0.1


class Launch:
    """Has what a table is made of: an address that moves in both loops, and a number."""

    def __init__(self, address: int, strides: tuple[int, ...]):
        self.arguments = [np.int64(address), np.float32(2.0)]
        self.words = [(0, address, strides)] if any(strides) else []


def test_a_table_has_the_words_of_several_steps() -> None:
    launches = [(Launch(100, (8, -2)), (3,)), (Launch(7, ()), ()), (Launch(500, (0, 1)), (5,))]
    table = again.table_of(launches, 4)
    two = int(np.float32(2.0).view(np.int32))
    one = [100 - 2 * 3, two, 7, two, 500 + 5, two]
    expected = [w + 8 * k * (n == 0) for k in range(4) for n, w in enumerate(one)]
    assert table.words.tolist() == expected
    assert table.rows == list(range(0, 24, 2))
    assert table.moves.tolist() == [[6 * k, 94 + 8 * k, 8] for k in range(4)]
    assert table.once == 1


@pytest.mark.parametrize(
    ("count", "times"), [(1, 32), (4, 32), (5, 32), (9, 16), (47, 4), (128, 1)]
)
def test_a_short_body_is_captured_for_several_steps(count: int, times: int) -> None:
    assert again.times_of(count) == times


def test_programs_that_launch_the_same_share_a_body() -> None:
    """Whatever their words are; with other blocks, or other words that move, they don't."""
    made: list[Piece] = []
    gpu: Any = SimpleNamespace(
        allocate=lambda size, _: made.append(Piece(0, size, None)) or made[-1],
        upload=lambda *_: None,
    )
    bodies: again.Bodies = WeakValueDictionary()

    def loop(address: int, strides: tuple[int, ...], how: str, number: int = 0) -> again.Loop:
        launch: Any = Launch(address, strides)
        launch.variant, launch.how = "kernel", how
        items: Any = [SimpleNamespace(launch=launch)]
        return again.Loop(gpu, items, bodies, number)

    first, longer = loop(100, (8,), "2 blocks"), loop(900, (16,), "2 blocks")
    assert first._ready[0] is longer._ready[0]
    assert first._ready[1] is not longer._ready[1]
    others = [loop(100, (8,), "3 blocks"), loop(100, (), "2 blocks"), loop(1, (8,), "2 blocks", 1)]
    assert len({id(one._ready[0]) for one in (first, *others)}) == len(bodies) == 4
    del first, longer
    assert len(bodies) == 3


def test_a_kernel_whose_ptx_is_refused_has_no_such_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is kept like machine code, so that nobody compiles it in vain again."""
    kept: list[bytes] = []
    monkeypatch.setattr(rows, "_loaded", {})
    monkeypatch.setattr(rows.compiler, "assemble", lambda *_: rows.compiler.Code(b"cubin", ""))
    monkeypatch.setattr(rows.files, "obtain", lambda _, make, *__: kept.append(make()) or kept[-1])
    other = PTX.replace("\tret;", "\tmov.b64 \t%rd2, fastnn_entry_scale_param_1;\n\tret;")
    for k, (text, expected) in enumerate([(PTX, b"cubin"), (other, rows.NONE)]):
        monkeypatch.setattr(rows.compiler, "compile_ptx", lambda *_, text=text: text)
        kernel: Any = f"kernel {k}"
        assert rows.code(kernel, "float32", "", (9, 0)) == kept[-1] == expected
