"""The checked mode: indices out of bounds are errors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# ---------------------------------------------------------------- the checked mode

CHECKED = """
import numpy as np
import fastnn as fnn
from fastnn import nn
from fastnn.errors import KernelError

@fnn.helper
def pick(a, i, j):
    return a[i, j]

BODIES = {
    "read": "y[i, 0] = x[i, 100000000]",
    "write": "y[i, 100000000] = 1.0",
    "small": "y[i, 5] = 777.0",
    "negative": "y[i, 0] = x[i, -4]",
    "helper": "y[i, 0] = pick(x, i, 3)",
    "row": "y[i, 0] = x[i + 1, 0]",
    "fine": "y[i, -1] = x[-1, -3]",
}
for name, body in BODIES.items():
    scope = {"fnn": fnn, "pick": pick}
    exec(
        "def f(x: 'in rows f[N,C]', y: 'out rows f[N,C]', lo: 'begin', hi: 'end'):\\n"
        f"    for i in range(lo, hi):\\n        {body}", scope)
    op = fnn.define_op(name, fnn.kernel(scope["f"], name=name))

    class Model(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)
        def forward(self, x):
            return op(x)

    try:
        Model().predict(np.ones((4, 3), "f4"))
        print("none")
    except KernelError as error:
        print(error)
"""

EXPECTED = [
    r"kernel 'read\w*', item 0: IndexError: x\[0, 100000000\]: index 100000000 is out of bounds",
    r"kernel 'write\w*', item 0: IndexError: y\[0, 100000000\]: index 100000000 is out of bounds",
    r"kernel 'small\w*', item 0: IndexError: y\[0, 5\]: index 5 is out of bounds",
    r"kernel 'negative\w*', item 0: IndexError: x\[0, -4\]: index -4 is out of bounds",
    r"kernel 'helper\w*', item 0: IndexError: x\[0, 3\]: index 3 is out of bounds",
    r"kernel 'row\w*', item 3: IndexError: x\[4, 0\]: index 4 is out of bounds",
    r"none",
]


def python(*arguments: str) -> str:
    environment = {**os.environ, "FASTNN_CHECK": "1"}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # which takes pytest most of a second
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_checked_mode_names_kernel_array_and_index() -> None:
    lines = python("-c", CHECKED).splitlines()
    assert len(lines) == len(EXPECTED)
    for line, expected in zip(lines, EXPECTED, strict=True):
        assert re.match(expected, line)


VECTORS = """
import numpy as np
import fastnn as fnn
from fastnn.errors import KernelError
from fastnn.kernels.cpu import target
from fastnn.kernels.simd import (
    load, load_between, load_first, store, store_between, store_first)
from fastnn.kernels.cpu.tile import best_tile, tile, transpose_block
from fastnn.testing.kernels import call

W = target.host().lanes(4)
NONE = 1000  # arrays have 2 * 32 elements; far out, where nothing is touched
PRODUCT = "best_tile(x, {}, 32, 1, x, {}, 32, y, {}, 32, x, {}, {}, 2, 20, True)"


def attempt(name, body, good, bad, output="out", size=(2, 32)):
    scope = dict(globals())
    exec(
        f"def f(x: 'in rows f[N,C]', y: '{output} rows f[N,C]', n: 'int', lo: 'begin', hi: 'end'):"
        f"\\n    for i in range(lo, hi):\\n        {body}", scope)
    made = fnn.kernel(scope["f"], name=name)
    x = np.ones(size, "f4")
    for n in good:
        call(made, x=x, y=np.zeros_like(x), n=n)
    for n in bad:
        try:
            call(made, x=x, y=np.zeros_like(x), n=n)
            print(name, n, "none")
        except KernelError as error:
            print(error)


attempt("load", "store(y, 0, load(x, n))", [0, 64 - W], [65 - W, -1])
attempt("store", "store(y, n, load(x, 0))", [0, 64 - W], [65 - W, -1])
attempt("load_first", "store(y, 0, load_first(x, n, 3))", [0, 61], [62, -1])
attempt("store_first", "store_first(y, n, load(x, 0), 3)", [0, 61], [62, -1])
attempt("load_between", "store(y, 0, load_between(x, n, 1, 3))", [-1, 61], [62, -2])
attempt("store_between", "store_between(y, n, load(x, 0), 1, 3)", [-1, 61], [62, -2])
attempt("no_load", "store(y, 0, load_first(x, n, 0))", [NONE], [])
attempt("no_store", "store_between(y, n, load(x, 0), 2, 2)", [NONE], [])
attempt("added", "store(y, n, load(y, 0))", [0], [64], "inout")
attempt("part", "store(y[i], n, load(x, 0))", [0], [33 - W])
attempt("a", PRODUCT.format("n", 0, 0, -1, 2), [0, 30], [31, -1])
attempt("b", PRODUCT.format(0, "n", 0, -1, 2), [0, 12], [13, -1])
attempt("c", PRODUCT.format(0, 0, "n", -1, 2), [0, 12], [13, -1])
attempt("bias", PRODUCT.format(0, 0, 0, "n", 2), [-1, 0, 44], [45])
attempt("no_product", PRODUCT.format("n", "n", 0, -1, 0), [NONE], [])
for shape in range(7):
    body = f"tile({shape}, x, 0, 32, 1, x, 0, 32, y, n, 32, x, -1, 2, 2, {W}, True)"
    last = 64 - W if shape == 5 else 32 - W  # of one row, or of two
    attempt(f"shape{shape}", body, [0, last], [last + 1])
