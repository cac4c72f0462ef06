"""Shards that are written to URLs: packed and converted, the same bytes as on a disk, and continued after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tests.storage.object_server import ObjectServer

from headrace import ArrayDataset, ImageFolder
from headrace.cli.app import commands
from headrace.cli.conversion import MARK
from headrace.datasets import ArrowDataset, MDSDataset, PackedDataset, WebDataset
from headrace.errors import ArgumentError, UnreadableFile
from headrace.storage import blocks
from headrace.storage.shard_folders import UPLOADS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("obstore")
pytest.importorskip("pyarrow")

URL, PREFIX = "s3://bucket/run", "/bucket/run/"


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of five images."""
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(5):
            pixels: Any = np.random.default_rng(number).integers(0, 256, (20, 30, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
    return tmp_path / "photos"


def command(*arguments: str | Path, status: int = 0) -> str:
    done = CliRunner().invoke(commands, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == status, done.output
    return done.output


def written(server: ObjectServer) -> dict[str, bytes]:
    """Return the files in the folder, without the mark of a conversion."""
    return {name.removeprefix(PREFIX): data for name, data in server.objects.items() if not name.endswith(MARK)}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MARK}


def pack(path: Any) -> Any:
    images = np.random.default_rng(3).integers(0, 256, (12, 40, 30, 3), dtype=np.uint8)
    return ArrayDataset(images, np.arange(12)).pack(path, store="raw", shard_size="10kB", workers=1)


def at(server: ObjectServer, count: int, fault: Callable[[], str]) -> Callable[[str, int], str]:
    """Let the request of so many shards that are written meet a fault, and all after it."""
    seen = 0

    def found(method: str, number: int) -> str:
        nonlocal seen
        seen += method == "PUT" and ".arrow" in server.requests[number][1]
        return fault() if method == "PUT" and seen >= count else ""

    return found


def test_packed_shards_are_those_of_a_disk(server: ObjectServer, tmp_path: Path) -> None:
    remote, local = pack(URL), pack(tmp_path / "packed")
    assert written(server) == on_disk(tmp_path / "packed")
    assert len(local.shards) > 3
    assert remote.shards == [f"{URL}/{path.rpartition('/')[2]}" for path in local.shards]
    assert all(np.array_equal(remote[row][0], local[row][0]) for row in range(12))


def test_packing_that_was_refused_continues_with_the_next_shard(server: ObjectServer, tmp_path: Path) -> None:
    server.fault = at(server, 3, lambda: "403")
    with pytest.raises(UnreadableFile, match=r"packed-00002\.arrow: cannot be written"):
        pack(URL)
    assert sorted(name for name in written(server) if name.endswith(".arrow")) == [
        "packed-00000.arrow",
        "packed-00001.arrow",
    ]
    with pytest.raises(Exception, match="does not name the shards of a finished dataset"):
        PackedDataset(URL)
    server.fault = lambda _method, _number: ""
    server.requests.clear()
    pack(URL)
    pack(tmp_path / "packed")
    assert written(server) == on_disk(tmp_path / "packed")
    again = {path for method, path, _ in server.requests if method == "PUT" and path.endswith(".arrow")}
    assert not again & {f"{PREFIX}packed-0000{number}.arrow" for number in range(2)}


def test_a_damaged_shard_is_packed_again(server: ObjectServer, tmp_path: Path) -> None:
    server.fault = at(server, 4, lambda: "403")
    with pytest.raises(UnreadableFile):
        pack(URL)
    server.fault = lambda _method, _number: ""
    shard = bytearray(server.objects[f"{PREFIX}packed-00001.arrow"])
    shard[len(shard) // 2] ^= 1
    server.objects[f"{PREFIX}packed-00001.arrow"] = bytes(shard)
    pack(URL)
    pack(tmp_path / "packed")
    assert written(server) == on_disk(tmp_path / "packed")


def test_more_is_added_and_other_files_are_refused(server: ObjectServer) -> None:
    first = ArrayDataset(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4))
    first.pack(URL, store="raw")
    more = ArrayDataset(np.ones((3, 8, 8, 3), np.uint8), np.arange(3))
    with pytest.raises(ArgumentError, match="the folder s3://bucket/run is not empty"):
        more.pack(URL, store="raw")
    assert len(more.pack(URL, store="raw", append=True)) == 7
    server.objects["/bucket/others/a.txt"] = b"a"
    with pytest.raises(ArgumentError, match="it has other files"):
        first.pack("s3://bucket/others", store="raw")


def test_a_command_that_is_killed_continues_with_the_same_bytes(
    server: ObjectServer, photos: Path, tmp_path: Path
) -> None:
    how = ["--store", "raw", "--shard-size", "4kB", "--jobs", "1"]
    command("pack", photos, tmp_path / "packed", *how)
    running = list[subprocess.Popen[bytes]]()

    def kill() -> str:
        running[0].send_signal(signal.SIGKILL)
        return "reset"

    server.fault = at(server, 3, kill)
    running.append(
        subprocess.Popen([sys.executable, "-m", "headrace", "pack", str(photos), URL, *how], env=dict(os.environ))
    )
    assert running[0].wait(300) == -signal.SIGKILL
    server.fault = lambda _method, _number: ""
    assert {"packed-00000.arrow", UPLOADS} <= written(server).keys()
    assert "10 samples" in command("pack", photos, URL, *how)
    assert written(server) == on_disk(tmp_path / "packed")


SMALL_PARTS = "from headrace.storage import object_clients; object_clients.WRITTEN_PART = 2048"


@pytest.mark.parametrize("name", ["pack", "convert"])
def test_a_command_that_is_killed_in_an_upload_continues(
    server: ObjectServer, photos: Path, tmp_path: Path, name: str
) -> None:
    """Kill it when a server like GCS has all parts of a shard: nobody sees that shard, and the next run writes it."""
    how = ["--store", "raw", "--shard-size", "4kB"] if name == "pack" else ["--to", "tar", "--samples", "3"]
    command(name, photos, tmp_path / "out", *how, "--jobs", "1")
    second = "packed-00001.arrow" if name == "pack" else "shard-00001.tar"
    running = list[subprocess.Popen[bytes]]()

    def fault(method: str, number: int) -> str:
        if method == "POST" and f"{second}?uploadId" in server.requests[number][1]:
            running[0].send_signal(signal.SIGKILL)
            return "reset"
        return ""

    server.fault = fault
    url, program = "gs://bucket/run", f"{SMALL_PARTS}; from headrace.__main__ import main; main()"
    arguments = [sys.executable, "-c", program, name, str(photos), url, *how, "--jobs", "1"]
    running.append(subprocess.Popen(arguments, env=dict(os.environ)))
    assert running[0].wait(300) == -signal.SIGKILL
    server.fault = lambda _method, _number: ""
    assert second not in written(server)
    assert len(written(server)) > 1
    assert [len(parts) > 1 for parts in server.uploads.values()] == [True]
    command(name, photos, url, *how, "--jobs", "1")
    assert written(server) == on_disk(tmp_path / "out")


@pytest.mark.parametrize("form", ["tar", "mds", "arrow"])
def test_converted_shards_are_those_of_a_disk(server: ObjectServer, photos: Path, tmp_path: Path, form: str) -> None:
    command("convert", photos, tmp_path / "out", "--to", form, "--samples", "3")
    said = command("convert", photos, URL, "--to", form, "--samples", "3")
    assert "s3://bucket/run: 10 samples in 4 shards, read back" in said
    assert written(server) == on_disk(tmp_path / "out")
    again = command("convert", photos, URL, "--to", form, "--samples", "3")
    assert "4 of them there already" in again
    opened: dict[str, Callable[[], Any]] = {
        "tar": lambda: WebDataset(f"{URL}/shard-{{00000..00003}}.tar", index=None).tuple("image.jpg", "label.cls"),
        "mds": lambda: MDSDataset(URL, index=None).tuple("image", "label"),
        "arrow": lambda: ArrowDataset(f"{URL}/data-{{00000..00003}}.arrow").tuple("image", "label"),
    }
    for ours, theirs in zip(opened[form](), ImageFolder(photos), strict=True):
        assert np.array_equal(ours[0], theirs[0])
        assert ours[1] == theirs[1]


def test_a_conversion_that_failed_continues(server: ObjectServer, photos: Path, tmp_path: Path) -> None:
    how = ["--to", "mds", "--samples", "3"]
    command("convert", photos, tmp_path / "out", *how)
    server.fault = lambda method, number: "403" if method == "PUT" and "00002" in server.requests[number][1] else ""
    said = command("convert", photos, URL, *how, status=3)
    assert "shard.00002.mds: cannot be written: the server refused it (status 403)" in said
    assert "index.json" not in written(server)  # nobody takes a part for all
    server.fault = lambda _method, _number: ""
    assert "of them there already" in command("convert", photos, URL, *how)
    assert written(server) == on_disk(tmp_path / "out")
    assert "not of this conversion" in command("convert", photos, URL, "--to", "tar", status=2)


def test_what_cannot_be_written_to_is_one_line(photos: Path) -> None:
    assert "image files are not written to a URL" in command("convert", photos, URL, "--to", "folder", status=2)
    for name in ("pack", "convert"):
        how = ["--to", "tar"] if name == "convert" else []
        assert "nothing is written to http:// URLs" in command(name, photos, "http://127.0.0.1/a", *how, status=2)
