"""The command line: `fastnn train`, `fastnn info`, `fastnn warmup`; one file a command.

click and the commands' own imports are loaded when they are needed, so that `--help` is quick.
"""

from __future__ import annotations

import difflib
import importlib
import itertools
import shlex
from typing import Any

#: command -> one line about it, for `--help`; the command is called so in the module of its name
COMMANDS = {
    "train": "Train a model on a task's data and test it.",
    "sample": "Generate text, images or sound with a trained model.",
    "translate": "Translate sentences with a trained model.",
    "recognise": "Name the word, speaker or language in audio files.",
    "transcribe": "Write down what is said in audio files.",
    "tag": "Mark the names in text with a trained model.",
    "remember": "Copy, recall or sort bits with a trained memory.",
    "info": "Show versions, CPU, workers, CUDA and the kernel cache.",
    "warmup": "Compile kernels in advance, in parallel processes.",
}

#: tasks of `train` in files of their own -> one line about each, for `--help`
TASKS = {
    "mnist-cnn": "Handwritten digits of MNIST: a small convolutional net.",
    "spoken-digits": "Spoken digits: LSTM on cepstra of 3,000 recordings.",
    "speech-commands": "Spoken words: convolutional net on raw samples.",
    "speaker-id": "Who is speaking: convolutional net on raw samples.",
    "language-id": "Which language is spoken: recordings of your own.",
    "asr": "Speech recognition: LSTM and CTC on AN4 or your own recordings.",
    "char-lm": "Text, character by character: LSTM on Shakespeare's plays.",
    "word-lm": "Text, word by word: LSTM on Penn Treebank.",
    "ner": "Names of people, places and organisations in news: CoNLL-2003.",
    "translate": "Translation: recurrent net with attention, or a Transformer.",
    "autoencoder": "An autoencoder of handwritten digits.",
    "vae": "A variational autoencoder that makes handwritten digits.",
    "gan": "A generative adversarial net that makes handwritten digits.",
    "wavenet": "A WaveNet that says digits, sample by sample.",
    "copy": "Copying random bits: a Neural Turing Machine beside an LSTM.",
    "recall": "Finding the item that followed another: a Neural Turing Machine.",
    "sort": "Sorting vectors by priority: a Neural Turing Machine.",
    "adding": "The adding problem: how far back RNN, IRNN, LSTM and GRU remember.",
}

#: tasks that are in a module of another name: a command has theirs, or several share one
TASK_MODULES = {"translate": "translation", "copy": "memory", "recall": "memory", "sort": "memory"}

INTERRUPTED, TERMINATED = 130, 143  # exit codes after Ctrl-C and SIGTERM, as shells have them
KEPT = "fastnn.checkpoint"  # in the context of a command: the checkpoint that it has written


def main() -> Any:
    """Run the command that the program's arguments name; the entry point `fastnn`."""
    return group()(prog_name="fastnn")


def group() -> Any:
    """The group of all commands, for click."""
    import click

    import fastnn
    from fastnn import switches
    from fastnn.errors import FastnnError, OptionError

    class Commands(click.Group):
        """Loads a command's module when it is called; says users' mistakes in one line."""

        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(COMMANDS)

        def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
            if name not in COMMANDS:
                return None
            module = importlib.import_module(f"fastnn.cli.{name}")
            found: click.Command = getattr(module, name)
            return found

        def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
            suggest(ctx, self, args, {f"train {task}": task for task in TASKS})
            return check_values(ctx, super().resolve_command(ctx, args))

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl(list(COMMANDS.items()))

        def invoke(self, ctx: click.Context) -> Any:
            from fastnn.cli.interrupts import one_interrupt, terminated

            try:
                debugging = switches.on("FASTNN_DEBUG")
            except OptionError as error:
                raise click.ClickException(str(error)) from None
            try:
                with one_interrupt():
                    return super().invoke(ctx)
            except KeyboardInterrupt:
                kept = ctx.meta.get(KEPT)
                rest = "" if kept is None else (
                    f" after training; what is missing follows with the same options and "
                    f"--resume {shlex.quote(str(kept))}"
                )  # fmt: skip
                click.echo("interrupted" + rest, err=True)
                ctx.exit(TERMINATED if terminated() else INTERRUPTED)
            except click.exceptions.Exit as end:
                if end.exit_code == INTERRUPTED and terminated():
                    ctx.exit(TERMINATED)
                raise
            except UnicodeEncodeError as error:
                if debugging:
                    raise
                sign = error.object[error.start : error.start + 1]
                raise click.ClickException(
                    f"the output is in {error.encoding}, which has no {sign!a}; set "
                    "PYTHONIOENCODING=utf-8"
                ) from error
            except (FastnnError, OSError, ImportError) as error:
                if isinstance(error, BrokenPipeError):  # who read it has had enough; click knows
                    raise
                if debugging:
                    raise
                raise click.ClickException(" ".join(str(error).split())) from error

    return Commands(
        "fastnn",
        params=[_version(click, fastnn.__version__)],
        help="Train neural networks with kernels written in Python.\n\n"
        "Set FASTNN_DEBUG=1 to see the traceback of an error.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def suggest(ctx: Any, group: Any, args: Any, others: dict[str, str] | None = None) -> None:
    """Raise click's error with the nearest command, where there is no such one.

    Args:
        ctx, group, args: as `click.Group.resolve_command` has them.
        others: commands elsewhere -> the names that are meant by them.
    """
    import click

    name = str(args[0])
    if name.startswith("-") or group.get_command(ctx, name) is not None:
        return
    names = {command: command for command in group.list_commands(ctx)} | (others or {})
    near = difflib.get_close_matches(name, [str(n) for n in names.values()], n=1, cutoff=0.6)
    meant = [command for command, called in names.items() if called in near]
    hint = f"Did you mean {' or '.join(repr(m) for m in meant)}?" if meant else (
        f"There is {', '.join(group.list_commands(ctx))}."
    )  # fmt: skip
    raise click.UsageError(f"No such command {name!r}. {hint}", ctx)


def check_values(ctx: Any, resolved: Any) -> Any:
    """What `click.Group.resolve_command` found, with an error where an option stands in the place
    of another one's value (click takes it for the value)."""
    import click

    _, command, args = resolved
    takes = {
        name: isinstance(option, click.Option) and not option.is_flag
        for option in command.get_params(ctx)
        for name in option.opts
    }
    for name, value in itertools.pairwise(args):
        if name == "--":
            break
        if takes.get(name) and value.startswith("-") and value in takes:
            raise click.UsageError(
                f"Option {name!r} requires a value, got the option {value!r}.", ctx
            )
    return resolved


def _version(click: Any, version: str) -> Any:
    def show(ctx: Any, option: Any, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"fastnn {version}")
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=show,
        help="Show the version and exit.",
    )  # fmt: skip
