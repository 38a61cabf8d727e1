"""The README's programs run, its files exist, and its options are the command line's."""

import re
from pathlib import Path

import pytest

from benchmarks import harness, readme
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


@pytest.mark.parametrize("page", ["README.md", "docs/measured.md"])
def test_tables_are_those_of_the_results(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    tables = readme.pages(harness.RESULTS)[page]
    assert readme.between(text, tables) == text, "python -m benchmarks.readme"
    assert len(tables) >= 2


def test_a_column_says_which_peers_it_lacks():
    def file(threads, date, **seconds):
        row = {"workload": "net", "batch": 1, "threads": threads, "ratio": 2.0}
        row["seconds"] = {name: {"median": time} for name, time in seconds.items()}
        where = {"cpu": "cpu", "simd": "AVX2", "date": date, "load": 0, "cores": 1}
        return {"environment": where, "rows": [row], "command": ""}

    old = file(1, "2026-01-01", fastnn=1e-6, jax=3e-5)
    new = file(1, "2026-01-02", **{"fastnn": 2e-6, "jax": 9.96e-6, "jax loop": 4e-3})
    two = file(2, "2026-01-03", **{"fastnn": 2e-6, "jax": 1e-4, "jax loop": 4e-3})
    head, *_, row = readme.short([old, new, two]).splitlines()
    assert "1 thread of a cpu" in head
    assert row == "| net | 1 | 2.0 µs | 10 µs (JAX) | 2.00 | 2.00 | 2.00 |"
    shown = " ".join(readme.short([old, new, two]).split())
    assert "(* without JAX, compiled loop)" in shown
    assert "| cpu, 1 thread * | cpu, 1 thread | cpu, 2 threads |" in shown
