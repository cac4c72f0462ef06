"""Signed URLs, and URLs with queries or passwords: they are read, and nothing that is kept has their secrets."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
import time
import traceback
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from tests.storage.signing_server import USER, SigningServer, signing_server
from tests.storage.sources import KINDS, objects_of, tar_of

from headrace import DataLoader, ImageFiles, ImageList
from headrace.cli.app import commands
from headrace.datasets import (
    HDF5Dataset,
    MappedColumns,
    MDSDataset,
    PackedDataset,
    PackedList,
    ParquetDataset,
    TokenDataset,
    WebDataset,
    open_shards,
)
from headrace.errors import HeadraceError, MissingFile, UnreadableFile
from headrace.storage import blocks, objects, signed_urls
from headrace.storage.signed_urls import plain, secrets_of, whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytest.importorskip("obstore")

SECRET = re.compile(rb"[Ss]ignature=|[?&]sig=|Expires=|pass%40word-1|pass@word-1|someone")
"""What is secret in the URLs of the server, beside the signatures."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 14)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for name in ("_queries", "_users"):
        monkeypatch.setattr(signed_urls, name, {})


@pytest.fixture
def server() -> Iterator[SigningServer]:
    with signing_server() as found:
        found.objects |= {f"/t-{shard}.tar": tar_of(range(shard * 8, shard * 8 + 8)) for shard in range(2)}
        yield found


def keys(shards: str | Sequence[str]) -> list[str]:
    return [sample["__key__"] for sample in WebDataset(shards)]


KEYS = [f"{number:04}" for number in range(16)]


def shows(data: bytes, server: SigningServer) -> bool:
    """Say whether something has a secret in it."""
    return bool(SECRET.search(data)) or any(each.encode() in data for each in server.signatures)


def said_of(error: BaseException) -> bytes:
    """Return all that Python prints of an error, and what it pickles to."""
    lines = traceback.TracebackException.from_exception(error, lookup_lines=False).format()
    return "".join(line for line in lines if not line.startswith("  File")).encode() + pickle.dumps(error)


