"""Every error is in one place, carries its parts as attributes, and arrives whole from a worker process."""

from __future__ import annotations

import ast
import inspect
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import headrace
from headrace import DataLoader, errors
from headrace.errors import (
    ArgumentError,
    BadImage,
    CollateError,
    FileTooLarge,
    HeadraceError,
    MissingFile,
    SampleError,
    StateMismatch,
    TooManyErrors,
    UnreadableFile,
    WorkerDied,
    missing,
)
from headrace.storage.files import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(headrace.__file__).parent
ERRORS = [
    kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, HeadraceError) and not name.startswith("_")
]
PARTS = {"path": "a.jpg", "index": 3, "found": 0, "expected": "an image", "cure": "Remove it."}


class Refusing:
    """A dataset whose fourth sample cannot be read."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 3:
            error = BadImage("0 bytes", **PARTS)  # type: ignore[arg-type]
            error.add_note("it was on the train")
            raise error
        return index


def _defined() -> Iterator[tuple[str, str]]:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases = [
                    base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "") for base in node.bases
                ]
                if any(base.endswith(("Error", "Exception", "Warning")) for base in bases):
                    yield path.relative_to(ROOT).as_posix(), node.name


def test_every_error_is_defined_in_one_file() -> None:
    """Find no class of errors elsewhere, but for private ones that are caught where they are raised."""
    elsewhere = {(file, name) for file, name in _defined() if file != "errors.py" and not name.startswith("_")}
    commands = "cli/command_errors.py"  # click's way to end a command
    assert elsewhere == {(commands, "CommandError"), (commands, "Failure")}


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_is_documented(kind: type[HeadraceError]) -> None:
    """Say what each means, and draw it in the tree at the head of the module."""
    assert kind.__doc__
    assert errors.__doc__
    assert f" {kind.__name__}" in errors.__doc__ or kind is HeadraceError


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_its_parts_as_attributes(kind: type[HeadraceError]) -> None:
    """Give each part back as it was given, and None for one that was not."""
    error = kind("0 bytes", **PARTS)  # type: ignore[arg-type]
    assert {name: getattr(error, name) for name in PARTS} == PARTS
    bare = kind("0 bytes")
    assert {getattr(bare, name) for name in PARTS} <= {None, "0 bytes"}
    assert bare.found == ("0 bytes" if issubclass(kind, SampleError) else None)
    assert str(bare) == "0 bytes"


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_survives_pickling(kind: type[HeadraceError]) -> None:
    """Keep the message, the parts, the notes and the builtin attributes."""
    error = kind("0 bytes", **PARTS)  # type: ignore[arg-type]
    error.add_note("headrace: epoch 0")
    if isinstance(error, OSError):
        error.errno = 13
    if isinstance(error, ImportError):
        error.name = "PIL"
    if isinstance(error, CollateError):
        error.rows = (0, 2)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
    assert again.__notes__ == ["headrace: epoch 0"]
    assert vars(again) == vars(error)
    for name in (*PARTS, "errno", "strerror", "filename", "name", "rows"):
        assert getattr(again, name, None) == getattr(error, name, None)


def test_an_error_of_a_users_own_survives_pickling() -> None:
    """Rebuild a subclass whose constructor takes other arguments."""
    again = pickle.loads(pickle.dumps(TornPage("a.tif", 7)))
    assert (type(again), str(again), again.page) == (TornPage, "a.tif: page 7 is torn", 7)


class TornPage(SampleError):
    """A user's own error."""

    def __init__(self, path: str, page: int) -> None:
        super().__init__(f"page {page} is torn", path=path)
        self.page = page


@pytest.mark.parametrize("backend", ["inline", "threads", "processes"])
def test_a_loop_raises_the_error_with_its_parts(backend: str) -> None:
    """Bring the parts and the notes out of a worker of any kind."""
    loader = DataLoader(Refusing(), 2, num_workers=0 if backend == "inline" else 1, backend=backend)
    with loader, pytest.raises(BadImage) as caught:
        list(loader)
    assert {name: getattr(caught.value, name) for name in PARTS} == PARTS
    assert str(caught.value) == "sample 3 (a.jpg): 0 bytes; expected an image. Remove it."
    assert "it was on the train" in caught.value.__notes__


