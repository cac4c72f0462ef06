"""What every source of ranges of bytes promises: a local file, an object of an HTTP server, one of fsspec."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from tests.storage.object_server import ObjectServer, object_server

from headrace.errors import BadFile, MissingFile
from headrace.formats.reader import ShardReader
from headrace.storage import blocks
from headrace.storage.files import read_file
from headrace.storage.spans import SpanFiles, read_span

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 300_000
CONTENT = random.Random(0).randbytes(SIZE)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 16)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))


class SpanSourceTests(ABC):
    """A test of a source names a file that exists, writes it, and removes it."""

    path: str

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Give the file this content."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the file."""

    def facts(self) -> tuple[int, int]:
        with ShardReader(self.path) as reader:
            return reader.facts

    @pytest.mark.parametrize(
        ("offset", "length"), [(0, 1), (70, 0), (65_530, 20), (1, 299_999), (SIZE, 0), (131_072, 65_536)]
    )
    def test_a_range_is_the_bytes_of_the_file(self, offset: int, length: int) -> None:
        assert read_span(self.path, offset, length, self.facts()) == CONTENT[offset : offset + length]
        assert read_span(self.path, offset, length) == CONTENT[offset : offset + length]

    def test_files_that_stay_open_give_the_same(self) -> None:
        files, facts = SpanFiles(), self.facts()
        assert [files.read(self.path, offset, 7, facts) for offset in (5, 65_533, 5)] == [
            CONTENT[offset : offset + 7] for offset in (5, 65_533, 5)
        ]

    def test_a_reader_of_an_index_reads_in_any_order(self) -> None:
        with ShardReader(self.path) as reader:
            assert reader.size == SIZE
            for offset in (0, 512, 1024, 299_990, 3, 70_000, 66_000):
                assert reader.read(offset, 10) == CONTENT[offset : offset + 10]

    def test_a_whole_file_is_read(self) -> None:
        assert read_file(self.path) == CONTENT

    def test_threads_read_at_once(self) -> None:
        facts = self.facts()
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda at: read_span(self.path, at, 5000, facts), range(0, 290_000, 1000)))
        assert found == [CONTENT[at : at + 5000] for at in range(0, 290_000, 1000)]

    def test_a_range_behind_the_end_is_an_error_that_names_it(self) -> None:
        with pytest.raises(BadFile) as caught:
            read_span(self.path, SIZE - 10, 20, self.facts())
        assert self.path in str(caught.value)
        assert f"bytes {SIZE - 10} to {SIZE + 10}" in str(caught.value)

    def test_a_file_that_has_changed_is_an_error(self) -> None:
        facts = self.facts()
        self.write(CONTENT[:-1] + b"?")
        with pytest.raises(BadFile, match=r"changed|written to"):
            read_span(self.path, 5, 100, (facts[0], facts[1] - 1 if self.facts() == facts else facts[1]))

    def test_a_file_that_was_cut_short_is_an_error(self) -> None:
        facts = self.facts()
        self.write(CONTENT[:1000])
        with pytest.raises(BadFile, match="1,000 bytes"):
            read_span(self.path, 5000, 100, facts)

    def test_a_missing_file_is_an_error_that_names_it(self) -> None:
        self.remove()
        for read in (lambda: read_span(self.path, 0, 1), lambda: read_file(self.path), self.facts):
            with pytest.raises(MissingFile) as caught:
                read()
            assert self.path in str(caught.value)


class TestLocalFile(SpanSourceTests):
    @pytest.fixture(autouse=True)
    def _file(self, tmp_path: Path) -> None:
        self._place = tmp_path / "shard"
        self.path = str(self._place)
        self.write(CONTENT)

    def write(self, data: bytes) -> None:
        self._place.write_bytes(data)

    def remove(self) -> None:
        self._place.unlink()


class TestHttpObject(SpanSourceTests):
    _server: ObjectServer

    @pytest.fixture(autouse=True)
    def _served(self) -> Iterator[None]:
        pytest.importorskip("obstore")
        with object_server() as self._server:
            self.path = f"{self._server.url}/folder/a shard.bin".replace(" ", "%20")
            self.write(CONTENT)
            yield

    def write(self, data: bytes) -> None:
        self._server.objects["/folder/a%20shard.bin"] = data

    def remove(self) -> None:
        self._server.objects.clear()


class TestFsspecObject(SpanSourceTests):
    @pytest.fixture(autouse=True)
    def _memory(self) -> Iterator[None]:
        fsspec = pytest.importorskip("fsspec")
        self._files = fsspec.filesystem("memory")
        self.path = "memory://spans/shard"
        self.write(CONTENT)
        yield
        if self._files.exists("/spans"):
            self._files.rm("/spans", recursive=True)

    def write(self, data: bytes) -> None:
        self._files.pipe_file("/spans/shard", data)

    def remove(self) -> None:
        self._files.rm("/spans/shard")
