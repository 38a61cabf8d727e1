"""The command line: `fastnn train`, `fastnn info`, `fastnn warmup`; one file a command.

click and the commands' own imports are loaded when they are needed, so that `--help` is quick.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

#: command -> one line about it, for `--help`; the command is called so in the module of its name
COMMANDS = {
    "train": "Train a model on a task's data and test it.",
    "sample": "Write text with a trained language model.",
    "info": "Show versions, CPU, workers, CUDA and the kernel cache.",
    "warmup": "Compile kernels ahead, in parallel processes.",
}

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


def main() -> Any:
    """Run the command that the program's arguments name; the entry point `fastnn`."""
    return group()(prog_name="fastnn")


def group() -> Any:
    """The group of all commands, for click."""
    import click

    import fastnn
    from fastnn.errors import FastnnError

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

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            with formatter.section("Commands"):
                formatter.write_dl(list(COMMANDS.items()))

        def invoke(self, ctx: click.Context) -> Any:
            try:
                return super().invoke(ctx)
            except KeyboardInterrupt:
                click.echo("interrupted", err=True)
                ctx.exit(INTERRUPTED)
            except (FastnnError, OSError, ImportError) as error:
                if os.environ.get("FASTNN_DEBUG"):
                    raise
                raise click.ClickException(" ".join(str(error).split())) from error

    return Commands(
        "fastnn",
        params=[_version(click, fastnn.__version__)],
        help="Train neural networks with kernels written in Python.\n\n"
        "FASTNN_DEBUG=1 shows where an error came from.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _version(click: Any, version: str) -> Any:
    def show(ctx: Any, option: Any, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            click.echo(f"fastnn {version}")
            ctx.exit()

    return click.Option(
        ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=show,
        help="Show the version and exit.",
    )  # fmt: skip
