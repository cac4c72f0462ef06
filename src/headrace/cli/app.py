"""The group of all commands, and what becomes of an error: one line and an exit status."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

import headrace
from headrace.cli.bench import bench
from headrace.cli.check import check
from headrace.cli.command_errors import CommandError, Failure
from headrace.cli.convert import convert
from headrace.cli.demo import demo
from headrace.cli.diff import diff
from headrace.cli.doctor import doctor
from headrace.cli.index_command import index
from headrace.cli.replay_command import replay
from headrace.cli.show import show
from headrace.errors import ArgumentError, HeadraceError, ListFileError, MissingDependency
from headrace.interop.interrupt import held_back

BROKEN_PIPE = 141  # as a shell counts a death by SIGPIPE: 128 + 13

# Extension modules, imported before anything else is done and not where they are first used: see `held_back`.
_HEAVY = ("numpy.random", "PIL.Image", "simplejpeg")


class Commands(click.Group):
    """A group whose commands end in one line for every error that is not a bug of ours."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.Abort from None  # which click passes on without writing anything
        except BrokenPipeError:
            _mute()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except (HeadraceError, OSError) as error:
            if ctx.params["debug"]:
                raise (error.__cause__ or error) from None
            raise _command_error(error) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: headrace demo",
)
@click.version_option(headrace.__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show an error's whole traceback instead of one line.")
def commands(*, debug: bool) -> None:  # noqa: ARG001  read by Commands.invoke
    """Real images in, training batches out.

    PATH is a folder with one sub-folder a class, a folder of images, a list file (.txt .csv .tsv .lst), shards (tar,
    zip, TFRecord, Arrow, Parquet, MDS, LitData: one, their folder, or a pattern such as "{00..99}.tar"), CIFAR as
    downloaded (its folder or its .tar.gz), or one image.
    """
    with held_back():
        for module in _HEAVY:
            with suppress(ImportError):  # told when it is needed
                import_module(module)


for command in (demo, show, bench, check, index, convert, diff, doctor, replay):
    commands.add_command(command)


def run() -> int:
    """Run the command that ``sys.argv`` asks for; return its exit status, or raise KeyboardInterrupt."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A class name that the terminal's encoding lacks is shown escaped, not as a traceback.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = commands.main(prog_name="headrace", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None


def _command_error(error: HeadraceError | OSError) -> CommandError:
    if isinstance(error, CommandError):
        return error
    if isinstance(error, HeadraceError):
        wrong_use = isinstance(error, ArgumentError | ListFileError | MissingDependency)
        return (CommandError if wrong_use else Failure).of(error)
    return Failure.of_system(error)


def _mute() -> None:
    """Send what is still to be written nowhere: whoever read it has gone (``headrace check photos | head``)."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
