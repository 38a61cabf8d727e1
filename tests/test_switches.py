"""Environment variables that turn something on or off: one spelling for all, and no other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastnn
from fastnn.errors import OptionError
from fastnn.runtime import _cuda, kept, poison
from fastnn.runtime.cpu import checks, compiler, shipped
from fastnn.runtime.cuda import guards
from fastnn.switches import OFF, ON, on

ROOT = Path(__file__).resolve().parents[1]
#: each switch, what asks for it, and whether it is on where nothing is said
SWITCHES = {
    "FASTNN_CHECK": (checks.checked, False),
    "FASTNN_POISON": (poison.enabled, False),
    "FASTNN_SHIPPED": (shipped.wanted, True),
    "FASTNN_CUDA_GUARD": (guards.mode, False),
    "FASTNN_NVTX": (_cuda.ranges.__wrapped__, False),
    "FASTNN_DEBUG": (lambda: on("FASTNN_DEBUG"), False),
}


def asked(name: str) -> bool:
    try:
        return bool(SWITCHES[name][0]())
    except OptionError as error:  # it is on, and the package is not there
        return str(error).startswith("FASTNN_NVTX=1: expected the package nvtx")


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_knows_the_same_words(name, monkeypatch):
    for words, wanted in ((ON, True), (OFF, False), (("", " "), SWITCHES[name][1])):
        for word in (w for one in words for w in (one, one.upper(), one.title())):
            monkeypatch.setenv(name, word)
            assert asked(name) is wanted, word
    monkeypatch.delenv(name)
    assert asked(name) is SWITCHES[name][1]


@pytest.mark.parametrize("word", ["ja", "2", "10", "tru", "none", "-1", "enable"])
@pytest.mark.parametrize("name", SWITCHES)
def test_another_word_is_refused(name, word, monkeypatch):
    monkeypatch.setenv(name, word)
    expected = rf"{name}='{word}': expected 1, true, yes, on to turn it on.*0, false, no, off to"
    with pytest.raises(OptionError, match=expected):
        SWITCHES[name][0]()


def test_the_tile_units_is_0_or_an_error(monkeypatch):
    """A word that turns the other switches off must not leave this one on."""
    for word, said in (("off", "write 0 to turn it off"), ("ja", "0, false, no, off")):
        monkeypatch.setenv("FASTNN_TILE_UNIT", word)
        with pytest.raises(OptionError, match=f"FASTNN_TILE_UNIT='{word}': .*{said}"):
            compiler.machine_hash()
    for word in ("0", "1", "on", ""):
        monkeypatch.setenv("FASTNN_TILE_UNIT", word)
        assert compiler.machine_hash()


def test_the_command_line_says_so_in_a_line(monkeypatch):
    monkeypatch.setenv("FASTNN_DEBUG", "ja")
    done = subprocess.run(
        [sys.executable, "-m", "fastnn", "info"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: FASTNN_DEBUG='ja': expected 1, true, yes, on")
    assert done.stderr.count("\n") == 1


def test_no_switch_is_read_in_another_way():
    """Variables that the library reads by themselves name something: a folder, a number, a device.
    `FASTNN_TILE_UNIT` is read by a module that is part of all kernels' keys."""
    names = {
        "FASTNN_DATA", "FASTNN_DATA_CACHE", "FASTNN_CACHE", "FASTNN_DEVICE", "FASTNN_PROGRAM_BYTES",
        "FASTNN_VECTOR_BITS", "FASTNN_TILE_UNIT", "FASTNN_SIMULATOR_SEED",
    }  # fmt: skip
    found = set()
    for path in Path(str(fastnn.__file__)).parent.rglob("*.py"):
        found |= set(re.findall(r'environ(?:\.get\(|\[)"(FASTNN_\w+)"', path.read_text()))
    found |= set(
        re.findall(r'environ\.get\("(FASTNN_\w+)"', (ROOT / "kernels/cpu/target.py").read_text())
    )
    assert found <= names


def test_what_is_empty_is_as_if_it_were_not_set(monkeypatch):
    for name in ("FASTNN_DEVICE", "FASTNN_PROGRAM_BYTES"):
        monkeypatch.setenv(name, "")
    assert kept.limit() == kept.LIMIT
    model = fastnn.nn.Linear(2, 2)
    assert fastnn.Trainer(model, "mse").device
