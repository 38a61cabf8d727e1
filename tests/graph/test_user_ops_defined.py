"""Ops of users': wrong definitions, and functions that are defined again."""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import fastnn as fnn
from fastnn import nn
from fastnn.errors import OptionError, ProgramError, ShapeError
from fastnn.graph.op import OPS
from fastnn.kernels.declare import CUDA_KERNELS
from fastnn.runtime.cpu import compiler
from fastnn.testing import gradcheck
from tests.graph.user_ops import Snake, X, pick, pick_dx, pick_forward, snake, snake_forward

# ---------------------------------------------------------------- refusals


def plain(x, y):
    """Not a kernel."""


def kernel_of(name="test_bad", **annotations):
    """A kernel with these parameters that does nothing."""
    names = ", ".join(annotations)
    scope: dict = {"__name__": __name__}
    exec(f"def function({names}): pass", scope)
    scope["function"].__annotations__ = annotations
    return fnn.kernel(scope["function"], name=name)


RANGE = {"lo": "begin", "hi": "end"}

ROWS = {"x": "in rows f[N,C]", "y": "out rows f[N,C]", **RANGE}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("relu", snake_forward), "'relu' is a built-in op; choose another name"),
        (("no name", snake_forward), "expected a name like 'swish', got 'no name'"),
        (("test_bad", plain), "decorated with @fnn.kernel, got function; write for example"),
        (("test_bad", kernel_of(x="in whole f[N]")), "at least one 'in' and one 'out' array"),
        (("test_bad", kernel_of(x="inout whole f[N]")), "expected an 'in' or 'out' array of 'f'"),
        (("test_bad", kernel_of(x="in whole r[N]", y="out whole f[N]")), "got 'in' of 'r'"),
        (
            ("test_bad", kernel_of(x="in whole f[N]", dx="in whole f[N]", y="out whole f[N]")),
            "'dx' would be the gradient of 'x'; rename it",
        ),
        (("test_bad", kernel_of(**ROWS), plain), "expected backward to be a function decorated"),
        (
            ("test_bad", kernel_of(**ROWS), kernel_of(**ROWS)),
            r"cannot tell what parameter 'y' is; expected inputs and outputs \['x', 'y'\]",
        ),
        (
            (
                "test_bad", kernel_of(**ROWS),
                kernel_of(slope="real", dy="in rows f[N,C]", dx="out rows f[N,C]", **RANGE),
            ),
            "cannot tell what parameter 'slope' is",
        ),
        (
            ("test_bad", kernel_of(**ROWS), kernel_of(dy="in rows f[N,C]", **RANGE)),
            r"expected at least one of \['dx'\] as an 'out' array",
        ),
        (
            (
                "test_bad", kernel_of(**ROWS),
                [kernel_of(dy="in rows f[N,C]", dx="out rows f[N,C]", **RANGE)] * 2,
            ),
            "in one kernel only",
        ),
    ],
)  # fmt: skip
def test_a_wrong_definition_says_what_is_expected(arguments, message):
    with pytest.raises(OptionError, match=message):
        fnn.define_op(*arguments)
    assert "test_bad" not in OPS


def test_wrong_defaults():
    with pytest.raises(OptionError, match=r"defaults: expected some of \['a'\], got 'b'"):
        fnn.define_op("test_bad", snake_forward, defaults={"b": 1.0})
    with pytest.raises(OptionError, match="attribute 'a': expected a number, got 'x'"):
        fnn.define_op("test_bad", snake_forward, defaults={"a": "x"})


def test_wrong_use_says_what_is_expected():
    with pytest.raises(ShapeError, match=r"expected test_snake\(x, a=1.0\), got \(\)"):
        gradcheck(lambda x: snake(), X)
    with pytest.raises(ShapeError, match=r"got \(Value, float, int\)"):
        gradcheck(lambda x: snake(x, 1.0, 2), X)
    with pytest.raises(ShapeError, match=r"got \(Value, b=3\)"):
        gradcheck(lambda x: snake(x, b=3), X)
    with pytest.raises(ShapeError, match="expected floating-point input 'x', got integer"):
        gradcheck(snake, np.arange(4))
    with pytest.raises(ShapeError, match="expected input 'w' with C = 5"):
        gradcheck(pick, np.zeros(9, np.int64), X, nn.Parameter((4, 6)))


def test_an_input_without_gradient_cannot_be_trained_through():
    op = fnn.define_op("test_no_dw", pick_forward, pick_dx)
    with pytest.raises(ShapeError, match=r"'test_no_dw' has no gradient .* writes dw"):
        gradcheck(op, np.zeros(9, np.int64), X, nn.Parameter((5, 6), "normal"))


# ---------------------------------------------------------------- where functions come from

CELL = """
import math
import fastnn as fnn

@fnn.helper
def inner(v):
    return {inner}

@fnn.kernel
def cell_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = inner(x[i, j]) + {outer}

op = fnn.define_op("test_cell", cell_forward)
"""


def run_cell(inner, outer):
    """The op's values as a notebook would get them, and how many kernels were compiled."""
    scope = {"__name__": "__main__"}
    exec(textwrap.dedent(CELL.format(inner=inner, outer=outer)), scope)

    class Model(nn.Module):
        def forward(self, x):
            return scope["op"](x)

    before = compiler.compiled_count
    return Model().predict(X), compiler.compiled_count - before


