"""`fastnn train adding`."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import click

from fastnn import files
from fastnn.cli import INTERRUPTED, options
from fastnn.cli.ranges import Number, Whole


@click.command("adding")
@click.option(
    "--net",
    "nets",
    type=click.Choice(["rnn", "irnn", "lstm", "gru"]),
    multiple=True,
    default=["rnn", "irnn", "lstm", "gru"],
    show_default=True,
    help="May be given several times.",
)
@click.option(
    "--steps",
    type=Whole(2),
    multiple=True,
    default=[100, 400],
    show_default=True,
    help="Length of the sequences; may be given several times.",
)
@options.count("--updates", 5000, "Largest number of mini-batches to train on.")
@options.count("--every", 100, "Mini-batches between measurements.")
@options.count("--hidden", 64, "Units.")
@options.count("--batch-size", 32, "Sequences per step.")
@click.option(
    "--lr",
    type=Number(0, min_open=True),
    help="Learning rate; each net has its own default.",
)
@click.option("--seed", default=0, show_default=True, type=Whole(0))
@click.option("--workers", default="auto", show_default=True, callback=options.check_workers)
@click.option(
    "--output",
    default="runs/adding",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Output folder.",
)
@click.pass_context
def adding(
    ctx: click.Context, /, nets: tuple[str, ...], steps: tuple[int, ...], updates: int, every: int,
    hidden: int, batch_size: int, lr: float | None, seed: int, workers: int | str, output: Path,
) -> None:  # fmt: skip
    """The adding problem: what nets remember over many steps.

    Trains each net on sequences of each length until the mean squared error is below 0.01, and
    writes the errors as a table and a plot.
    """
    from fastnn.tasks.adding import GUESS, SOLVED, draw_adding, train_adding

    output = options.folder(output)
    click.echo(f"mean squared error of the answer 1: {GUESS:.4f}")
    curves: dict[tuple[str, int], list[float]] = {}
    stopped = ""
    for length in steps:
        for net in nets:
            if stopped:
                continue
            try:
                errors = train_adding(
                    net, length, hidden=hidden, batch_size=batch_size, updates=updates,
                    every=every, lr=lr, seed=seed, workers=workers,
                )  # fmt: skip
            except KeyboardInterrupt:
                stopped = f"interrupted at T={length} {net}; the table is without it"
                continue
            curves[net, length] = errors
            word = "solved" if errors[-1] < SOLVED else "not solved"
            done = every * len(errors)
            click.echo(f"T={length:<4} {net:<5} {word} after {done} updates: {errors[-1]:.4f}")
    table = output / "history.csv"
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["net", "steps", "updates", "error"])
    for (net, length), errors in curves.items():
        writer.writerows([net, length, every * (k + 1), e] for k, e in enumerate(errors))
    files.write_text(table, text.getvalue(), "table")
    click.echo(f"{'history':<15} {table}")
    picture = output / "learning-curve.png"
    if curves and options.drawn(lambda: draw_adding(curves, every, picture)):
        click.echo(f"{'learning curves':<15} {picture}")
    if stopped:
        click.echo(f"{stopped} and what comes after it")
        ctx.exit(INTERRUPTED)
