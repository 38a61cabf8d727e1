"""`docs/how-to-add.md` is followed: its blocks of code go into a copy of the sources, and what they
add is there, right, and differentiable twice, on both devices."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest

from fastnn.runtime import _cuda

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "how-to-add.md").read_text(encoding="utf-8")


class Edit(NamedTuple):
    """A block of the document: lines for a file, at its end or within a list or dict of it."""

    recipe: str
    file: str
    within: str | None
    lines: str


def recipes() -> dict[str, str]:
    """The document's sections by their headings."""
    parts = re.split(r"^## (.*)\n", TEXT, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def edits() -> list[Edit]:
    found = []
    for recipe, text in recipes().items():
        for indent, block in re.findall(
            r"^( *)```(?:python|toml|text)\n(.*?)^ *```", text, flags=re.M | re.S
        ):
            head, lines = textwrap.dedent(indent + block.lstrip(" ")).split("\n", 1)
            place = re.fullmatch(r"# (\S+?)(?:, in (\w+))?", head)
            assert place, f"{recipe}: expected the block's first line to name a file, got {head!r}"
            found.append(Edit(recipe, place[1], place[2], lines))
    return found


def make(edit: Edit, folder: Path) -> None:
    """Change the file as somebody would who follows the document."""
    path = folder / edit.file
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(edit.lines, encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").split("\n")
    if edit.within:
        begins = re.compile(rf"{edit.within}\b.* = [\[{{]$")
        at = 1 + next(k for k, line in enumerate(lines) if begins.match(line))
        lines[at:at] = edit.lines.split("\n")
    elif edit.lines.startswith("from "):
        at = 1 + max(k for k, line in enumerate(lines) if line.startswith("from "))
        lines[at:at] = edit.lines.split("\n")
    else:
        last = next((k for k, line in enumerate(lines) if line.startswith("publish(")), len(lines))
        lines[last:last] = ["", *edit.lines.split("\n")]
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources with everything added that the document adds, as they are when installed."""
    folder = tmp_path_factory.mktemp("sources")
    no_caches = shutil.ignore_patterns("__pycache__")
    for name in ("fastnn", "kernels"):
        shutil.copytree(ROOT / name, folder / name, ignore=no_caches)
    shutil.copy(ROOT / "pyproject.toml", folder)
    for edit in edits():
        make(edit, folder)
    (folder / "kernels").rename(folder / "fastnn" / "kernels")
    return folder


def run(folder: Path, code: str, **environment: str) -> None:
    path = folder / "check.py"
    path.write_text(textwrap.dedent(START) + textwrap.dedent(code), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


START = """
    import os
    from pathlib import Path

    import numpy as np

    import fastnn as fnn
    from fastnn import nn, ops, optim
    from fastnn.testing import gradcheck

    assert Path(fnn.__file__).parents[1] == Path(__file__).parent, "the copy is what is imported"
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 7)), rng.normal(size=(5, 7))


    class Function(nn.Module):
        def __init__(self, function):
            self.function = function

        def forward(self, *inputs):
            return self.function(*inputs)


    def values(function, *inputs):
        model = Function(function)
        model.store("float64")
        return model.predict(*inputs)


    def twice(function):
        '''The gradients of a function's squares, which depend on all of its gradients.'''
        return lambda *xs: tuple(ops.gradient(ops.sum(ops.square(function(*xs))), list(xs)))


    def check(name, function, *inputs):
        assert name in ops.__all__
        found = getattr(ops, name)
        assert found.__doc__
        np.testing.assert_allclose(values(found, *inputs), function(*inputs), rtol=1e-12)
        gradcheck(found, *inputs)
        gradcheck(twice(found), *inputs)
        ways = [rng.normal(size=x.shape) for x in inputs]
        near = [function(*(x + h * w for x, w in zip(inputs, ways))) for h in (-1e-6, 1e-6)]
        along = values(lambda *xs: ops.tangent(found(*xs), list(xs), ways), *inputs)
        np.testing.assert_allclose(along, (near[1] - near[0]) / 2e-6, atol=1e-8)
"""


def test_every_recipe_has_its_files(copy: Path) -> None:
    """What a recipe's blocks change, its text names; and it has blocks."""
    for recipe, text in recipes().items():
        files = {edit.file for edit in edits() if edit.recipe == recipe}
        prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)
        assert files, recipe
        for file in files:
            path = Path(file)
            new = not (ROOT / file).exists()
            named = path.parent.as_posix() if new and path.parts[0] == "fastnn" else file
            named = path.name if new and path.parts[0] == "kernels" else named
            assert f"`{named}`" in prose, f"{recipe}: its text does not name {named}"


def test_an_activation(copy: Path) -> None:
    run(copy, """
        check("bent", lambda x: x + (np.sqrt(x * x + 1) - 1) / 2, a)
        assert "Bent" in nn.__all__
        layer = nn.Bent()
        assert repr(layer) == "Bent()"
        assert nn.Bent.__doc__ == ops.bent.__doc__
        np.testing.assert_allclose(layer.predict(a.astype("f4")), a + (np.sqrt(a * a + 1) - 1) / 2,
                                   rtol=1e-5, atol=1e-6)
    """)  # fmt: skip


def test_a_function_of_several_operands(copy: Path) -> None:
    run(
        copy,
        """
        check("hypot", np.hypot, a, b)
        row = np.array([[0.5, -1.0, 2.0, 0.3, 1.0, -2.0, 1.5]])
        np.testing.assert_allclose(values(lambda x: ops.hypot(x, row), a), np.hypot(a, row))
    """,
    )