attempt("transpose", "transpose_block(x, 0, 32, y, n, 32)", [0, 32 - W], [33 - W], size=(W, 32))
"""


def test_checked_mode_covers_vectors_and_tiles() -> None:
    """First and last lane that are touched, masked or not; all panels of a register tile."""
    vector = [
        (name, f"vector {access} of {array}", index, 64)
        for name, access, array in [
            ("load", "load", "x"),
            ("store", "store", "y"),
            ("load_first", "load", "x"),
            ("store_first", "store", "y"),
            ("load_between", "load", "x"),
            ("store_between", "store", "y"),
        ]
        for index in (64, -1)
    ]
    other = [
        ("added", "vector store of y", 64, 64),
        ("part", "vector store of a part of y", 32, 32),
    ]
    tile = [
        (name, f"register tile of {array}", index, 64)
        for name, array in [("a", "x"), ("b", "x"), ("c", "y")]
        for index in (64, -1)
    ]
    shapes = [(f"shape{k}", "register tile of y", 64, 64) for k in range(7)]
    lines = python("-c", VECTORS).splitlines()
    expected = [*vector, *other, *tile, ("bias", "register tile of x", 64, 64), *shapes]
    for line, (name, access, index, size) in zip(lines, expected, strict=False):
        where = "items 0 to 1" if name == "added" else "item 0"  # it has changed what it adds to
        cause = f"flat index {index} is out of bounds for size {size}"
        assert line == f"kernel {name!r}, {where}: IndexError: {access}: {cause}"
    assert len(lines) == len(expected) + 1
    assert re.match(r"kernel 'transpose', item 0: IndexError: transposed block of y: ", lines[-1])


MODELS = """
import numpy as np
import fastnn as fnn
from fastnn import nn, optim
from fastnn.runtime.cpu import ahead

ahead.alternatives = lambda wanted: []  # kernels for other sizes, which nothing here runs
ahead.MOST_WORKERS = 1  # beside other tests; helpers that kernels share are compiled once
rng = np.random.default_rng(1)


class Reader(nn.Module):
    def __init__(self):
        self.first, self.layer, self.last = nn.Embedding(11, 9), nn.LSTM(9, 17), nn.Linear(17, 5)

    def forward(self, x):
        h, _ = self.layer(self.first(x))
        return self.last(h[:, -1])


def train(model, x, y, optimizer):
    trainer = fnn.Trainer(model, "cross_entropy", optimizer, workers=2, device="cpu")
    history = trainer.fit(x, y, epochs=1, batch_size=10, verbose=False)
    trainer.evaluate(x, y, batch_size=9)
    assert np.isfinite(history["loss"]).all()
    assert np.isfinite(model.predict(x, batch_size=8)).all()


body = [nn.Linear(13, 33), nn.BatchNorm(33), nn.Tanh(), nn.Dropout(0.3), nn.Linear(33, 5)]
labels = rng.integers(0, 5, 37)
rows = rng.standard_normal((37, 13)).astype("f4")
train(nn.Sequential(*body), rows, labels, optim.Adam(lr=1e-3))
train(Reader(), rng.integers(0, 11, (37, 7)), labels, optim.SGD(lr=0.1, momentum=0.9))
print("trained")
"""

#: they change what they read, so that it can't be found out afterwards
PLAIN = (
    VECTORS[: VECTORS.index('attempt("load"')]
    + """
attempt("add", "y[i, n] += x[i, 0]", [0, 31, -32], [32, -33], "inout")
attempt("row", "y[i][n] = x[i, 0]", [0, 31, -32], [32, -33], "inout")
attempt("rows", "y[i + n, 0] = x[i, 0]", [0], [2], "inout")
attempt("read", "y[i, 0] = x[i, n]", [0], [32], "inout")
"""
)


def test_checked_mode_covers_plain_indices_of_what_is_changed() -> None:
    found = (
        ("add", "y", 32, 1, 32),
        ("add", "y", -33, 1, 32),
        ("row", "a part of y", 32, 0, 32),
        ("row", "a part of y", -33, 0, 32),
        ("rows", "y", 2, 0, 2),
        ("read", "x", 32, 1, 32),
    )
    lines = python("-c", PLAIN).splitlines()
    for line, (name, array, index, axis, size) in zip(lines, found, strict=True):
        cause = f"index {index} is out of bounds for axis {axis} with size {size}"
        assert line == f"kernel {name!r}, items 0 to 1: IndexError: {array}: {cause}"


def test_own_kernels_stay_within_their_arrays() -> None:
    """Models and some of the kernels' tests, with checks of all indices."""
    assert python("-c", MODELS).splitlines()[-1] == "trained"
    files = [f"tests/kernels/test_{name}.py" for name in ("embedding", "metrics", "feed")]
    output = python("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files)
    assert "passed" in output