def shards_of(server: SigningServer) -> list[str]:
    return [server.sign(f"/t-{shard}.tar") for shard in range(2)]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_all_kinds_of_data_are_read_from_a_signed_folder(kind: str, server: SigningServer, tmp_path: Path) -> None:
    """Sign the folder, as Azure does for containers, and read what is in it."""
    folder = tmp_path / "data"
    folder.mkdir()
    KINDS[kind].write(folder)
    server.objects = {f"/box{path}": data for path, data in objects_of(folder).items()}
    remote, local = KINDS[kind].open(plain(server.sign_folder("/box"))), KINDS[kind].open(str(folder))
    places = [0, len(local) // 2, len(local) - 1]
    np.testing.assert_equal([remote[place] for place in places], [local[place] for place in places])
    assert {method for method, path, _ in server.requests if path.startswith("/box")} == {"GET"}


def test_folders_are_signed_as_they_are_given(server: SigningServer, tmp_path: Path) -> None:
    """Add the names of shards to the path of the folder, before its query."""
    for kind in ("mds", "packed"):
        (tmp_path / kind).mkdir()
        KINDS[kind].write(tmp_path / kind)
    server.objects = {f"/box{path}": data for path, data in objects_of(tmp_path).items()}
    for slash in ("", "/"):
        url = server.sign_folder("/box/mds").replace("?", f"{slash}?")
        np.testing.assert_equal(MDSDataset(url)[7], MDSDataset(tmp_path / "mds")[7])
        assert type(open_shards(url)) is MDSDataset
    packed = PackedDataset(server.sign_folder("/box/packed/packed"))
    np.testing.assert_equal(packed[7], PackedDataset(tmp_path / "packed" / "packed")[7])


def test_files_that_are_signed_one_by_one_are_read(server: SigningServer, tmp_path: Path) -> None:
    """Take the extension from the path, and Megatron's index by its own signature."""
    for kind in ("parquet", "documents", "npz", "hdf5"):
        KINDS[kind].write(tmp_path)
    server.objects = objects_of(tmp_path)
    pairs: list[tuple[Any, Any]] = [
        (ParquetDataset(server.sign("/p.parquet")), ParquetDataset(tmp_path / "p.parquet")),
        (
            TokenDataset([server.sign("/d.idx"), server.sign("/d.bin")], documents=True),
            TokenDataset(tmp_path / "d.bin", documents=True),
        ),
        (MappedColumns(server.sign("/n-0.npz")), MappedColumns(tmp_path / "n-0.npz")),
        (HDF5Dataset(server.sign("/h.h5")), HDF5Dataset(tmp_path / "h.h5")),
    ]
    for remote, local in pairs:
        np.testing.assert_equal(remote[5], local[5])
        assert len(remote) == len(local)


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:worker processes are forked:RuntimeWarning")  # the server has threads
def test_worker_processes_read_signed_urls(server: SigningServer, context: str) -> None:
    dataset = WebDataset(shards_of(server))
    blocks.blocks().disk.clear()
    blocks._of_process.cache_clear()
    how: dict[str, Any] = {"num_workers": 2, "backend": "processes", "multiprocessing_context": context}
    loader: DataLoader[Any] = DataLoader(dataset, 4, collate_fn=list, **how)
    with loader:
        assert [sample["__key__"] for batch in loader for sample in batch] == KEYS


def test_nothing_that_is_kept_or_said_has_the_secrets(server: SigningServer, tmp_path: Path) -> None:
    """Look into pickles, texts, the index, the cache, a ledger, a trace, a state, warnings and errors."""
    server.odd.add("login")
    login = [f"{url}?Signature=abcdef".replace("://", f"://{USER}@") for url in (f"{server.url}/t-1.tar",)]
    kept: dict[str, bytes] = {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with_password = WebDataset(login)
        server.odd.clear()
        signed = WebDataset(shards_of(server))
        for name, dataset in (("password", with_password), ("signed", signed)):
            loader: DataLoader[Any] = DataLoader(dataset, 4, shuffle=True, seed=1, ledger=tmp_path / f"{name}.ledger")
            with loader, loader.trace(tmp_path / f"{name}.trace"):
                for _ in loader:
                    pass
                kept[f"{name} state"] = pickle.dumps(loader.state_dict())
                texts = (repr(dataset), repr(loader), str(loader.statistics()), str(dataset.where(3)))
                kept[f"{name} texts"] = "\n".join(texts).encode()
            kept[f"{name} pickle"] = pickle.dumps(dataset)
    kept["warnings"] = "\n".join(str(each.message) for each in said).encode()
    for path in tmp_path.rglob("*"):
        kept[str(path)] = b"" if path.is_dir() or path.suffix == ".block" else path.read_bytes()
    assert len(kept) > 12
    assert server.url.encode() in kept["signed pickle"]
    for name, data in kept.items():
        assert not shows(data, server), name
        assert not shows(name.encode(), server)


@pytest.mark.parametrize("odd", ["", "echo", "whole", "range", "gzip", "chunked"])
def test_no_error_has_the_secrets(server: SigningServer, odd: str) -> None:
    """Look at the whole of what Python prints, and at what the error and its causes pickle to."""
    urls = [server.sign("/t-0.tar", seconds=-60 if not odd else 60), f"{server.sign('/t-1.tar')}&access_token=someone"]
    server.odd = {odd}
    for url in urls:
        with pytest.raises(HeadraceError) as caught:
            keys(url) if odd or url is urls[0] else keys(url.replace("t-1", "t-0"))
        assert b"/t-" in said_of(caught.value)
        assert not shows(said_of(caught.value), server)


def test_what_refuses_urls_does_not_repeat_their_secrets(server: SigningServer, tmp_path: Path) -> None:
    url = server.sign("/a.jpg")
    (tmp_path / "list.txt").write_text(f"{url} 1 2 3\n")
    refused: list[Any] = [
        lambda: WebDataset(server.sign("/t-0.tar"), index=url),
        lambda: WebDataset(url.replace("a.jpg", "t-{9..1}.tar")),
        lambda: WebDataset(url.replace("a.jpg", "t-{0..999999}{0..9}.tar")),
        lambda: MappedColumns(url.replace("?", "/*?")),
        lambda: ImageList(tmp_path / "list.txt"),
        lambda: open_shards(server.sign("/t-9.tar")),
    ]
    for call in refused:
        with pytest.raises(HeadraceError) as caught:
            call()
        assert not shows(said_of(caught.value), server)


def test_commands_do_not_print_secrets(server: SigningServer, tmp_path: Path) -> None:
    """Read signed shards by commands; look at their text, their JSON, their errors, and what they write."""
    server.objects["/none.tar"] = b"no archive" * 100
    shard, wrong = server.sign_folder("/").replace("/?", "/t-{0..1}.tar?"), server.sign("/none.tar")
    out = tmp_path / "out"
    for status, arguments in (
        (0, ["index", shard]),
        (0, ["convert", shard, str(out), "--to", "mds"]),
        (2, ["index", wrong]),
        (2, ["index", "--json", wrong]),
        (2, ["convert", str(out), wrong, "--to", "tar"]),
        (3, ["index", server.sign("/missing.tar")]),
    ):
        done = CliRunner().invoke(commands, arguments)
        assert done.exit_code == status, done.output
        assert not shows(done.output.encode(), server)
        assert server.url in done.output or arguments[0] == "convert"
    assert not any(shows(path.read_bytes(), server) for path in out.iterdir())


def test_an_object_that_is_signed_again_is_still_in_the_cache(server: SigningServer) -> None:
    """Fetch nothing but what says that the object has not changed."""
    assert keys(shards_of(server)) == KEYS
    fetched = len(server.datas())
    server.clock = lambda: time.time() + 86_400
    with pytest.raises(UnreadableFile, match=r"/t-0\.tar: the signature of its URL expired|refused the signature"):
        keys(f"{server.url}/t-0.tar")
    blocks._of_process.cache_clear()
    assert keys(shards_of(server)) == KEYS
    assert fetched > 0
    assert len(server.datas()) == fetched


def test_a_signature_that_expires_in_a_run_is_an_error_and_a_new_one_goes_on(server: SigningServer) -> None:
    """Say that it expired; with a new one, the same dataset reads on."""
    past = time.time() - 86_400
    server.clock = lambda: past
    dataset = WebDataset(shards_of(server))
    blocks.blocks().disk.clear()
    blocks._of_process.cache_clear()
    server.clock = time.time
    with pytest.raises(
        UnreadableFile, match=r"/t-0\.tar: .*the signature of its URL expired at 20.* UTC \(status 403\)"
    ):
        dataset[0]
    shards_of(server)
    WebDataset(shards_of(server))
    assert dataset[0]["__key__"] == "0000"


def test_a_query_may_say_which_object_it_is(server: SigningServer) -> None:
    """Keep ``?id=5`` and ``?id=6`` apart, in the cache and in the index, whether they are signed or not."""
    server.objects = {f"/get/?id={number}": tar_of(range(number, number + 2)) for number in (5, 6)}
    signed = {number: server.sign("/get/", id=str(number)) for number in (5, 6)}
    for _ in range(2):
        assert [keys(signed[number]) for number in (5, 6)] == [["0005", "0006"], ["0006", "0007"]]
    server.odd.add("open")
    assert keys(f"{server.url}/get/?id={{5..6}}") == ["0005", "0006", "0006", "0007"]
    assert keys([f"{server.url}/get/?x=a/b&id=5", f"{server.url}/get/?x=c/b&id=6"]) == ["0005", "0006", "0006", "0007"]
    assert keys(f"{server.url}/get/?id=6#a?b") == ["0006", "0007"]


def test_patterns_are_signed_as_a_whole_or_by_their_folder(server: SigningServer) -> None:
    """Expand braces before a URL is signed; say that HTTP servers do not list."""
    assert keys(server.sign_folder("/").replace("/?", "/t-{0..1}.tar?")) == KEYS
    server.odd.add("open")
    assert keys(f"{server.url}/t-{{0..1}}.tar?download=true&sig=a*b") == KEYS
    with pytest.raises(UnreadableFile, match="an HTTP server does not list") as caught:
        keys(f"{server.url}/t-*.tar?Signature=abc")
    assert not shows(said_of(caught.value), server)


def test_lists_of_signed_urls_are_read(server: SigningServer, tmp_path: Path) -> None:
    """Read a list by a signed URL, of images that are signed one by one; relative names are beside the list."""
    KINDS["images"].write(tmp_path)
    files = objects_of(tmp_path)
    names = [name for name in files if name.endswith(".png")][:6]
    lines = "".join(f"{server.sign(name)},{number}\n" for number, name in enumerate(names))
    server.objects = files | {"/lists/some.csv": lines.encode(), "/lists/near.csv": f"..{names[0]},3\n".encode()}
    found = ImageList(server.sign("/lists/some.csv"))
    local = ImageFiles([str(tmp_path / name[1:]) for name in names])
    assert found.labels.tolist() == list(range(6))
    for number in range(6):
        np.testing.assert_array_equal(found[number][0], local[number][0])
    assert not shows(pickle.dumps(found), server)
    urls = [server.sign(name) for name in names]
    for paths in (urls, PackedList(urls)):
        images = ImageFiles(paths, root="https://nowhere")
        np.testing.assert_array_equal(images[5][0], local[5][0])
        assert not shows(pickle.dumps(images), server)
    server.odd.add("open")
    np.testing.assert_array_equal(ImageList(f"{server.url}/lists/near.csv?raw=1/2")[0][0], local[0][0])


def test_a_pickle_is_not_signed_elsewhere(server: SigningServer, tmp_path: Path) -> None:
    """Say in another process that the dataset has to be constructed with a signed URL."""
    dataset = WebDataset(shards_of(server), index=None)
    (tmp_path / "dataset").write_bytes(pickle.dumps(dataset))
    program = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))[0]"
    command = [sys.executable, "-c", program, str(tmp_path / "dataset")]
    blocks.blocks().disk.clear()
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "the server refused it (status 403)" in ran.stderr
    assert "Construct the dataset with a new signed URL" in ran.stderr


