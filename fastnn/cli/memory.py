"""`fastnn train copy`, `fastnn train recall`, `fastnn train sort`."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from fastnn import files
from fastnn.cli import INTERRUPTED, options

#: the LSTM's checkpoint, beside the machine's
LSTM = "lstm.safetensors"
#: and what is beside it
LSTM_DESCRIPTION = "lstm.json"


def _options(task: str, longest: int, what: str) -> Callable[[options.Command], options.Command]:
    """The options of the three tasks."""
    found: list[Callable[[options.Command], options.Command]] = [
        options.count("--slots", 128, "Slots of the memory."),
        options.count("--width", 20, "Numbers in a slot."),
        options.count("--hidden", 100, "Units of the controller, an LSTM."),
        options.count("--longest", longest, f"Most {what} in a training sequence."),
        options.count("--batches", 500, "Mini-batches per epoch."),
        click.option("--lstm/--no-lstm", default=True, show_default=True,
                     help="Also train an LSTM with the same number of parameters."),
        options.running(
            output=f"runs/{task}", epochs=22, batch_size=16, lr=1e-3, rate="Learning rate of Adam.",
            batch="Sequences per step.",
        ),
        click.pass_context,
    ]  # fmt: skip

    def add(command: options.Command) -> options.Command:
        for option in reversed(found):
            command = option(command)
        return command

    return add


@click.command("copy")
@_options("copy", 20, "vectors")
def copy(ctx: click.Context, /, **given: Any) -> None:
    """Copying vectors of random bits: a Neural Turing Machine.

    Writes the mean cost in bits of a sequence, for each length and for twice the longest, with an
    LSTM for comparison, and a picture of where the heads read and write.
    """
    _run(ctx, "copy", **given)


@click.command("recall")
@_options("recall", 6, "items")
def recall(ctx: click.Context, /, **given: Any) -> None:
    """Finding the item that followed another one: a Neural Turing Machine.

    Writes the mean cost in bits of an answer, for each number of items and for twice the largest,
    with an LSTM for comparison, and a picture of where the heads read and write.
    """
    _run(ctx, "recall", **given)


@click.command("sort")
@_options("sort", 10, "vectors")
def sort(ctx: click.Context, /, **given: Any) -> None:
    """Sorting vectors of random bits by priority: a Neural Turing Machine.

    Writes the mean cost in bits of a sequence, for each length and for twice the longest, with an
    LSTM for comparison, and a picture of where the heads read and write.
    """
    _run(ctx, "sort", **given)


def _run(
    ctx: click.Context, task: str, *, output: Path, quiet: bool, lstm: bool, longest: int,
    resume: Path | None, **more: Any,
) -> None:  # fmt: skip
    from fastnn.tasks import memory

    keep = [options.KeepCheckpoint(output)]
    more = {"longest": longest, "verbose": not quiet, **more}
    trainer, history = memory.train_memory(task, resume=resume, callbacks=keep, **more)
    begun = None if resume is None else resume.with_name(LSTM)
    if begun is None or begun != output / LSTM:  # what lies there is of another run
        for name in (LSTM, LSTM_DESCRIPTION):
            (output / name).unlink(missing_ok=True)
    written = options.write(trainer, history, output)
    written.insert(1, ("description", memory.save_description(trainer.model, written[0][1])))
    sizes = [*range(memory.TASKS[task].shortest, longest + 1), 2 * longest]
    if options.interrupted(history):
        options.conclude(ctx, trainer, history, written, [])
    model, stopped = trainer.model, False
    assert isinstance(model, memory.MemoryNet)
    columns = {"ntm": memory.measure(model, task, sizes)}
    if lstm:
        keep = [options.KeepCheckpoint(output, LSTM)]
        go_on = begun if begun is not None and begun.is_file() else None
        other, run = memory.train_memory(task, "lstm", resume=go_on, callbacks=keep, **more)
        memory.save_description(other.model, output / LSTM)
        written.append(("LSTM", output / LSTM))
        stopped = options.interrupted(run)
        if stopped:
            click.echo(
                "interrupted: the table is without the LSTM; resume with the same options and "
                f"--resume {shlex.quote(str(written[0][1]))}"
            )
        else:
            columns["lstm"] = memory.measure(other.model, task, sizes)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["size", *columns])
    writer.writerows(zip(sizes, *columns.values(), strict=True))
    files.write_text(output / "bits.csv", text.getvalue(), "table")
    written.append(("bits", output / "bits.csv"))
    picture = output / "weightings.png"
    if options.drawn(lambda: memory.draw_weightings(model, longest, picture)):
        written.append(("weightings", picture))
    measures = [("bits wrong", "a sequence, by " + " and ".join(columns).upper())]
    for k, size in enumerate(sizes):
        measures.append((f"size {size}", "  ".join(f"{c[k]:10.4f}" for c in columns.values())))
    options.conclude(ctx, trainer, history, written, measures)
    if stopped:
        ctx.exit(INTERRUPTED)
