"""What an import loads, and what a warm process needs to train."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout


def test_import_is_light() -> None:
    """It loads fewer modules than `import numba` (`benchmarks/costs.py` measures the time)."""
    code = "import sys; before = set(sys.modules); import {}; print(len(set(sys.modules) - before))"
    ours, numba = (int(python(code.format(name))) for name in ("fastnn", "numba"))
    assert ours < 0.6 * numba


def test_layers_bring_nothing_for_mail_and_zip_files():
    """What reads packages' versions is imported when a version is asked for."""
    code = (
        "import fastnn, sys; from fastnn import nn, optim; "
        "print(sorted({'importlib.metadata', 'email', 'zipfile', 'csv'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WHAT_A_MODEL_NEEDS = """
import sys
from fastnn import Trainer, nn, optim
loaded = [name for name in sys.modules if name.startswith("fastnn.")]
kernels = [n for n in loaded if n.startswith("fastnn.kernels.") and n.split(".")[-1][:3] == "cpu"]
print(len(loaded), sorted(n for n in sys.modules if n.split(".")[0] in ("llvmlite", "numba")))
print([n for n in loaded if n.startswith(("fastnn.plan.lower.", "fastnn.optim."))])
print([n for n in kernels if n.count(".") > 2], "fastnn.plan.planner" in loaded)
print(sorted({"csv", "fastnn.runtime.cuda.gpu", "fastnn.engine.plans"} & set(sys.modules)))
"""


def test_layers_and_trainer_load_neither_kernels_nor_the_planner() -> None:
    """Nor any optimiser: they come with the first model that is planned. (Counts, not times:
    `benchmarks/costs.py` measures those.)"""
    count, parts, heavy, more = python(WHAT_A_MODEL_NEEDS).splitlines()
    assert int(count.split(" ", 1)[0]) < 235
    assert count.endswith(" []")
    few = {"fastnn.plan.lower.lowering"} | {
        f"fastnn.optim.{name}"
        for name in ("common", "schedule", "shown", "optimizer", "full_batch", "wrapper", "names")
    }
    assert set(ast.literal_eval(parts)) <= few
    kernels, planner = heavy.rsplit(" ", 1)
    assert (planner, more) == ("False", "[]")
    assert len(ast.literal_eval(kernels)) <= 3  # those of updates


def test_what_is_loaded_when_asked_for_is_what_there_is() -> None:
    """Each module's public classes are in the package's table, for type checkers too."""
    import fastnn.optim as optim

    tree = ast.parse(Path(str(optim.__file__)).read_text(encoding="utf-8"))
    shown = {
        (node.module, alias.name)
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    found = {(c.__module__, n) for n in optim.__all__ if isinstance(c := getattr(optim, n), type)}
    assert shown - {("fastnn.optim", "schedules")} == found
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        optim.nonsense  # noqa: B018
    assert "Adam" in dir(optim)


def test_import_loads_no_compiler() -> None:
    code = "import fastnn, sys; print(sorted({'numba', 'llvmlite'} & set(sys.modules)))"
    assert python(code) == "[]\n"


def test_using_the_parts_loads_nothing_heavy(tmp_path: Path) -> None:
    """Describing a model neither compiles nor imports what compiles."""
    code = """
import sys
import fastnn as fnn
from fastnn import callbacks, data, nn, ops, optim
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
trainer_class = fnn.Trainer
optim.Adam(lr=0.1)
from fastnn.runtime.cpu import compiler
heavy = {"numba", "matplotlib", "torch", "jax", "scipy", "sklearn"}
print(compiler.compiled_count, sorted(heavy & set(sys.modules)))
"""
    assert python(code, FASTNN_CACHE=str(tmp_path)).split(maxsplit=1) == ["0", "[]\n"]
    assert list(tmp_path.iterdir()) == []


FIRST_STEP = """
import sys
import numpy as np
import fastnn as fnn
from fastnn import nn, optim
x, y = np.ones((64, 20), "f4"), np.arange(64) % 10
model = nn.Sequential(nn.Linear(20, 128), nn.ReLU(), nn.Linear(128, 10))
trainer = fnn.Trainer(model, "cross_entropy", optim.Adam(), metrics=["accuracy"])
trainer.fit(x, y, batch_size=32, verbose=False)
from fastnn.runtime.cpu import compiler
print(compiler.compiled_count, sorted({"numba", "scipy", "matplotlib"} & set(sys.modules)))
"""


def test_a_warm_process_trains_without_a_compiler() -> None:
    """Nothing is compiled then, and Numba is not even imported.

    (`benchmarks/costs.py` measures how soon the first step is done.)
    """
    python(FIRST_STEP)  # compiles what is missing
    assert python(FIRST_STEP) == "0 []\n"


def test_unknown_name() -> None:
    import fastnn

    with pytest.raises(AttributeError, match="'fastnn' has no attribute 'nonsense'"):
        fastnn.nonsense  # noqa: B018
    assert "Trainer" in dir(fastnn)