@pytest.mark.parametrize("name", ["a b+c.tar", "é.tar", "100%25.tar", "a&b=c.tar", "x,y;z.tar", "[1].tar"])
def test_names_of_signed_objects_may_have_any_letters(server: SigningServer, name: str) -> None:
    server.objects[f"/{name}"] = tar_of(range(3))
    assert keys(server.sign(f"/{name}")) == KEYS[:3]


def test_paths_that_obstore_would_change_are_asked_for_as_they_are(server: SigningServer) -> None:
    """Keep encoded slashes, and slashes after slashes or at the end."""
    server.odd.add("open")
    server.objects = {"/x%2Fy.tar": tar_of(range(1)), "/a//b.tar": tar_of(range(2)), "/c/": tar_of(range(3))}
    found = [len(keys(f"{server.url}{path}")) for path in ("/x%2Fy.tar", "/a//b.tar", "/c/?x=1")]
    assert found == [1, 2, 3]


def test_empty_objects_and_servers_without_tags_are_read(server: SigningServer) -> None:
    server.objects["/empty.tar"] = b""
    assert keys(server.sign("/empty.tar")) == []
    server.odd.add("no tags")
    assert keys(shards_of(server)) == KEYS


def test_the_status_of_a_long_url_is_read(server: SigningServer) -> None:
    """Send no request again for 404, 416, and what a server refuses, where the URL fills the message."""
    server.objects["/empty.tar"] = b""
    long: dict[str, Any] = {"versionId": "x" * 2000}
    assert keys(server.sign("/empty.tar", **long)) == []
    with pytest.raises(MissingFile, match=r"status 404"):
        keys(server.sign("/none.tar", **long))
    with pytest.raises(UnreadableFile, match=r"status 403"):
        keys(server.sign("/t-0.tar", **long).replace("ignature=", "ignature=0"))
    assert len(server.requests) == 4


