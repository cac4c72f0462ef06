"""URLs and servers that are odd: names in any letters, redirects, no HEAD requests, no ranges, nothing in an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.storage.object_server import ObjectServer
from tests.storage.sources import tar_of

from headrace.datasets import ParquetDataset, WebDataset
from headrace.errors import BadFile, MissingFile, UnreadableFile
from headrace.storage import blocks, request_loop
from headrace.storage.object_clients import failed

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("obstore")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def _keys(url: str) -> list[str]:
    return [sample["__key__"] for sample in WebDataset(url)]


KEYS = [f"{number:04}" for number in range(5)]


@pytest.mark.parametrize("name", ["a b.tar", "a%20b.tar", "\u00fc.tar", "%C3%BC.tar", "100%.tar", "100%25.tar"])
def test_http_urls_may_be_encoded_or_not(server: ObjectServer, name: str) -> None:
    """Ask for the same object by a URL that encodes spaces and other letters, and by one that does not."""
    server.objects |= dict.fromkeys(("/a%20b.tar", "/%C3%BC.tar", "/100%25.tar"), tar_of(range(5)))
    assert _keys(f"{server.url}/{name}") == KEYS


@pytest.mark.parametrize("name", ["a b", "a%20b", "\u00fc", "a+b", "a&b", "a#b"])
def test_names_in_buckets_are_taken_as_they_are(server: ObjectServer, name: str) -> None:
    """Decode nothing: a bucket may have an object whose name has a percent sign."""
    encoded = {"a b": "a%20b", "a%20b": "a%2520b", "\u00fc": "%C3%BC", "a+b": "a%2Bb", "a&b": "a%26b", "a#b": "a%23b"}
    server.objects[f"/bucket/{encoded[name]}.tar"] = tar_of(range(5))
    assert _keys(f"s3://bucket/{name}.tar") == KEYS


def test_redirects_are_followed(server: ObjectServer) -> None:
    """Read an object that is elsewhere."""
    server.objects["/new.tar"] = tar_of(range(5))
    server.moved["/old.tar"] = f"{server.url}/new.tar"
    assert _keys(f"{server.url}/old.tar") == KEYS
    server.moved["/old.tar"] = f"{server.url}/old.tar"
    with pytest.raises(UnreadableFile, match=r"http://.*/old\.tar"):
        _keys(f"{server.url}/old.tar")


def test_a_server_without_head_requests_is_asked_for_a_byte(server: ObjectServer) -> None:
    """Learn the size of an object from a range; name the status where that is refused too."""
    server.objects["/a.tar"] = tar_of(range(5))
    server.fault = lambda method, _number: "405" if method == "HEAD" else ""
    assert _keys(f"{server.url}/a.tar") == KEYS
    server.fault = lambda _method, _number: "405"
    with pytest.raises(UnreadableFile, match=r"http://.*/b\.tar: .*405"):
        _keys(f"{server.url}/b.tar")


def test_a_server_without_ranges_is_named(server: ObjectServer) -> None:
    """Say what the server lacks, and what to do."""
    server.objects["/a.tar"] = tar_of(range(5))
    server.fault = lambda _method, _number: "whole"
    with pytest.raises(UnreadableFile, match="the server sends no ranges of bytes"):
        _keys(f"{server.url}/a.tar")


def test_the_brackets_of_a_host_are_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a host by its IPv6 address, where nobody answers, and list nothing."""
    monkeypatch.setattr(request_loop, "RETRIES", 0)
    with pytest.raises(UnreadableFile, match=r"http://\[::1\]:9/a\.tar: .*(connect|request)"):
        _keys("http://[::1]:9/a.tar")
    with pytest.raises(UnreadableFile, match="does not list"):
        _keys("http://[::1]:9/[ab].tar")


def test_empty_objects_are_files_without_samples_or_errors(server: ObjectServer) -> None:
    """Take an empty tar archive for one without members, and refuse an empty Parquet file."""
    server.objects |= {"/a.tar": b"", "/a.parquet": b""}
    assert _keys(f"{server.url}/a.tar") == []
    pytest.importorskip("pyarrow")
    with pytest.raises(BadFile, match=r"http://.*/a\.parquet"):
        ParquetDataset(f"{server.url}/a.parquet")


def test_schemes_in_capitals_and_slashes_at_the_end(server: ObjectServer) -> None:
    """Read HTTP:// as http://; say that an HTTP server does not list, and that a folder is empty."""
    server.objects["/a.tar"] = tar_of(range(5))
    assert _keys(server.url.replace("http", "HTTP") + "/a.tar") == KEYS
    with pytest.raises(UnreadableFile, match="an HTTP server does not list"):
        _keys(f"{server.url}/a/")
    with pytest.raises(MissingFile, match=r"s3://bucket/none/: it has no \.tar files"):
        _keys("s3://bucket/none/")


def test_files_by_url_are_read_as_files(tmp_path: Path) -> None:
    """Take file:// as fsspec does: names are not decoded, folders and stars are listed, nothing is cached."""
    for name in ("a b.tar", "\u00fc.tar"):
        (tmp_path / name).write_bytes(tar_of(range(5)))
    assert _keys(f"file://{tmp_path}/a b.tar") == _keys(f"file://{tmp_path}/\u00fc.tar") == KEYS
    assert _keys(f"file://{tmp_path}/") == _keys(f"file://{tmp_path}/*.tar") == KEYS * 2
    with pytest.raises(MissingFile, match=r"file:///.*/c\.tar: there is no such object"):
        _keys(f"file://{tmp_path}/c.tar")
    assert not (tmp_path / "blocks").exists()


def test_errors_of_settings_say_what_to_set() -> None:
    """Name the variables where an account or a region is missing, and not the network."""
    account = failed("az://photos/a.tar", ValueError("Generic MicrosoftAzure error: Account must be specified"))
    assert "AZURE_*" in str(account)
    region = failed(
        "s3://photos/a.tar", ValueError("Received redirect, this indicates an incorrectly configured region")
    )
    assert "Set AWS_REGION" in str(region)
