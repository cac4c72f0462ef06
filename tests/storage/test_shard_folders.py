"""Folders behind URLs: files that are whole or not there, large ones in parts, and errors that say what to do."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.storage.object_server import ObjectServer

from headrace.errors import ArgumentError, BadFile, MissingFile, UnreadableFile
from headrace.storage import object_clients
from headrace.storage.shard_folders import UPLOADS, ObjectFolder, shard_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("obstore")

PART = 5 << 20
"""The least that S3 takes for a part."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_clients, "WRITTEN_PART", PART)


@pytest.fixture(params=["s3", "gs"])
def bucket(request: pytest.FixtureRequest, server: ObjectServer) -> str:
    """A bucket that takes large objects in parts, of S3 and of GCS."""
    server.least_part = PART
    return f"{request.param}://bucket"


def bytes_of(data: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(data)


LARGE = np.random.default_rng(0).bytes(2 * PART + 1)


def test_a_large_file_is_uploaded_in_parts_and_read_back(server: ObjectServer, bucket: str) -> None:
    folder = ObjectFolder(f"{bucket}/run/")
    assert folder.names() == []
    folder.write("a.bin", bytes_of(LARGE))
    assert server.objects["/bucket/run/a.bin"] == LARGE
    assert folder.names() == ["a.bin"]
    assert folder.is_known("a.bin")
    assert sum("partNumber" in path for _, path, _ in server.requests) == 3
    assert server.uploads == {}
    folder.finish()
    assert list(server.objects) == ["/bucket/run/a.bin"]


def test_a_bucket_is_a_folder_and_so_is_what_has_others_in_it(server: ObjectServer) -> None:
    server.objects |= {"/bucket/a": b"a", "/bucket/run/b": b"b", "/bucket/runs/c": b"c", "/bucket/run/d/e": b"e"}
    assert ObjectFolder("s3://bucket").names() == ["a", "run", "runs"]
    assert ObjectFolder("s3://bucket/run").names() == ["b", "d"]


def test_what_is_there_already_is_not_uploaded_again(server: ObjectServer, bucket: str, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(LARGE)
    assert ObjectFolder(f"{bucket}/run").put("a.bin", path)
    server.requests.clear()
    assert not ObjectFolder(f"{bucket}/run").put("a.bin", path)
    assert {method for method, _, _ in server.requests} == {"HEAD", "GET"}
    assert all("a.bin" not in path for method, path, _ in server.requests if method == "GET")  # by its version alone
    server.objects.pop(f"/bucket/run/{UPLOADS}")
    assert not ObjectFolder(f"{bucket}/run").put("a.bin", path)  # by its bytes
    server.objects["/bucket/run/a.bin"] = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    folder = ObjectFolder(f"{bucket}/run")
    assert not folder.is_known("a.bin")
    assert folder.put("a.bin", path)
    assert server.objects["/bucket/run/a.bin"] == LARGE


@pytest.mark.parametrize("note", [b"{", b"[1]", b'{"a.bin": 3}', b'{"a.bin": ["1", "2", "3"]}', b"\xff"])
def test_a_damaged_note_of_uploads_costs_reading_again(server: ObjectServer, tmp_path: Path, note: bytes) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"hello")
    server.objects |= {"/bucket/run/a.bin": b"hello", f"/bucket/run/{UPLOADS}": note}
    folder = ObjectFolder("s3://bucket/run")
    assert not folder.is_known("a.bin")
    assert not folder.put("a.bin", path)
    assert folder.is_known("a.bin")


@pytest.mark.parametrize("fault", ["503", "429", "500"])
def test_requests_that_fail_for_a_time_are_sent_again(server: ObjectServer, bucket: str, fault: str) -> None:
    server.fault = lambda _method, number: fault if number % 2 else ""
    ObjectFolder(f"{bucket}/run").write("a.bin", bytes_of(LARGE))
    assert server.objects["/bucket/run/a.bin"] == LARGE


@pytest.mark.parametrize("fault", ["503", "500", "reset"])
def test_a_part_that_fails_is_sent_again_alone(server: ObjectServer, bucket: str, fault: str) -> None:
    """Start no other upload, and send the other parts once."""
    failed = list[str]()

    def once(method: str, number: int) -> str:
        path = server.requests[number][1]
        if method == "PUT" and "partNumber=2" in path and not failed:
            failed.append(path)
            return fault
        return ""

    server.fault = once
    ObjectFolder(f"{bucket}/run").write("a.bin", bytes_of(LARGE))
    assert server.objects["/bucket/run/a.bin"] == LARGE
    sent = Counter(path.partition("partNumber=")[2][:1] for _, path, _ in server.requests if "partNumber" in path)
    assert sent == {"1": 1, "2": 2, "3": 1}
    assert sum(path.partition("?")[2].startswith("uploads") for _, path, _ in server.requests) == 1


@pytest.mark.parametrize("at", ["a part", "its end"])
def test_an_upload_that_fails_leaves_nothing(server: ObjectServer, bucket: str, at: str) -> None:
    """Leave no object, and tell the server to forget the parts."""
    refused = False

    def fault(method: str, _number: int) -> str:
        nonlocal refused
        parts = sum(map(len, server.uploads.values()))
        refused = refused or (parts > 0 if at == "a part" else parts == 3 and method == "POST")
        return "403" if method in ("PUT", "POST") and refused else ""

    server.fault = fault
    folder = ObjectFolder(f"{bucket}/run")
    with pytest.raises(UnreadableFile, match=r"a\.bin: cannot be written: the server refused it \(status 403\)"):
        folder.write("a.bin", bytes_of(LARGE))
    assert server.objects == {}
    assert server.uploads == {}
    assert folder.names() == []
    assert folder.read("a.bin") is None


def test_a_bucket_that_is_not_there_is_named(server: ObjectServer) -> None:
    with pytest.raises(MissingFile, match=r"s3://other/a\.bin: there is no such bucket"):
        ObjectFolder("s3://other").write("a.bin", bytes_of(b"a"))
    with pytest.raises(MissingFile, match=r"s3://other: there is no such bucket \(status 404\)"):
        ObjectFolder("s3://other").names()


def test_a_list_that_is_refused_names_the_credentials(server: ObjectServer) -> None:
    server.fault = lambda _method, _number: "403"
    with pytest.raises(UnreadableFile, match=r"s3://bucket: the server refused it \(status 403\).*credentials"):
        ObjectFolder("s3://bucket").names()


def test_bytes_that_read_back_differently_are_an_error(server: ObjectServer) -> None:
    def fault(method: str, _number: int) -> str:
        if method == "HEAD" and "/bucket/run/a.bin" in server.objects:
            server.objects["/bucket/run/a.bin"] = b"others"
        return ""

    server.fault = fault
    with pytest.raises(BadFile, match="reads back differently"):
        ObjectFolder("s3://bucket/run").write("a.bin", bytes_of(b"theirs"))


def test_a_note_that_is_damaged_is_none(server: ObjectServer) -> None:
    for text in (b"{", b"[1]", b"", b"\xff"):
        server.objects[f"/bucket/run/{UPLOADS}"] = text
        folder = ObjectFolder("s3://bucket/run")
        assert not folder.is_known("a")
        folder.write("a", bytes_of(b"a"))
        assert folder.is_known("a")


def test_http_is_only_read() -> None:
    with pytest.raises(ArgumentError, match=r"nothing is written to http:// URLs"):
        shard_folder("http://127.0.0.1/a")


def test_file_systems_of_fsspec_are_written_to(tmp_path: Path) -> None:
    folder = ObjectFolder(f"file://{tmp_path}/run")
    assert folder.names() == []
    folder.write("a", bytes_of(b"one"))
    folder.write("a", bytes_of(b"two"))
    (tmp_path / "run" / ".b.partial").write_bytes(b"half")  # of a process that was killed
    assert ((tmp_path / "run" / "a").read_bytes(), folder.names()) == (b"two", ["a"])
    folder.remove("a")
    folder.remove("a")
    folder.finish()
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".b.partial"]