def test_a_password_is_not_sent_to_another_host(server: SigningServer) -> None:
    """Follow a redirect without it: the other host refuses what needs it."""
    server.odd.add("login")
    url = f"{server.url}/old.tar".replace("://", f"://{USER}@")
    server.moved["/old.tar"] = f"{server.url}/t-0.tar"
    assert keys(url) == KEYS[:8]
    server.moved["/old.tar"] = f"{server.url}/t-0.tar".replace("127.0.0.1", "localhost")
    with pytest.raises(UnreadableFile, match=r"/old\.tar: the server refused it"):
        keys(url)


def test_a_server_that_sends_no_length_by_head_is_asked_for_a_byte(server: SigningServer) -> None:
    server.odd |= {"open", "head"}
    assert keys(f"{server.url}/t-0.tar") == KEYS[:8]


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("whole", "the server sends no ranges of bytes"),
        ("range", "Requested 0"),
        ("size", "the object has changed"),
        ("gzip", r"the server compresses its answers \(Content-Encoding: gzip\)"),
        ("chunked", r"the server does not say how long its answers are \(Content-Length\)"),
    ],
)
def test_servers_that_answer_otherwise_are_named_at_once(server: SigningServer, odd: str, said: str) -> None:
    """Send no request again that will fail again."""
    server.odd |= {"open", odd}
    with pytest.raises(HeadraceError, match=rf"/t-0\.tar: .*{said}"):
        keys(f"{server.url}/t-0.tar")
    assert len(server.requests) < 4


