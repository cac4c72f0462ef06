"""The group of all commands, and what becomes of an error: one line and an exit status."""

from __future__ import annotations

import io
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import cast

import click

import headrace
from headrace.cli.command_errors import CommandError, Failure
from headrace.cli.command_list import COMMANDS, STATUSES, SUMMARY
from headrace.cli.documents import asks_for_json, command_asked_for
from headrace.cli.output import Result, write_error, write_result
from headrace.cli.pipe import BROKEN_PIPE, mute
from headrace.errors import ArgumentError, HeadraceError, ListFileError, MissingDependency
from headrace.interop.interrupt import held_back

# Extension modules, imported before anything else is done and not where they are first used: see `held_back`.
_HEAVY = ("numpy.random", "PIL.Image", "simplejpeg")


class Commands(click.Group):
    """A group whose commands end in one line for every error that is not a bug of ours."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names of the commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command by its name, and no other: some need more libraries than others."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"headrace.cli.{COMMANDS[cmd_name][0]}")
        command = cast("click.Command", getattr(module, cmd_name))
        command.short_help = COMMANDS[cmd_name][1]  # what a shell shows beside a name that it completes
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, and of exit statuses."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])
        with formatter.section("Exit status"):
            formatter.write_dl([(str(status), meaning) for status, meaning in STATUSES.items()])

    def invoke(self, ctx: click.Context) -> int:
        """Run the chosen command; return its exit status."""
        try:
            result = super().invoke(ctx) or Result()
            write_result(ctx.invoked_subcommand or "", result)
            return int(result.status)
        except KeyboardInterrupt:
            raise click.Abort from None  # which click passes on without writing anything
        except BrokenPipeError:
            mute()
            raise click.exceptions.Exit(BROKEN_PIPE) from None
        except (HeadraceError, OSError) as error:
            if ctx.params["debug"]:
                traceback.print_exception(error.__cause__ or error)
            if isinstance(error, CommandError):
                raise
            raise _command_error(error) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=f"""{SUMMARY}

    PATH is a folder with one sub-folder a class, a folder of images, a list file (.txt .csv .tsv .lst), shards (tar,
    zip, TFRecord, Arrow, Parquet, MDS, LitData: one, their folder, or a pattern such as "{{00..99}}.tar"), CIFAR as
    downloaded (its folder or its .tar.gz), or one image. show, bench and check also take SCRIPT:NAME: a loader or a
    dataset of a Python file, as in train.py:loader.
    """,
    epilog="Start with: headrace demo",
)
@click.version_option(headrace.__version__, message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show an error's whole traceback before its line.")
def commands(*, debug: bool) -> None:  # noqa: ARG001, D103  read by Commands.invoke
    with held_back():
        for module in _HEAVY:
            with suppress(ImportError):  # reported when it is needed
                import_module(module)


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
        if asks_for_json():
            write_error(command_asked_for(), error.exit_code, error, error.format_message())
        else:
            error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:  # noqa: BLE001  a bug: without a status of its own, Python's 1 would say "a bad sample"
        traceback.print_exception(error)
        if asks_for_json():
            write_error(command_asked_for(), Failure.exit_code, error, f"{type(error).__name__}: {error}")
        return Failure.exit_code


def _command_error(error: HeadraceError | OSError) -> CommandError:
    if isinstance(error, HeadraceError):
        wrong_use = isinstance(error, ArgumentError | ListFileError | MissingDependency)
        return (CommandError if wrong_use else Failure).of(error)
    return Failure.of_system(error)
