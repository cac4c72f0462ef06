"""The options that several commands share, each with the limits of what can be meant."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from headrace.checks import shown
from headrace.cli.command_errors import CommandError
from headrace.executors import registry
from headrace.formatting import memory_of

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

MOST_THREADS = 1024
"""Threads that a command starts at most: more than the CPUs of any machine, fewer than a process may have."""
MOST_IMAGES = 10_000_000
MOST_EPOCHS = 1_000_000
MOST_IN_A_BATCH = 1 << 20
MOST_PIXELS_A_SIDE = 1 << 14


class Number(click.IntRange):
    """An integer within its limits, refused with the value, the limits and what to do."""

    def __init__(self, least: int, most: int | None = None, *, cure: str = "") -> None:
        super().__init__(least, most)
        self._cure = cure

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the integer that the text is.

        >>> Number(0, 8, cure="give fewer").convert("9", None, None)
        Traceback (most recent call last):
            ...
        click.exceptions.BadParameter: 9 is not an integer from 0 to 8; give fewer
        """
        expected = f"an integer from {self.min} up" if self.max is None else f"an integer from {self.min} to {self.max}"
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{shown(value)} is not {expected}", param, ctx)
        if number < (self.min or 0) or (self.max is not None and number > self.max):
            cure = f"; {self._cure}" if self._cure and number > (self.min or 0) else ""
            self.fail(f"{shown(number)} is not {expected}{cure}", param, ctx)
        return number


def number(
    *names: str, least: int, most: int | None = None, cure: str = "", default: int | None = None, about: str
) -> Decorator:
    """Return an option that takes an integer."""
    kind = Number(least, most, cure=cure)
    settings: dict[str, Any] = {"default": default, "show_default": True} if default is not None else {}
    return click.option(*names, type=kind, metavar="N", help=about, **settings)


workers = number(
    "--workers",
    "-w",
    least=0,
    most=MOST_THREADS,
    cure="give about as many as there are CPUs: more threads only wait",
    about="Threads that make batches; with 0 the loop makes them itself.  [default: one per CPU]",
)
jobs = number(
    "--jobs",
    "-j",
    least=1,
    most=MOST_THREADS,
    cure="give about as many as there are CPUs: more threads only wait",
    about="Threads that read.  [default: one per CPU]",
)
seed = number("--seed", least=0, default=0, about="Fixes the order and the augmentation.")
backend = click.option(
    "--backend",
    type=click.Choice(["auto", *registry.names()]),
    default="auto",
    show_default=True,
    help="What makes the batches. auto: threads where the dataset suits them, else processes.",
)


def refuse(names: tuple[str, ...], reason: str) -> None:
    """Raise `click.UsageError` if one of these options was given, which would otherwise be ignored."""
    context = click.get_current_context()
    for parameter in context.command.params:
        given = context.get_parameter_source(parameter.name or "") is click.core.ParameterSource.COMMANDLINE
        if parameter.name in names and given:
            raise click.UsageError(f"{parameter.opts[0]} was given, but {reason}: leave it out")


def batch_size(default: int) -> Decorator:
    """Return the option that says how many images a batch has."""
    cure = "give fewer: a batch is held in memory"
    return number(
        "--batch-size", "-b", least=1, most=MOST_IN_A_BATCH, cure=cure, default=default, about="Images in a batch."
    )


def size(default: int | None = None) -> Decorator:
    """Return the option that says how large the crops are; without a default it depends on the dataset."""
    note = "" if default else "  [default: 224; of CIFAR, 32]"
    return number(
        "--size",
        "-s",
        least=1,
        most=MOST_PIXELS_A_SIDE,
        cure="give the side of the crops that training uses",
        default=default,
        about=f"Side of the crops, in pixels.{note}",
    )


def epochs(default: int | None = None) -> Decorator:
    """Return the option that says how often all images are read."""
    note = "" if default else "  [default: 1]"
    return number(
        "--epochs",
        "-e",
        least=1,
        most=MOST_EPOCHS,
        cure="give fewer",
        default=default,
        about=f"How often to read all images.{note}",
    )


def images(about: str, *, least: int = 1, default: int | None = None) -> Decorator:
    """Return the option that says how many images a command makes or reads."""
    return number(
        "--images", "-n", "wanted", least=least, most=MOST_IMAGES, cure="give fewer", default=default, about=about
    )


def check_memory(batch_size: int, size: int) -> None:
    """Refuse batches that cannot be in memory, before any is made.

    Raises `CommandError`. A batch is float32 with three channels, and two of them are in memory at the same time.
    """
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = batch_size * size * size * 3 * 4
    if 2 * wanted > most:
        raise CommandError(
            f"a batch of {batch_size:,} images of {size} x {size} takes {memory_of(wanted)}, and two must fit into the "
            f"{memory_of(most)} of this machine",
            found=2 * wanted,
            expected=f"two batches of at most {memory_of(most)}",
            cure="give a smaller --batch-size or --size",
        )