def test_a_message_repeats_no_part() -> None:
    """Leave out a part that the first sentence already contains."""
    error = ArgumentError("size must be an integer; got 'x'", found="x", expected="an integer", cure="pass size=3")
    assert str(error) == "size must be an integer; got 'x'; pass size=3"
    assert str(BadImage("a.jpg: empty", path="a.jpg")) == "a.jpg: empty"
    assert str(BadImage("an image of 3 x 4", path="x")) == "x: an image of 3 x 4"


def test_a_sample_error_learns_its_index_once() -> None:
    """Name the sample where the dataset knows it, and leave an index that is already known."""
    error = BadImage("empty", path="a.jpg", cure="fix it").at(3)
    assert (str(error), error.index) == ("sample 3 (a.jpg): empty; fix it", 3)
    assert error.at(4).index == 3
    assert str(BadImage("empty").at(0)) == "sample 0: empty"


def test_a_missing_library_is_named() -> None:
    """Give the library and the command that installs it."""
    error = missing("Pillow", extra="images", purpose="decoding")
    assert (error.name, error.cure) == ("Pillow", "pip install 'headrace[images]'")
    assert str(error).count("pip install") == 1


def test_errors_of_files_carry_the_path(tmp_path: Path) -> None:
    """Give the path, what was found and the operating system's number as attributes."""
    gone, large = str(tmp_path / "gone"), tmp_path / "large"
    large.write_bytes(bytes(9))
    for path, kind, found in (
        (gone, MissingFile, "there is no such file"),
        (str(tmp_path), UnreadableFile, "cannot be read: it is a folder"),
        (str(large), FileTooLarge, "9 bytes"),
    ):
        with pytest.raises(kind) as caught:
            read_file(path, max_bytes=8)
        error: SampleError = caught.value
        assert (error.path, error.found) == (path, found)
        assert error.expected
        assert error.cure
        assert isinstance(error, OSError)
        assert error.errno
        assert str(error) == f"{path}: {found}; expected {error.expected}. {error.cure}"


def test_a_batch_that_does_not_fit_names_the_rows_and_the_field() -> None:
    """Say which part of which samples differs, for a program as well."""
    samples = [{"boxes": [1, 2]}, {"boxes": [1, 2]}, {"boxes": [1]}]
    with pytest.raises(CollateError) as caught:
        next(iter(DataLoader(samples, 3)))
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.rows, error.field, error.found, error.expected) == ((0, 2), "sample['boxes']", 1, "2")
    assert str(error).startswith("at sample['boxes']: samples 0 and 2")


def test_a_state_of_another_run_names_the_settings() -> None:
    """Give the saved values and those of this run."""
    state = DataLoader(range(8), 2, seed=0).state_dict()
    with pytest.raises(StateMismatch) as caught:
        DataLoader(range(8), 4, seed=1).load_state_dict(state)
    error = caught.value
    assert error.settings == ("batch_size", "seed")
    assert (error.found, error.expected) == ("batch_size=2, seed=0", "batch_size=4, seed=1")


def test_too_many_bad_samples_are_counted_and_the_latest_named() -> None:
    """Count those that failed, and keep what was wrong with the latest."""
    with pytest.raises(TooManyErrors) as caught:
        list(DataLoader(Refusing(), 2, on_error="skip", max_errors=0))
    assert caught.value.found == 1
    assert [text.partition(":")[0] for text in caught.value.latest] == ["sample 3"]


class Ending:
    """A dataset whose third sample ends its process."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index == 2:
            os._exit(7)
        return index


def test_a_dead_worker_is_known_by_number_process_and_exit_code() -> None:
    """Say which worker it was, how it ended, and at which sample."""
    loader = DataLoader(Ending(), 1, num_workers=1, backend="processes", restart_workers=0)
    with pytest.raises(WorkerDied) as caught:
        list(loader)
    error = caught.value
    assert (error.worker, error.exit_code, error.found) == (0, 7, "exited unexpectedly with exit code 7")
    assert error.pid
    assert error.at
    assert error.cure
    assert "sample 2" in error.at
