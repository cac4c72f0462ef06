"""`--json`: one document for a script, from every command."""

from __future__ import annotations

import json
import os
import re
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import headrace
from headrace import DataLoader
from headrace.cli.command_list import COMMANDS, STATUSES
from headrace.cli.documents import FORMAT
from headrace.metrics import watch
from tests.cli.conftest import PATIENCE_SECONDS

if TYPE_CHECKING:
    from tests.cli.conftest import Call, Start

GUIDE = (Path(__file__).parents[2] / "docs" / "guide" / "command-line.md").read_text(encoding="utf-8")
SCRIPT = """
from headrace import DataLoader, ImageFolder, RandomResizedCrop
images = ImageFolder({photos!r}).map(RandomResizedCrop(16))
loader = DataLoader(images, 4, shuffle=True, seed=0)
"""


@pytest.fixture
def prepared(photos: Path, tmp_path: Path) -> Path:
    """A script, and the ledgers of two runs that differ."""
    (tmp_path / "train.py").write_text(SCRIPT.format(photos=str(photos)))
    for name, seed in (("one", 0), ("two", 1)):
        list(DataLoader(range(8), 2, shuffle=True, seed=seed, ledger=tmp_path / name))
    return photos


EACH = {
    "show": (("show", "PHOTOS", "-s", "16"), 0),
    "show a script": (("show", "train.py:loader"), 0),
    "bench": (("bench", "PHOTOS", "-s", "16", "-n", "8", "-b", "4", "-w", "1"), 0),
    "check": (("check", "PHOTOS"), 0),
    "check with a bad one": (("check", "BAD"), 1),
    "convert": (("convert", "PHOTOS", "shards", "--to", "tar"), 0),
    "index": (("index", "shards"), 0),
    "pack": (("pack", "PHOTOS", "packed", "--max-side", "16"), 0),
    "cache status": (("cache", "status", "--folder", "blocks"), 0),
    "cache verify": (("cache", "verify", "--folder", "blocks"), 0),
    "cache clear": (("cache", "clear", "--folder", "blocks"), 0),
    "diff": (("diff", "one", "two"), 1),
    "doctor": (("doctor",), 0),
    "top": (("top",), 0),
    "demo": (("demo", "-n", "6", "-s", "16", "-e", "1", "-w", "1"), 0),
    "replay": (("replay", "train.py:loader", "-i", "1"), 0),
}


def _keys(value: Any) -> set[str]:
    """Return the keys of a document, but those of names that a user chose."""
    if isinstance(value, list):
        return set().union(*map(_keys, value))
    if not isinstance(value, dict):
        return set()
    free = {"facts", "labels", "sizes", "stage_seconds", "parameters"}
    return set(value) | set().union(*(_keys(inner) for name, inner in value.items() if name not in free))


def test_every_command_writes_one_document_whose_keys_are_in_the_guide(
    call: Call, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write nothing else, whatever the command; the guide names each key."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.jpg").write_bytes(b"no image")
    loader: DataLoader[int] = DataLoader([1, 2], 2)
    done = set()
    for arguments, expected in EACH.values():
        named = [{"PHOTOS": str(prepared), "BAD": "bad"}.get(argument, argument) for argument in arguments]
        with watch(loader) if arguments == ("top",) else nullcontext():
            status, out, err = call(*named, "--json")
        assert (status, err) == (expected, ""), err
        found = json.loads(out)
        assert (found["format"], found["headrace"]) == (FORMAT, headrace.__version__)
        assert (found["command"], found["status"], found["error"]) == (arguments[0], expected, None)
        assert found["result"]
        unknown = {key for key in _keys(found) if f"`{key}`" not in GUIDE}
        assert not unknown, f"{arguments[0]}: {sorted(unknown)}"
        done.add(arguments[0])
    assert done == set(COMMANDS)


def test_a_bad_sample_is_named_in_the_document(call: Call, tmp_path: Path) -> None:
    """Give its index, its file and the reason."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "0.jpg").write_bytes(b"")
    status, out, _ = call("check", "bad", "--json")
    (bad,) = json.loads(out)["result"]["bad"]
    assert (status, bad["index"], bad["where"]) == (1, 0, "bad/0.jpg")
    assert bad["reason"].startswith("empty")


@pytest.mark.parametrize(
    ("arguments", "status", "kind"),
    [
        (("check", "nowhere"), 2, "CommandError"),
        (("bench", "--bogus"), 2, "NoSuchOption"),
        (("bench", ".", "-b", "0"), 2, "BadParameter"),
        (("show", "PHOTOS", "-s", "8", "-o", "none/a.png"), 3, "FileNotFoundError"),
    ],
)
def test_errors_are_documents_too(call: Call, photos: Path, arguments: tuple[str, ...], status: int, kind: str) -> None:
    """Keep standard error empty, and say the type of the error and its message."""
    named = [str(photos) if argument == "PHOTOS" else argument for argument in arguments]
    found, out, err = call(*named, "--json")
    document = json.loads(out)
    assert (found, err, document["status"], document["result"]) == (status, "", status, None)
    assert document["error"]["type"] == kind
    assert document["error"]["message"]


STUCK = """
import threading

class Stuck(list):
    def __getitem__(self, index):
        open("begun", "w").close()
        threading.Event().wait()

stuck = Stuck([1])
"""


def test_an_interrupted_command_says_so(start: Start, tmp_path: Path) -> None:
    """Write the document of an interrupt, and exit with 130."""
    (tmp_path / "stuck.py").write_text(STUCK)
    os.mkfifo(tmp_path / "begun")
    process = start("check", "stuck.py:stuck", "--json")
    (tmp_path / "begun").read_bytes()  # until the command reads the first sample
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (130, "interrupted\n")
    document = json.loads(out)
    assert (document["command"], document["status"], document["error"]["message"]) == ("check", 130, "interrupted")


def test_every_exit_status_is_in_the_guide() -> None:
    """List the same statuses with the same words as the help."""
    listed = dict(re.findall(r"^\| (\d+) \| (.+) \|$", GUIDE, re.MULTILINE))
    assert listed == {str(status): meaning for status, meaning in STATUSES.items()}
