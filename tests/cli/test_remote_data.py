"""`headrace index` and `headrace bench` of URLs: the format is found, and the report says what was fetched."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from headrace.storage.blocks import FOLDER
from tests.datasets.test_shard_formats import FORMATS
from tests.storage.object_server import ObjectServer, object_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Run

pytest.importorskip("obstore")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    monkeypatch.setenv(FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with object_server() as found:
        for name in ("tar", "mds", "arrow"):
            (tmp_path / name).mkdir()
            FORMATS[name][0](tmp_path / name)
            files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
            found.objects |= {f"/{path.relative_to(tmp_path)}": path.read_bytes() for path in files}
        yield found


def test_shards_behind_urls_are_indexed(run: Run, server: ObjectServer, tmp_path: Path) -> None:
    """Find tar by its first bytes, MDS by the listing of its folder, and save the index of both in the cache."""
    first, *others = sorted(path.name for path in (tmp_path / "tar").glob("*.tar"))
    done = run("index", f"{server.url}/tar/{{{','.join([first, *others])}}}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 tar shards, 21 samples" in done.stdout
    assert str(tmp_path / "home") in done.stdout
    assert "MDS shards, 21 samples" in run("index", f"{server.url}/mds").stdout
    arrow = next(path.name for path in (tmp_path / "arrow").glob("*.arrow"))
    assert "index: none is needed" in run("index", f"{server.url}/arrow/{arrow}").stdout


def test_the_report_of_remote_shards_says_what_was_fetched(run: Run, server: ObjectServer, tmp_path: Path) -> None:
    """Print a line for each epoch, and give the numbers as JSON."""
    (name, *_) = sorted(path.name for path in (tmp_path / "tar").glob("*.tar"))
    url = f"{server.url}/tar/{name}"
    done = run("bench", url, "-w", "0", "-b", "3", "-e", "2", "-s", "16")
    assert done.returncode == 0, done.stderr
    assert "epoch 1: remote data: 100 % of" in done.stdout
    found: dict[str, Any] = json.loads(run("bench", url, "-w", "0", "-b", "3", "-s", "16", "--json").stdout)
    assert found["result"]["epochs"][0]["remote"]["hit_rate"] == 1.0


def test_what_is_no_shard_behind_a_url_is_refused(run: Run, server: ObjectServer) -> None:
    """End with one line that names the URL."""
    server.objects["/a.txt"] = b"no shard"
    for name, status, said in (("a.txt", 2, "these are no shards"), ("b.tar", 3, "no such object")):
        done = run("index", f"{server.url}/{name}")
        assert done.returncode == status
        assert said in done.stderr


def test_a_process_may_end_right_after_a_request(run: Run, server: ObjectServer) -> None:
    """Exit with the command's own status: threads of obstore that are still in Python do not abort the interpreter."""
    server.objects["/a.txt"] = b"no shard"
    with ThreadPoolExecutor(4) as several:
        done = several.map(lambda _: run("index", f"{server.url}/a.txt"), range(16))
    assert {each.returncode for each in done} == {2}