def test_cells_that_are_run_again_with_changes():
    Snake().predict(X)  # what predicting itself needs is compiled by now
    for inner, outer, want in (
        ("math.tanh(v)", "1.0", np.tanh(X) + 1),
        ("math.tanh(v)", "2.0", np.tanh(X) + 2),
        ("math.sin(v)", "2.0", np.sin(X) + 2),
        ("math.sin(v) * 3.0", "2.0", 3 * np.sin(X) + 2),
    ):
        got, _ = run_cell(inner, outer)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


PROGRAM = """
import sys
import numpy as np
import fastnn as fnn
from fastnn import nn
from fastnn.runtime.cpu import compiler
from user_helpers import inner
import user_helpers

@fnn.kernel
def main_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
    for i in range(lo, hi):
        for j in range(x.shape[1]):
            y[i, j] = {call}(x[i, j]) * {factor}

op = fnn.define_op("main_op", main_forward)

class Model(nn.Module):
    def forward(self, x):
        return op(x)

x = np.linspace(0.5, 2.0, 4, dtype=np.float32)[:, None]
print(float(Model().predict(x)[0, 0]), compiler.compiled_count, "numba" in sys.modules)
"""


def with_run_loop(folder):
    """A cache with the code of the run loop, which would take longest of all to compile."""
    for name in compiler.LOOP_FUNCTIONS:
        compiler.loop_address(name)
        path = compiler.loop_path(name)
        (folder / path.parent.name).mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(path, folder / path.parent.name)
    return folder


@pytest.mark.parametrize("call", ["inner", "user_helpers.inner"])
def test_the_disk_cache_notices_changes(tmp_path, call):
    """A program run again and again, with its kernel or a helper in another file changed."""

    cache = with_run_loop(tmp_path / "cache")

    def run(factor, body):
        helpers = (
            f"import math\nimport fastnn as fnn\n\n@fnn.helper\ndef inner(v):\n    return {body}\n"
        )
        (tmp_path / "user_helpers.py").write_text(helpers)
        (tmp_path / "main.py").write_text(PROGRAM.format(factor=factor, call=call))
        environment = os.environ | {
            "FASTNN_CACHE": str(cache), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "main.py"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        value, compiled, imported = done.stdout.split()
        return round(float(value), 4), int(compiled), imported == "True"

    first = run("2.0", "v + 1.0")
    assert first[0] == 3.0
    assert first[1] > 0
    assert run("2.0", "v + 1.0") == (3.0, 0, False)
    assert run("3.0", "v + 1.0") == (4.5, 1, True)
    assert run("3.0", "v + 2.0") == (7.5, 1, True)
    assert run("3.0", "math.gamma(v)")[:2] == (round(3 * math.gamma(0.5), 4), 1)
    # math.gamma is a C function of Numba's: a process that compiles nothing has to find it, too
    assert run("3.0", "math.gamma(v)")[:2] == (round(3 * math.gamma(0.5), 4), 0)


def not_a_helper(v):
    return v + 1.0


def test_what_cannot_be_compiled_says_what_may_be_used():
    @fnn.kernel
    def calls_plain(x: "in whole f[N]", y: "out whole f[N]"):
        y[0] = not_a_helper(x[0])

    @fnn.kernel
    def makes_array(x: "in whole f[N]", y: "out whole f[N]"):
        y[0] = np.zeros(3)[0] + x[0]

    for kernel in (calls_plain, makes_array):
        op = fnn.define_op("test_uncompilable", kernel)
        with pytest.raises(ProgramError, match=r"are decorated with @fnn.helper; it must not make"):
            gradcheck(lambda x, op=op: op(x), X)


@fnn.helper
def drawn():
    return random.random()


@pytest.mark.parametrize("draw", [drawn, np.random.normal])
def test_random_numbers_that_no_seed_knows_are_refused(draw, tmp_path, monkeypatch):
    """Also where the machine code of another process is found in the cache."""
    monkeypatch.setenv("FASTNN_CACHE", str(tmp_path))

    @fnn.kernel
    def noisy(x: "in whole f[N]", y: "out whole f[N]"):
        y[0] = x[0] + draw()

    for _ in range(2):
        with pytest.raises(ProgramError, match=r"'noisy'.* np.random .*ops.uniform_like"):
            compiler.address(noisy, "float32")


def test_cuda_kernels_must_fit_those_of_the_cpu():
    @fnn.kernel
    def halve_forward(x: "in rows f[N,C]", y: "out rows f[N,C]", lo: "begin", hi: "end"):
        for i in range(lo, hi):
            for j in range(x.shape[1]):
                y[i, j] = x[i, j] / 2

    def twin(x: "in rows f[N,C]", y: "out rows f[N,C]"):
        """Compiled by nobody here."""

    def other(x: "in rows f[N,C]", z: "out rows f[N,C]"):
        """Has another parameter."""

    def launch(sizes):
        return 1, 32

    good = fnn.cuda_kernel(twin, launch=launch, name="halve_forward")
    op = fnn.define_op("halve", halve_forward, cuda=good).op
    assert CUDA_KERNELS[op.forward].function is twin
    with pytest.raises(OptionError, match=r"kernels called \['halve_forward'\], got \['twin'\]"):
        fnn.define_op("halve", halve_forward, cuda=fnn.cuda_kernel(twin, launch=launch))
    wrong = fnn.cuda_kernel(other, launch=launch, name="halve_forward")
    with pytest.raises(OptionError, match=r"the CPU's has \('y', .*, CUDA's \('z', "):
        fnn.define_op("halve", halve_forward, cuda=[wrong])
    with pytest.raises(OptionError, match=r"decorated with @fnn.cuda_kernel, got function"):
        fnn.define_op("halve", halve_forward, cuda=twin)
