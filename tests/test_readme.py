"""The README's programs run, its files exist, and its options are the command line's."""

import re
from pathlib import Path

import pytest

from fastnn.kernels.declare import KERNELS

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_first_model_runs_in_ten_lines(tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    monkeypatch.chdir(tmp_path)
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) == 10
    scope = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), scope)
    output = capsys.readouterr()
    accuracy = re.search(r"'accuracy': ([\d.]+)", output.out)
    assert accuracy is not None
    assert float(accuracy[1]) > 0.95
    assert "epoch 20/20" in output.err
    assert (tmp_path / "digits.safetensors").stat().st_size > 0


def test_model_of_ones_own_trains(capsys):
    scope = {}
    exec(compile(BLOCKS[1], "README.md", "exec"), scope)
    output = capsys.readouterr()
    assert "val_tags_accuracy" in output.err
    assert output.out.count("[") == 3  # two rows of three topics


def test_kernel_example_defines_an_op():
    before = set(KERNELS)
    try:
        scope = {}
        exec(compile(BLOCKS[2], "README.md", "exec"), scope)
        assert {"cube_forward", "cube_backward"} <= set(KERNELS)
        assert callable(scope["cube"])
    finally:
        for name in set(KERNELS) - before:
            del KERNELS[name]


def documents():
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8"))
    missing = [
        link
        for link in links
        if not link.startswith("http") and not (document.parent / link).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_files_that_are_named_exist(document):
    text = document.read_text(encoding="utf-8")
    named = re.findall(r"`((?:fastnn|kernels|tests|docs|examples|benchmarks)/[\w/.]+)`", text)
    to_come = {"kernels/cuda"}
    assert [name for name in named if not (ROOT / name).exists() and name not in to_come] == []


def test_options_of_the_command_line():
    from fastnn.cli.train import digits

    section = TEXT.split("## The command line")[1].split("## ")[0]
    defaults = {option.opts[0]: option.default for option in digits.params}
    shown = re.findall(r"(--[\w-]+) (\S+)", section.split("fastnn info")[0])
    assert len(shown) == 9
    for option, value in shown:
        assert str(defaults[option]) == value