def test_redirects_lead_to_signed_urls(server: SigningServer) -> None:
    """Follow a server that signs a URL for each request."""
    server.moved["/hub/a.tar"] = server.sign("/t-0.tar")
    assert keys(f"{server.url}/hub/a.tar?download=true") == KEYS[:8]
    assert keys(f"{server.url}/hub/a.tar?token=abcdefgh") == KEYS[:8]


def test_a_user_and_a_password_are_sent_and_not_shown(server: SigningServer) -> None:
    server.odd.add("login")
    url = f"{server.url}/t-0.tar".replace("://", f"://{USER}@")
    dataset = WebDataset(url)
    assert dataset[0]["__key__"] == "0000"
    assert not shows(pickle.dumps(dataset), server)
    with pytest.raises(UnreadableFile, match="the server refused it") as caught:
        keys(f"{server.url}/t-0.tar".replace("://", f"://{USER}0@"))
    assert not shows(said_of(caught.value), server)


def test_a_url_is_no_longer_than_requests_may_be(server: SigningServer) -> None:
    """The library under obstore panics where one is longer than 65,535 bytes."""
    with pytest.raises(UnreadableFile, match=r"the URL has 70,\d\d\d characters"):
        keys(f"{server.url}/t-0.tar?token={'x' * 70_000}")
    server.odd.add("open")
    assert keys(f"{server.url}/t-0.tar?token={'x' * 15_000}") == KEYS[:8]


