"""`fastnn remember`: bits of one's own for a trained net with a memory."""

import numpy as np
import pytest
from click.testing import CliRunner

from fastnn.cli import group
from fastnn.errors import DataError, OptionError
from fastnn.tasks import bits, memory
from tests.tasks.test_description import written as language_model

A, B, C = "000001 110000 101010", "111111 000000 010101", "100110 011001 111000"


def remember(*arguments, text=None):
    return CliRunner().invoke(group(), ["remember", *map(str, arguments)], input=text)


def saved(folder, task, net="ntm"):
    model = memory.MemoryNet(task, net, slots=9, width=3, hidden=6)
    model.initialize(seed=3)
    model.save(folder / "model.safetensors")
    memory.save_description(model, folder / "model.safetensors")
    return model


def text_of(task, x):
    """A sequence that a net sees, as a line."""
    width = memory.TASKS[task].bits
    words = ["".join(map(str, row)) for row in x[:, :width].astype(int).tolist()]
    if task == "copy":
        return " ".join(words[1 : len(x) // 2])
    if task == "sort":
        pairs = zip(words, x[: len(x) // 2, width].tolist(), strict=False)
        return " ".join(f"{word}:{priority!r}" for word, priority in pairs)
    return " | ".join(" ".join(words[k + 1 : k + 4]) for k in range(0, len(x) - 4, 4))


@pytest.mark.parametrize("task", memory.TASKS)
def test_lines_are_what_training_makes(task):
    found = memory.make(task, [2, 5, 30], np.random.default_rng(0))
    lines = [text_of(task, x[:n]) for x, n in zip(found.x, found.lengths, strict=True)]
    again = memory.padded(bits.read_sequences(task, lines, "lines"))
    for one, other in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("task", "net"), [("copy", "ntm"), ("recall", "ntm"), ("sort", "ntm"), ("copy", "lstm")]
)
def test_writes_what_the_net_does(tmp_path, task, net):
    """Also for sequences that are longer than in training; a file or the standard input."""
    model = saved(tmp_path, task, net)
    found = memory.make(task, [3, 25, 2], np.random.default_rng(1))
    lines, want = [], []
    for x, n, counts in zip(found.x, found.lengths, found.counts, strict=True):
        lines.append(text_of(task, x[:n]))
        (logits,) = model.predict(x[None, :n], np.array([n]))
        rows = logits[counts[:n] > 0] > 0
        want.append(" ".join("".join(map(str, row)) for row in rows.astype(int).tolist()))
    path = tmp_path / "bits.txt"
    path.write_text("\r\n".join(lines))
    result = remember(path, path, "--checkpoint", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == want * 2
    assert {"0", "1"} < set("".join(want))
    piped = remember("--checkpoint", tmp_path / "model.safetensors", text=lines[1] + "\n")
    assert piped.stdout == want[1] + "\n"


def test_picture_of_the_first_line(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    saved(tmp_path, "sort")
    draw, drawn = memory.draw_sequence, []
    monkeypatch.setattr(memory, "draw_sequence", lambda *given: drawn.append(draw(*given)))
    lines = ["01101001:-.5 11100010:1", "00000000:0"]
    picture = tmp_path / "heads.png"
    result = remember("--checkpoint", tmp_path, "--picture", picture, text="\n".join(lines))
    assert result.exit_code == 0, result.output
    assert picture.stat().st_size > 1000
    (first,) = bits.read_sequences("sort", lines[:1], "lines")
    shown, answer = (np.asarray(ax.images[0].get_array()).T for ax in drawn[0].axes[:2])
    np.testing.assert_array_equal(shown, first[0])
    assert bits.line_of(answer[3:].astype(int)) == "11100010 01101001"
    with pytest.raises(OptionError, match="'ntm', got 'lstm', which has no heads"):
        draw(memory.MemoryNet("sort", "lstm"), memory.padded([first]))


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("copy", "01101001 0110100", "vectors of 8 bits, got '0110100', of 7; write 8 bits a word"),
        ("copy", "01101001:0.5", "8 bits, 0 or 1, got '01101001:0.5'; write nothing else"),
        ("copy", "0110100٢", "8 bits, 0 or 1, got '0110100٢'; write nothing else"),
        ("copy", " \t", "a sequence of bits, got an empty line; remove it"),
        ("recall", f"{A} | {B[:13]} | {A}", "items of 3 vectors with | between them, got 2 as ite"),
        ("recall", f"{A} | {B} |", "items of 3 vectors with | between them, got 0 as item 3"),
        ("recall", f"{A} | {A}", "at least 2 items and the one that is asked for, got 2 in all"),
        ("recall", f"{A} | {B} | {C}", f"got '{C}', which is none of them; repeat an item"),
        ("recall", f"{A} | {B} | {B}", f"got '{B}', which is the last one; repeat an item"),
        ("recall", f"{A} | {B} | {A} | {C} | {A}", "which is followed by different ones; repeat"),
        ("recall", "01101001 | 01101001", "vectors of 6 bits, got '01101001', of 8; write 6"),
        ("sort", "01101001", "such as 01010101:0.35, got '01101001'; add : and a priority"),
        ("sort", "0110:0.5", "vectors of 8 bits, got '0110', of 4"),
        ("sort", "01101001:1.5", "priorities from -1 to 1, got '1.5'; scale them, or correct"),
        ("sort", "01101001:nan", "priorities from -1 to 1, got 'nan'"),
        ("sort", "01101001:0_1", "priorities from -1 to 1, got '0_1'"),
        ("sort", "01101001:", "priorities from -1 to 1, got ''"),
    ],
)
def test_lines_that_are_refused(task, line, message):
    right = {"copy": "01101001", "recall": f"{A} | {B} | {A}", "sort": "01101001:0.5"}[task]
    with pytest.raises(DataError) as error:
        bits.read_sequences(task, [right, line, right], "my.txt")
    assert str(error.value).startswith(f"my.txt, line 2: {task}: expected ")
    assert message in str(error.value)


def test_an_item_that_is_followed_twice_by_the_same():
    (_, answer) = bits.read_sequences("recall", [f"{A} | {B} | {A} | {B} | {A}"], "lines")[0]
    assert bits.line_of(answer) == B


def test_files_and_checkpoints_that_are_refused(tmp_path):
    """Nothing is printed before all lines are read."""
    saved(tmp_path, "copy")
    path, other = tmp_path / "bits.txt", tmp_path / "other"
    path.write_text("01101001\n0110100x\n")
    result = remember(path, "--checkpoint", tmp_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {path}, line 2: copy: expected vectors of 8 bits")
    empty = remember("--checkpoint", tmp_path, text="")
    assert "Error: the standard input: expected a sequence of bits a line, got not" in empty.stderr
    assert "there is no such file" in remember(other, "--checkpoint", tmp_path).stderr
    other.mkdir()
    language_model(other, "ab")
    result = remember(path, "--checkpoint", other)
    assert result.exit_code == 1
    assert "as `fastnn train copy`, `recall` or `sort` writes it, got that of a la" in result.stderr
    assert "a model of another task; use it with `fastnn sample --checkpoint" in result.stderr
