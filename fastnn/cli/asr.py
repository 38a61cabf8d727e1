"""`fastnn train asr`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastnn.cli import options


@click.command("asr")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path),
              help="Recordings, a.wav, and their transcripts, a.txt; default AN4.")  # fmt: skip
@click.option("--test", type=click.Path(file_okay=False, path_type=Path),
              help="Such a folder to test with; needed with --data.")  # fmt: skip
@options.count("--hidden", 128, "Units per layer and direction.")
@options.count("--layers", 2, "LSTM layers.")
@options.share("--dropout", 0.35, "Dropout probability between layers.")
@click.option("--transducer", is_flag=True,
              help="Train a transducer, without CTC, word list and language model.")  # fmt: skip
@options.running(
    output="runs/asr",
    epochs=40,
    batch_size=16,
    lr=4e-3,
    rate="Initial learning rate; it decays to 0 along a cosine.",
    batch="Recordings per step.",
)
@click.pass_context
def asr(
    ctx: click.Context, /, data: Path | None, test: Path | None, output: Path, quiet: bool,
    **more: Any,
) -> None:  # fmt: skip
    """Speech recognition: characters of AN4's spelt names and numbers, or of your own recordings.

    A bidirectional LSTM on cepstra with connectionist temporal classification; a word list and a
    language model of the training texts help to read it. Or a transducer, which reads what it has
    written itself. Set FASTNN_DATA to the folder that has
    an4. `fastnn transcribe` uses the result.
    """
    from fastnn.data.transcribed import load_an4, load_transcribed
    from fastnn.tasks.asr import save_description, train_asr
    from fastnn.tasks.speech_alignment import draw_alignment, first_fitting

    if (data is None) != (test is None):
        raise click.UsageError("--data and --test: expected both, or neither for AN4")
    if data is None or test is None:
        parts = load_an4()
    else:
        parts = load_transcribed(data), load_transcribed(test)
    trainer, history, scores, recogniser = train_asr(
        *parts, verbose=not quiet, callbacks=[options.KeepCheckpoint(output)], **more
    )
    written = options.write(trainer, history, output)
    written.insert(1, ("description", save_description(recogniser, written[0][1])))
    first = None if options.interrupted(history) else first_fitting(recogniser, parts[1])
    if first is not None:
        frames, text = first
        picture = output / "alignment.png"
        if options.drawn(lambda: draw_alignment(recogniser, frames, text, picture)):
            written.append(("alignment", picture))
    options.conclude(ctx, trainer, history, written, [(n, str(s)) for n, s in scores.items()])