def test_clients_are_few_however_many_urls_are_signed(server: SigningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from headrace.storage import object_clients

    monkeypatch.setattr(object_clients, "STORES", 3)
    server.objects |= {f"/s-{number}.tar": tar_of(range(1)) for number in range(6)}
    assert keys([server.sign(f"/s-{number}.tar") for number in range(6)]) == ["0000"] * 6
    assert len(objects._obstore()._stores) <= 3  # type: ignore[attr-defined]  # of a client


class TestPlainUrls:
    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("https://h/a.tar?X-Amz-Algorithm=A&X-Amz-Credential=B&versionId=3&x-amz-signature=C", "?versionId=3"),
            ("https://h/a.tar?X-Goog-Signature=A&generation=5", "?generation=5"),
            ("https://h/a.tar?sv=1&ss=b&srt=o&sp=r&se=2&st=3&spr=https&sig=A&snapshot=4", "?snapshot=4"),
            ("https://h/a.tar?sp=r&st=3", "?sp=r&st=hidden-4e074085"),
            ("https://h/a.tar?Policy=A&Signature=B&Key-Pair-Id=C", ""),
            ("https://h/a.tar?q-sign-algorithm=sha1&q-ak=A&q-signature=B", ""),
            ("https://h/a.tar?OSSAccessKeyId=A&x-oss-process=resize", "?x-oss-process=resize"),
            ("https://h/a.tar?%74oken=abc&id=5", "?id=5"),
            ("https://h/a.tar?TOKEN=abc", ""),
            ("https://h/a.tar?id=5&id=6&empty=&flag", "?id=5&id=6&empty=&flag"),
            ("https://h/a.tar?", ""),
            ("https://h/a.tar?a=1&&b=2&", "?a=1&b=2"),
            ("https://h/a.tar#x", ""),
            ("HTTPS://h/a.tar?sig=x", ""),
        ],
    )
    def test_what_signs_is_left_out_and_what_names_is_kept(self, url: str, expected: str) -> None:
        assert plain(url) == f"{url[:5]}://h/a.tar{expected}"
        assert plain(plain(url)) == plain(url)

    def test_what_may_be_both_is_hidden_and_counts(self) -> None:
        first, second = plain("https://h/a?key=one"), plain("https://h/a?key=two")
        assert first != second
        assert "one" not in first
        assert (whole(first), whole(second)) == ("https://h/a?key=one", "https://h/a?key=two")
        assert plain(first) == first

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("https://user:word@h:8080/a@b", "https://h:8080/a@b"),
            ("https://user@h/a", "https://h/a"),
            ("https://user:word@h2?b=1", "https://h2?b=1"),
            ("http://u:p@[::1]:80/a?b=c@d", "http://[::1]:80/a?b=c@d"),
            ("sftp://user:word@h/a?b#c", "sftp://user@h/a?b#c"),
            ("sftp://user@h/a", "sftp://user@h/a"),
            ("github://org:repo@main/a", "github://org:repo@main/a"),
            ("hf://datasets/a/b@main/c?token=x", "hf://datasets/a/b@main/c?token=x"),
            ("abfs://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
            ("s3://bucket/a?sig=b", "s3://bucket/a?sig=b"),
            ("/data/a?sig=b", "/data/a?sig=b"),
        ],
    )
    def test_passwords_are_left_out(self, url: str, expected: str) -> None:
        assert plain(url) == expected
        assert whole(expected) == url

    def test_a_folder_signs_what_is_in_it_and_nothing_else(self) -> None:
        plain("https://h/a/?sig=one&sv=1")
        plain("https://h/a/b?sig=two&sv=1")
        assert secrets_of("https://h/a/c").query == "sig=one&sv=1"
        assert secrets_of("https://h/a/b/c").query == "sig=two&sv=1"
        assert secrets_of("https://h/ab/c").query is None
        assert secrets_of("https://other/a/c").query is None

    @pytest.mark.parametrize(
        "query",
        [
            "X-Goog-Date=20260102T030405Z&X-Goog-Expires=55&X-Goog-Signature=x",
            "sv=1&se=2026-01-02T03:05:00Z&sig=x",
            "sv=1&se=2026-01-02T03%3A05Z&sig=x",
            "Expires=1767323100&Signature=x",
            "q-sign-time=1767323000;1767323100&q-signature=x",
        ],
    )
    def test_when_a_signature_expires_is_read(self, query: str) -> None:
        url = plain(f"https://h/a?{query}")
        assert signed_urls.expired(url) == datetime(2026, 1, 2, 3, 5, tzinfo=UTC)
        assert signed_urls.expired(url, datetime(2026, 1, 2, 3, 4, tzinfo=UTC)) is None

    @pytest.mark.parametrize(
        "query",
        [
            "Expires=x",
            "X-Amz-Date=no&X-Amz-Expires=1",
            "X-Amz-Date=99991231T235959Z&X-Amz-Expires=999999999",
            "sig=a",
            "exp=5",
            "Expires=1e9",
        ],
    )
    def test_what_says_no_time_has_not_expired(self, query: str) -> None:
        assert signed_urls.expired(plain(f"https://h/a?{query}")) is None
