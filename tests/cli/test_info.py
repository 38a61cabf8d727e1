"""`fastnn info`: what it says about this machine."""

import dataclasses

import pytest
from click.testing import CliRunner

import fastnn
from fastnn import cli
from fastnn.cli import info
from fastnn.kernels.cpu import target, tile_unit
from fastnn.runtime.cpu import compiler


def test_info_tells_the_machine():
    result = CliRunner().invoke(cli.group(), ["info"])
    assert result.exit_code == 0
    for what in (
        f"fastnn          {fastnn.__version__}", "python", "numpy", "numba", "llvmlite",
        "CPU features", "vector width", "workers", "CUDA            no: ", "kernel cache",
        "shipped code    none",
        str(compiler.cache_folder()),
    ):  # fmt: skip
        assert what in result.stdout


@pytest.mark.parametrize("there", [True, False])
def test_info_tells_what_bf16_comes_to(monkeypatch, there):
    host = dataclasses.replace(target.host(), tile_unit=False, pairs=there)
    monkeypatch.setattr(target, "host", lambda: host)
    monkeypatch.setattr(tile_unit, "usable", lambda: False)
    (line,) = (value for name, value in info.facts() if name == "tile unit")
    assert line.endswith('"bf16" uses AVX-512-BF16' if there else '"bf16" is no faster')
