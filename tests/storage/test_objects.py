"""Objects of a real HTTP server: faults, requests, processes, and the datasets that read them."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.storage.object_server import ObjectServer, object_server

from headrace import DataLoader
from headrace.datasets import (
    ArrowDataset,
    MDSDataset,
    ParquetDataset,
    TFRecordDataset,
    WebDataset,
)
from headrace.errors import BadFile, MissingDependency, MissingFile, UnreadableFile
from headrace.storage import block_cache, blocks, object_clients, objects, request_loop
from headrace.storage.object_clients import ObstoreClient
from headrace.storage.object_relay import relay
from headrace.storage.spans import read_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("obstore")

CONTENT = np.random.default_rng(0).bytes(1 << 18)
BLOCK = 1 << 14


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as found:
        found.objects["/a"] = CONTENT
        yield found


class TestFaults:
    @pytest.mark.parametrize("fault", ["503", "429", "reset", "cut", "long"])
    def test_a_fault_that_passes_is_not_seen(self, server: ObjectServer, fault: str) -> None:
        facts = objects.facts(f"{server.url}/a")
        begun = len(server.requests)
        server.fault = lambda _method, number: fault if number == begun else ""
        assert read_span(f"{server.url}/a", 100, 50, facts) == CONTENT[100:150]
        assert len(server.requests) > begun + 1

    def test_a_fault_that_stays_ends_in_an_error_with_the_status(
        self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(request_loop, "RETRIES", 1)
        server.fault = lambda _method, _number: "503"
        with pytest.raises(UnreadableFile, match="503") as caught:
            objects.read_range(f"{server.url}/a", 0, 10)
        assert f"{server.url}/a: bytes 0 to 10" in str(caught.value)
        assert len(server.requests) == 2

    def test_a_server_that_hangs_is_given_up(self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(request_loop, "RETRIES", 0)
        monkeypatch.setattr(request_loop, "SECONDS", 0.3)
        server.fault = lambda _method, _number: "hang"
        with pytest.raises(UnreadableFile, match=r"no answer within 0\.3 s"):
            objects.read_range(f"{server.url}/a", 0, 10)

    @pytest.mark.parametrize("status", ["401", "403"])
    def test_a_refusal_names_what_may_be_passed(self, server: ObjectServer, status: str) -> None:
        server.fault = lambda _method, _number: status
        with pytest.raises(UnreadableFile, match=f"{status}.*signed URL"):
            objects.facts(f"{server.url}/a")
        assert [method for method, _, _ in server.requests] == ["HEAD", "GET"][: 1 + (status == "403")]

    def test_numbers_of_bytes_are_no_status(self) -> None:
        error = OSError("HTTP error: Requested 50331648..50397184, got 0..65536")
        assert "status" not in str(object_clients.failed("s3://bucket/a", error))
        assert "(status 503)" in str(object_clients.failed("s3://bucket/a", OSError("HTTP error 503")))

    def test_a_server_without_ranges_is_an_error(self, server: ObjectServer) -> None:
        facts = objects.facts(f"{server.url}/a")
        server.fault = lambda _method, _number: "whole"
        with pytest.raises(UnreadableFile, match="ranges"):
            read_span(f"{server.url}/a", 0, 10, facts)

    def test_an_object_that_changes_in_mid_run_gives_no_byte_of_the_new_one(self, server: ObjectServer) -> None:
        url = f"{server.url}/a"
        facts = objects.facts(url)
        read_span(url, 0, 10, facts)
        server.objects["/a"] = bytes(len(CONTENT))
        assert read_span(url, 0, 20, facts) == CONTENT[:20]  # of the version that was indexed
        with pytest.raises(BadFile, match="changed"):
            read_span(url, 5 * BLOCK, 10, facts)

    def test_an_error_does_not_have_what_is_secret_in_a_url(self, server: ObjectServer) -> None:
        with pytest.raises(MissingFile) as caught:
            objects.facts(f"{server.url}/a?signature=secret")
        assert "secret" not in str(caught.value)

    def test_a_kind_of_url_that_nothing_reads_is_an_error(self) -> None:
        with pytest.raises(UnreadableFile, match="nothing reads this kind of URL"):
            objects.facts("nosuch://a/b")

    def test_a_missing_library_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(objects, "find_spec", lambda _name: None)
        with pytest.raises(MissingDependency, match=r"headrace\[remote\]"):
            objects.facts("s3://bucket/a.tar")


class TestRequests:
    def test_neighboring_ranges_are_one_request_and_each_byte_comes_once(self, server: ObjectServer) -> None:
        url = f"{server.url}/a"
        facts = objects.facts(url)
        blocks.blocks().ensure([(url, at, 10, facts) for at in (0, BLOCK, 3 * BLOCK, 2 * BLOCK - 5)])
        assert server.gets() == [f"bytes=0-{4 * BLOCK - 1}"] or server.gets() == [f"bytes=0-{2 * BLOCK - 1}"]
        for at in range(0, len(CONTENT), 1000):
            assert read_span(url, at, 100, facts) == CONTENT[at : at + 100]
        assert sum(1 for _ in server.gets()) <= len(CONTENT) // BLOCK
        assert blocks.blocks().counts.fetched_bytes == len(CONTENT)

    def test_requests_run_at_once_up_to_the_bound(self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(objects.limit(), "now", 3)
        url = f"{server.url}/a"
        facts = objects.facts(url)
        server.gate = threading.Barrier(3)  # each answers once three wait
        blocks.blocks().ensure([(url, at, 10, facts) for at in range(0, 12 * BLOCK, 2 * BLOCK)])
        assert server.most_at_once == 3
        assert len(server.gets()) == 6


def _tar(count: int) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for number in range(count):
            for ending, data in (("txt", f"text {number}".encode() * 200), ("cls", str(number % 5).encode())):
                member = tarfile.TarInfo(f"{number:04}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return held.getvalue()


def _write_tars(folder: Path) -> None:
    for shard in range(2):
        (folder / f"t-{shard}.tar").write_bytes(_tar(40))


def _write_records(folder: Path) -> None:
    record = bytes.fromhex("1c00000000000000c8c1951d0a1a0a0c0a047465787412040a020a000a0a0a016e12051a030a0103c304aa50")
    (folder / "r.tfrecord").write_bytes(record * 500)


def _write_mds(folder: Path) -> None:
    samples = [struct.pack("<Iq", 1000, number) + bytes([number]) * 1000 for number in range(40)]
    begin = 4 * (len(samples) + 2)
    offsets = [begin + sum(map(len, samples[:number])) for number in range(len(samples) + 1)]
    shard = struct.pack(f"<{len(offsets) + 1}I", len(samples), *offsets) + b"".join(samples)
    columns = {"column_names": ["n", "data"], "column_encodings": ["int", "bytes"], "column_sizes": [8, None]}
    raw = {"basename": "0.mds", "bytes": len(shard), "hashes": {}}
    about = {"version": 2, "format": "mds", "samples": len(samples), "raw_data": raw, **columns}
    (folder / "0.mds").write_bytes(shard)
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [about]}))


def _table() -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.table({"n": list(range(300)), "text": [f"text {number}" * 30 for number in range(300)]})


def _write_arrow(folder: Path) -> None:
    pyarrow, table = pytest.importorskip("pyarrow"), _table()
    with pyarrow.OSFile(str(folder / "a.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)


def _write_parquet(folder: Path) -> None:
    pytest.importorskip("pyarrow.parquet").write_table(_table(), folder / "p.parquet", row_group_size=100)


FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[str], Any], str]] = {
    "tar": (_write_tars, WebDataset, "t-{0..1}.tar"),
    "tfrecord": (_write_records, TFRecordDataset, "r.tfrecord"),
    "mds": (_write_mds, MDSDataset, ""),
    "arrow": (_write_arrow, ArrowDataset, "a.arrow"),
    "parquet": (_write_parquet, ParquetDataset, "p.parquet"),
}


def _serve(server: ObjectServer, folder: Path) -> None:
    server.objects |= {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}


class TestDatasets:
    @pytest.mark.parametrize("form", FORMATS)
    def test_a_dataset_of_urls_has_the_samples_of_the_files(
        self, server: ObjectServer, tmp_path: Path, form: str
    ) -> None:
        write, opened, name = FORMATS[form]
        folder = tmp_path / "files"
        folder.mkdir()
        write(folder)
        _serve(server, folder)
        local, remote = opened(f"{folder}/{name}".rstrip("/")), opened(f"{server.url}/{name}".rstrip("/"))
        assert len(remote) == len(local)
        order = np.random.default_rng(3).permutation(len(local)).tolist()
        assert [remote[index] for index in order] == [local[index] for index in order]
        both = [
            list(DataLoader(each, 16, shuffle=True, seed=5, num_workers=2, backend="threads"))
            for each in (local, remote)
        ]
        for ours, theirs in zip(*both, strict=True):
            np.testing.assert_equal(theirs, ours)

    @pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:worker processes are forked:RuntimeWarning")  # the server has threads
    def test_worker_processes_share_the_cache(self, server: ObjectServer, method: str) -> None:
        server.objects["/t.tar"] = _tar(40)
        dataset = WebDataset(f"{server.url}/t.tar")
        expected = [dataset[index] for index in range(len(dataset))]
        held = blocks.blocks().disk
        held.clear()
        blocks._of_process.cache_clear()
        loader = DataLoader(
            dataset, 4, num_workers=2, backend="processes", multiprocessing_context=method, collate_fn=list
        )
        assert [sample for batch in loader for sample in batch] == expected
        assert held.status().strangers == ()
        assert held.verify()[1] == []

    def test_a_batch_is_fetched_by_requests_at_once(self, server: ObjectServer) -> None:
        server.objects["/t.tar"] = _tar(200)
        dataset = WebDataset(f"{server.url}/t.tar")
        blocks.blocks().disk.clear()
        blocks._of_process.cache_clear()
        server.gate, server.most_at_once = threading.Barrier(2), 0
        assert [sample["cls"] for sample in dataset.__getitems__([0, 150])] == [0, 0]
        assert server.most_at_once == 2

    def test_the_index_of_urls_is_saved_in_the_users_cache_and_used(self, server: ObjectServer, tmp_path: Path) -> None:
        server.objects["/t.tar"] = _tar(40)
        first = WebDataset(f"{server.url}/t.tar")
        assert str(first.index_path).startswith(str(tmp_path / "home"))
        begun = len(server.gets())
        WebDataset(f"{server.url}/t.tar")
        assert len(server.gets()) == begun
        server.objects["/t.tar"] = _tar(41)
        assert len(WebDataset(f"{server.url}/t.tar")) == 41

    def test_a_shard_that_is_not_there_is_named(self, server: ObjectServer) -> None:
        with pytest.raises(MissingFile, match=r"t-1\.tar"):
            WebDataset(f"{server.url}/t-{{1..2}}.tar")

    def test_an_http_server_that_would_have_to_list_is_refused(self, server: ObjectServer) -> None:
        for pattern in ("*.tar", "t-[01].tar", "folder/"):
            with pytest.raises(UnreadableFile, match=r"does not list its objects.*braces"):
                WebDataset(f"{server.url}/{pattern}")
        assert server.requests == []


def test_a_cache_of_another_folder_has_the_state_file_alone(tmp_path: Path) -> None:
    cache = block_cache.BlockCache(tmp_path / "blocks", 1000)
    assert cache.clear() == (0, 0)


class TestVariables:
    """What the environment says is read when it is needed, not once."""

    @pytest.fixture
    def server(self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        return server

    def test_another_endpoint_is_another_client(self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
        server.objects["/bucket/a"] = b"one"
        assert objects.facts("s3://bucket/a")[0] == 3
        with object_server() as other:
            other.objects["/bucket/a"] = b"other"
            monkeypatch.setenv("AWS_ENDPOINT", other.url)
            assert objects.facts("s3://bucket/a")[0] == 5
            monkeypatch.setenv("AWS_ENDPOINT", server.url)
            assert objects.facts("s3://bucket/a")[0] == 3
            assert len(other.requests) == 1

    def test_other_credentials_are_used_at_once(self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look at what the variables of other platforms leave alone: one client stays."""
        server.objects["/bucket/a"] = b"one"
        objects.facts("s3://bucket/a")
        client = objects._obstore()
        assert isinstance(client, ObstoreClient)
        first = client._place("s3://bucket/a")[0]
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "/another")
        assert client._place("s3://bucket/a")[0] is first
        monkeypatch.setenv("AWS_SESSION_TOKEN", "another")
        assert client._place("s3://bucket/a")[0] is not first

    def test_a_forked_process_reads_from_the_endpoint_that_it_has_set(
        self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Start another helper process when the environment is another one."""
        server.objects["/bucket/a"] = b"one"
        with object_server() as other:
            other.objects["/bucket/a"] = b"other"
            first = relay()
            assert first.facts("s3://bucket/a")[0] == 3
            assert relay() is first
            monkeypatch.setenv("AWS_ENDPOINT", other.url)
            second = relay()
            assert second.facts("s3://bucket/a")[0] == 5
            second.close()

    def test_a_folder_without_its_slash_is_explained(self, server: ObjectServer) -> None:
        server.objects["/bucket/shards/0.tar"] = b""
        with pytest.raises(MissingFile, match="The URL of a folder of shards ends with a slash"):
            WebDataset("s3://bucket/shards")
