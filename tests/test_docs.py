"""What docs/ and the README show works: programs run, and commands and their options exist."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import click
import pytest

from fastnn.cli import COMMANDS, group

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
#: its blocks are parts of files; `test_how_to_add.py` follows them
PARTS = "how-to-add.md"
PROGRAMS = {
    page.name: "".join(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
    for page in PAGES
    if "```python" in (text := page.read_text(encoding="utf-8")) and page.name != PARTS
}


def test_pages_have_programs() -> None:
    assert len(PROGRAMS) > 8


@pytest.mark.parametrize("page", PROGRAMS)
def test_programs_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after the other, as one program that imports what it needs."""
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAMS[page], page, "exec"), {"__name__": page})


def commands() -> list[tuple[str, list[str]]]:
    """Words of each `fastnn ...` in code, by page."""
    found = []
    for page in [ROOT / "README.md", *PAGES]:
        text = page.read_text(encoding="utf-8")
        spans = re.findall(r"`(fastnn [a-z][^`]*)`", text)
        lines = re.findall(r"^(?:    |```\n)?(fastnn [a-z].*)", text, re.M)
        for span in [*spans, *(line for line in lines if "`" not in line)]:
            words = shlex.split(span.replace("\n", " "), comments=True)
            if len(words) > 1 and words[1] in COMMANDS:
                found.append((page.name, words[1:]))
            else:
                assert span not in spans, f"{page.name}: fastnn has no command {words[1]!r}"
    return found


def test_commands_exist() -> None:
    """Names of commands, of the tasks of `train`, and of options; the values of choices."""
    wrong = []
    for page, words in commands():
        command: click.Command = group()
        rest = list(words)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            inner = command.get_command(click.Context(command), rest[0])
            if inner is None:
                wrong.append(f"{page}: {' '.join(words)}")
                break
            command, rest = inner, rest[1:]
        options = {o: p for p in command.params for o in (*p.opts, *p.secondary_opts)}
        for word, value in itertools.pairwise([*rest, ""]):
            if not word.startswith("--"):
                continue
            option = options.get(word)
            kind = getattr(option, "type", None)
            choices = kind.choices if isinstance(kind, click.Choice) else None
            if option is None or (choices and value not in choices):
                wrong.append(f"{page}: {' '.join(words)}: {word}")
    assert wrong == []
    assert len(commands()) > 50


def test_modules_and_examples_exist() -> None:
    """Of `python -m benchmarks...` and `python examples/...`."""
    for page in [ROOT / "README.md", *PAGES]:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"python -m (benchmarks[\w.]*)", text):
            file = ROOT / name.replace(".", "/")
            assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), name
        for name in re.findall(r"python (examples/\w+\.py)", text):
            assert (ROOT / name).exists(), name
