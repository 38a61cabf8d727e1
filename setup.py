"""Compiles the kernels of common nets while fastnn is built: a first training starts at once.

Everything else about the package is in pyproject.toml. What is compiled is object code for this
machine's CPU; `fastnn/runtime/cpu/shipped.py` says when it is used. FASTNN_BUILD_TARGETS names
other targets, separated by commas: those that `fastnn/cli/shipping.py` lists, or "usual",
which a wheel for other machines should have. If it is empty, nothing is compiled.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def targets() -> list[str]:
    """What to compile for."""
    return [n for n in os.environ.get("FASTNN_BUILD_TARGETS", "native").split(",") if n]


class BuildWithObjects(build_py):
    """Builds the package, then runs it to compile kernels."""

    def run(self) -> None:
        super().run()
        package = ROOT if self.editable_mode else Path(self.build_lib)
        compile_kernels(package / "fastnn" / "objects", targets())


def compile_kernels(objects: Path, names: list[str]) -> None:
    """Write the object code for these targets into a folder; fastnn works without it, too."""
    with tempfile.TemporaryDirectory() as folder:
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "fastnn", f"{folder}/fastnn", ignore=leave)
        shutil.copytree(ROOT / "kernels", f"{folder}/fastnn/kernels", ignore=leave)
        shutil.rmtree(objects, ignore_errors=True)  # of an earlier build
        if not names:
            return
        path = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
        program = "fastnn.cli.shipping"
        done = subprocess.run(
            [sys.executable, "-P", "-m", program, str(objects.resolve()), *names],
            env={**os.environ, "PYTHONPATH": path}, cwd=folder, check=False,
        )  # fmt: skip
    if done.returncode == 2:  # a target that there is not
        raise SystemExit(f"FASTNN_BUILD_TARGETS={','.join(names)!r}: see above")
    if done.returncode:
        print(  # noqa: T201
            "warning: not all kernels were compiled ahead (see above); fastnn compiles the others "
            "when they are first needed",
            file=sys.stderr,
        )


def needed() -> list[str]:
    """What fastnn needs to run, which the build needs to compile."""
    if not targets():
        return []
    with open(ROOT / "pyproject.toml", "rb") as file:
        found: list[str] = tomllib.load(file)["project"]["dependencies"]
    return found


setup(cmdclass={"build_py": BuildWithObjects}, setup_requires=needed())