def test_an_op_with_kernels(copy: Path) -> None:
    run(
        copy,
        """
        from fastnn.errors import ShapeError

        check("unit_rows", lambda x: x / np.sqrt((x * x).sum(-1, keepdims=True)), a)
        try:
            values(lambda x: ops.unit_rows(ops.total(x)), a)
        except ShapeError as error:
            assert "unit_rows: expected rows" in str(error)
        else:
            raise AssertionError
    """,
    )
    packages = tomllib.loads((copy / "pyproject.toml").read_text())["tool"]["setuptools"][
        "packages"
    ]
    assert "fastnn.kernels.unit" in packages


@pytest.mark.skipif(
    importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed"
)
@pytest.mark.skipif(_cuda.available(), reason="the simulator is for machines without a device")
def test_their_kernels_on_cuda(copy: Path) -> None:
    """The new kernels' counterparts, in the simulator, against the CPU's as plain Python."""
    run(copy, """
        from fastnn.kernels.declare import CUDA_KERNELS, KERNELS, Array
        from fastnn.testing.kernels import call_cuda

        for name in ("bent_forward", "bent_backward", "hypot_forward", "hypot_backward_a",
                     "hypot_backward_b", "unit_rows_forward", "unit_rows_backward"):
            kernel = KERNELS[name]
            shapes = {n: (5, 7)[: len(p.dims)] for n, p in kernel.arrays.items()}
            given = {n: rng.normal(size=s) ** 2 + 0.5 for n, s in shapes.items()}
            got, wanted = ({n: x.copy() for n, x in given.items()} for _ in range(2))
            call_cuda(CUDA_KERNELS[name], **got)
            kernel(**wanted, lo=0, hi=5)
            for n, p in kernel.arrays.items():
                assert p.writes == bool((got[n] != given[n]).any()), (name, n)
                np.testing.assert_allclose(got[n], wanted[n], rtol=1e-12)
    """, NUMBA_ENABLE_CUDASIM="1")  # fmt: skip


def test_their_docstrings_are_complete(copy: Path) -> None:
    """Examples that run, and the errors that are raised: what tests of all public names ask for."""
    run(
        copy,
        f"""
        import doctest, sys

        sys.path.append({str(ROOT)!r})  # for the tests, behind the copy
        from fastnn import testing
        from tests.test_documented_errors import claims

        given = dict(np=np, nn=nn, ops=ops, optim=optim, testing=testing)
        for name, home in (("bent", ops), ("hypot", ops), ("unit_rows", ops), ("Bent", nn),
                           ("Gain", nn), ("PowerSign", optim)):
            added = getattr(home, name)
            names = dict(given, **vars(sys.modules[added.__module__]))
            example = doctest.DocTestParser().get_doctest(added.__doc__, names, name, None, 0)
            assert example.examples, name
            assert doctest.DocTestRunner().run(example).failed == 0, name
            for label, due, text in claims(name, added):
                assert [error for error in due if error not in text] == [], label
        """,
    )


def test_an_optimiser(copy: Path) -> None:
    run(
        copy,
        """
        x = rng.normal(size=(16, 3))
        model = nn.Sequential(nn.Linear(3, 1, bias=False))
        step = fnn.compile(model, "mse", "powersign", dtype="float64")
        assert isinstance(step.optimizer, optim.PowerSign)
        w, m = model[0].weight.value.copy(), np.zeros((1, 3))
        for y in rng.normal(size=(10, 16, 1)):  # gradients of either sign
            step(x, y)
            g = 2 * (x @ w.T - y).T @ x / 16
            m = 0.9 * m + (1 - 0.9) * g
            w -= 1e-3 * np.exp(np.sign(g) * np.sign(m)) * g
            np.testing.assert_allclose(model[0].weight.value, w, rtol=1e-12)
    """,
    )


def test_a_layer(copy: Path) -> None:
    run(
        copy,
        """
        assert "Gain" in nn.__all__
        layer = nn.Gain(7)
        assert repr(layer) == "Gain(7)"
        layer.weight.value = b[0]
        layer.store("float64")
        np.testing.assert_allclose(layer.predict(a), a * b[0], rtol=1e-12)
        gradcheck(nn.Gain(7), a)
        gradcheck(lambda x, w: twice(ops.multiply)(x, w), a, nn.Parameter((7,), 1.5))
    """,
    )


def test_a_device(copy: Path) -> None:
    """It trains and predicts with the CPU's bits, by its name and by FASTNN_DEVICE; "auto" and
    unknown names are as before."""
    run(copy, """
        from fastnn.errors import OptionError
        from fastnn.runtime import devices

        x, y = rng.normal(size=(40, 3)).astype("f4"), rng.integers(0, 2, 40)

        def trained(device):
            trainer = fnn.Trainer(nn.Sequential(nn.Linear(3, 2)), "cross_entropy", device=device)
            trainer.fit(x, y, epochs=3, batch_size=16, verbose=False)
            return trainer, trainer.model.predict(x)

        (counted, found), (_, wanted) = trained("counting"), trained("cpu")
        np.testing.assert_array_equal(found, wanted)
        assert counted.device == counted.session.runtime.device == "counting"
        assert counted.session.runtime.steps == 9
        os.environ["FASTNN_DEVICE"] = "counting"
        assert devices.choose() == "counting"
        try:
            devices.choose("conting")
        except OptionError as error:
            assert "got 'conting'" in str(error)
        else:
            raise AssertionError
    """)  # fmt: skip
