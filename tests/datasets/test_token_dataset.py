"""Windows and documents of token files, against arrays in memory; damaged files and those that change are errors."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from tests.datasets.token_files import CODES, arrow, llm_c, megatron, safetensors

from headrace import DataLoader
from headrace.datasets import ArrowDataset, TokenDataset
from headrace.errors import ArgumentError, ArgumentTypeError, BadFile, MissingFile
from headrace.samplers import ReplacementSampler
from headrace.testing import DatasetTests

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FORK: dict[str, Any] = {"backend": "processes", "multiprocessing_context": "fork"}
SIZES = (90, 7, 41)
KINDS = ("raw", "raw-big", "llm.c", "llm.c-3", "megatron", "npy", "npy-big", "npz", "safetensors", "arrow", "arrays")
WITH_DOCUMENTS = ("megatron", "arrow", "arrays")


def streams(sizes: Sequence[int] = SIZES, top: int = 50_000) -> list[Any]:
    """Return the tokens of each file."""
    rng = np.random.default_rng(7)
    return [rng.integers(1, top, size).astype(np.uint16) for size in sizes]


def cut(tokens: Any) -> list[Any]:
    """Return documents of several lengths, one of them empty."""
    first = min(3, len(tokens) // 2)
    return np.split(tokens, [first, first, max(first, len(tokens) // 2)])


def write(kind: str, folder: Path, files: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Write files in a layout; return what `TokenDataset` takes for them."""
    options: dict[str, Any] = {}
    for number, tokens in enumerate(files):
        path = folder / f"{number}.{kind.partition('-')[0]}"
        if kind.startswith("raw"):
            options["dtype"] = ">u4" if kind == "raw-big" else "<u2"
            path = path.with_suffix(".bin")
            tokens.astype(options["dtype"]).tofile(path)
        elif kind.startswith("llm.c"):
            magic = (20240801, 7) if kind == "llm.c-3" else (20240520, 1)
            llm_c(path.with_name(f"{number}.bin"), tokens, *magic)
        elif kind == "megatron":
            megatron(folder / str(number), [[each] for each in cut(tokens)], "int32", modes=number == 0)
        elif kind.startswith("npy"):
            np.save(path.with_suffix(".npy"), tokens.astype(">i8" if kind == "npy-big" else np.uint32))
        elif kind == "npz":
            np.savez(path, tokens=tokens, scores=np.zeros(3))
        elif kind == "safetensors":
            safetensors(path, tokens=tokens, scores=np.zeros(3, np.float32))
        elif kind == "arrow":
            pytest.importorskip("pyarrow")
            arrow(path, cut(tokens), rows=2, attention_mask=[[1]] * 4)
    return (list(files) if kind == "arrays" else folder), options


def windows(files: Sequence[Any], length: int, stride: int) -> list[Any]:
    """Return the windows of each file in turn, the plain way."""
    return [
        tokens[at : at + length + 1].astype(np.int64)
        for tokens in files
        for at in range(0, len(tokens) - length, stride)
    ]


class Written:
    """Files of one layout, in a folder."""

    @pytest.fixture(autouse=True, params=KINDS)
    def files(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.kind = request.param
        self.given, self.options = write(self.kind, tmp_path, streams())


class TestWindows(Written, DatasetTests):
    """Pairs of inputs and targets, in whole batches."""

    def make(self) -> Any:
        return TokenDataset(self.given, 8, stride=3, **self.options)

    def test_windows_are_those_of_the_arrays(self) -> None:
        """Cut each file at every stride, and shift the targets by one token."""
        expected, dataset = windows(streams(), 8, 3), self.make()
        assert len(dataset) == len(expected)
        for (inputs, targets), tokens in zip(dataset, expected, strict=True):
            assert inputs.dtype == targets.dtype == np.int64
            assert_array_equal(inputs, tokens[:-1])
            assert_array_equal(targets, tokens[1:])
        assert dataset.shard_lengths == [len(windows([tokens], 8, 3)) for tokens in streams()]
        assert dataset.tokens == sum(SIZES)
        assert dataset.lengths.tolist() == [8] * len(dataset)

    def test_it_says_the_file_and_the_token(self) -> None:
        """Name the file of a window, and where it begins there."""
        dataset = self.make()
        first = dataset.shard_lengths[0]
        assert dataset.where(first + 1).endswith("token 3")
        if self.kind != "arrays":
            assert dataset.where(first).startswith(dataset.shards[2])

    def test_processes_and_ranks_share_the_windows(self) -> None:
        """Give each window once to two ranks, each with workers in processes."""
        found = []
        for rank in range(2):
            loader = DataLoader(
                self.make(), 4, shuffle=True, seed=3, rank=rank, world_size=2, uneven="drop", num_workers=1, **FORK
            )
            found += [row.tolist() for inputs, _ in loader for row in inputs]
        whole = [tokens[:-1].tolist() for tokens in windows(streams(), 8, 3)]
        assert len(found) == len({tuple(row) for row in found}) >= len(whole) - 8
        assert all(row in whole for row in found)

    def test_a_copy_is_sent_as_paths(self) -> None:
        """Pickle no tokens of a file."""
        sent = pickle.dumps(self.make())
        assert self.kind == "arrays" or len(sent) < 1500
        assert_array_equal(pickle.loads(sent)[5][0], self.make()[5][0])


class TestDocuments(Written, DatasetTests):
    """Whole documents, of their own lengths."""

    collates = False

    @pytest.fixture(autouse=True, params=[*KINDS])
    def files(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.kind, files = request.param, streams()
        self.expected = [each for tokens in files for each in cut(tokens)]
        if self.kind == "arrays":
            files = self.expected
        elif self.kind not in WITH_DOCUMENTS:
            files = [np.concatenate([np.append(each, 0) for each in cut(tokens)]).astype(np.uint16) for tokens in files]
            self.expected = [np.append(each, 0) for each in self.expected]
        self.given, self.options = write(self.kind, tmp_path, files)
        if self.kind not in WITH_DOCUMENTS:
            self.options["separator"] = 0

    def make(self) -> Any:
        return TokenDataset(self.given, documents=True, **self.options)

    def test_documents_are_those_that_were_written(self) -> None:
        """Find each document, an empty one too, and all lengths."""
        dataset = self.make()
        assert dataset.lengths.tolist() == [len(each) for each in self.expected]
        for document, tokens in zip(dataset, self.expected, strict=True):
            assert document.dtype == np.int64
            assert_array_equal(document, tokens)
        assert sum(dataset.shard_lengths) == len(dataset)
        assert dataset.where(1).endswith("token 4" if self.kind in set(KINDS) - set(WITH_DOCUMENTS) else
                                         "token 0" if self.kind == "arrays" else "token 3")  # fmt: skip

    def test_a_copy_has_the_same_documents(self) -> None:
        """Read them again in another process."""
        loader = DataLoader(self.make(), 4, collate_fn=list, num_workers=1, **FORK)
        assert [each.tolist() for batch in loader for each in batch] == [each.tolist() for each in self.expected]
        copy = pickle.loads(pickle.dumps(self.make()))
        assert copy.lengths.tolist() == self.make().lengths.tolist()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    length=st.integers(1, 9),
    stride=st.integers(1, 12),
    kinds=st.lists(st.sampled_from(["raw", "llm.c", "npy", "arrow", "megatron"]), min_size=5, max_size=5),
    data=st.data(),
)
def test_any_files_give_the_windows_of_their_tokens(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    length: int,
    stride: int,
    kinds: list[str],
    data: st.DataObject,
) -> None:
    """Mix layouts, dtypes and sizes in one dataset; read batches in any order."""
    folder, files, paths = tmp_path_factory.mktemp("tokens"), streams(sizes), list[Any]()
    for number, tokens in enumerate(files):
        (inside := folder / str(number)).mkdir()
        paths.append(write(kinds[number], inside, [tokens])[0])
    expected, dtype = windows(files, length, stride), np.uint16 if "raw" in kinds[: len(sizes)] else None
    if not expected:
        with pytest.raises(ArgumentError, match="no window of length"):
            TokenDataset(paths, length, stride=stride, dtype=dtype)
        return
    dataset = TokenDataset(paths, length, stride=stride, dtype=dtype)
    keys = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=20))
    inputs, targets = dataset.read_batch(keys)
    assert_array_equal(inputs, np.stack([expected[key][:-1] for key in keys]))
    assert_array_equal(targets, np.stack([expected[key][1:] for key in keys]))


def test_statistics_count_the_tokens_of_windows() -> None:
    """Count inputs, in each process that reads them."""
    for how in ({}, {"num_workers": 1, **FORK}):
        loader = DataLoader(TokenDataset([np.arange(100)], 8), 5, **how)
        assert sum(inputs.size for inputs, _ in loader) == loader.statistics().tokens == 12 * 8


def test_random_windows_are_drawn_from_every_place() -> None:
    """Give nanoGPT's batches: any start is as likely, and a run resumes at any step."""
    tokens = np.arange(20, dtype=np.uint16)
    dataset = TokenDataset([tokens], 4, stride=1)
    sampler = ReplacementSampler(dataset, 20_000)
    starts = np.concatenate([inputs[:, 0] for inputs, _ in DataLoader(dataset, 100, sampler=sampler, seed=0)])
    assert sorted(set(starts.tolist())) == list(range(16))
    assert abs(np.bincount(starts) - 20_000 / 16).max() < 200
    loader = DataLoader(dataset, 100, sampler=ReplacementSampler(dataset, 10**12), seed=0)
    state = loader.state_dict() | {"step": 10**6}
    loader.load_state_dict(state)
    assert_array_equal(next(iter(loader))[0], loader.replay(epoch=0, step=10**6)[0])


@pytest.mark.parametrize("dtype", sorted(CODES))
def test_each_dtype_of_megatron_is_read(tmp_path: Path, dtype: str) -> None:
    """Take all integers; refuse floats by name. Join the sequences of a document."""
    prefix = megatron(tmp_path / "a", [[[1, 2], [3]], [], [[4], [], [5, 6]]], dtype)
    if np.dtype(dtype).kind == "f":
        with pytest.raises(BadFile, match=f"its tokens are {dtype}; expected integers"):
            TokenDataset(prefix, documents=True)
        return
    for path in (prefix, f"{prefix}.bin", f"{prefix}.idx", f"{prefix}*", [f"{prefix}.idx"], tmp_path):
        dataset = TokenDataset(path, documents=True)
        assert [each.tolist() for each in dataset] == [[1, 2, 3], [], [4, 5, 6]]
        assert dataset.shards == [f"{prefix}.bin"]
    assert [inputs.tolist() for inputs, _ in TokenDataset(prefix, 2)] == [[1, 2], [3, 4]]


def test_separators_end_documents_or_begin_them(tmp_path: Path) -> None:
    """Keep every token; look at how the file begins."""
    for number, tokens in enumerate(([5, 6, 0, 7, 0, 8], [0, 5, 6, 0, 7], [0, 0, 5], [9, 9], [0])):
        np.array(tokens, np.uint16).tofile(tmp_path / f"{number}.bin")
    dataset = TokenDataset(tmp_path, documents=True, separator=0, dtype=np.uint16)
    documents = [[5, 6, 0], [7, 0], [8], [0, 5, 6], [0, 7], [0], [0, 5], [9, 9], [0]]
    assert [each.tolist() for each in dataset] == documents
    assert dataset.shard_lengths == [3, 2, 2, 1, 1]
    with pytest.raises(ArgumentError, match="none of the 17 tokens is separator=77"):
        len(TokenDataset(tmp_path, documents=True, separator=77, dtype=np.uint16))
    with pytest.raises(ArgumentError, match="separator=70000 cannot be among tokens of uint16"):
        len(TokenDataset(tmp_path, documents=True, separator=70_000, dtype=np.uint16))


def test_arrays_of_any_kind_are_tokens() -> None:
    """Take lists, one array, and a map of the user's own file."""
    assert [each.tolist() for each in TokenDataset([[1, 2], [], [3]], documents=True)] == [[1, 2], [], [3]]
    assert TokenDataset(np.arange(9)[::2], 2)[1][1].tolist() == [6, 8]
    assert TokenDataset([np.arange(9, dtype=">u4")], 3)[1][0].tolist() == [3, 4, 5]


def test_many_small_arrays_are_as_few_large_ones() -> None:
    """Copy them into one, and keep their windows apart."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 99, size).astype(np.int32) for size in rng.integers(0, 30, 1500)]
    dataset = TokenDataset(arrays, 8, stride=5)
    expected = windows(arrays, 8, 5)
    assert_array_equal(dataset.read_batch(range(len(dataset)))[1], np.stack(expected)[:, 1:])
    documents = TokenDataset(arrays, documents=True)
    assert [each.tolist() for each in documents] == [each.tolist() for each in arrays]
    assert documents.shard_lengths == [1] * 1500
    assert documents.where(700) == "array 700: token 0"
    assert [each.tolist() for each in pickle.loads(pickle.dumps(documents))] == [each.tolist() for each in arrays]
    both = [*arrays, np.array([2**63 + 1], np.uint64)]
    with pytest.raises(BadFile, match=r"array 1500: sample 1500 .* has token 9,223,372,036,854,775,809"):
        TokenDataset(both, documents=True)[1500]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 60), min_size=1, max_size=6), data=st.data())
def test_documents_are_the_same_one_by_one_and_together(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], data: st.DataObject
) -> None:
    """Read long and short documents, of one or several files, in any order and number."""
    files = streams(sizes)
    folder = tmp_path_factory.mktemp("tokens")
    kinds = data.draw(st.lists(st.sampled_from(["megatron", "arrow"]), min_size=len(files), max_size=len(files)))
    paths = list[Any]()
    for number, (kind, tokens) in enumerate(zip(kinds, files, strict=True)):
        (inside := folder / str(number)).mkdir()
        paths.append(write(kind, inside, [tokens])[0])
    dataset, expected = TokenDataset(paths, documents=True), [each for tokens in files for each in cut(tokens)]
    keys = data.draw(st.lists(st.integers(-len(expected), len(expected) - 1), max_size=20))
    assert [each.tolist() for each in dataset.__getitems__(keys)] == [expected[key].tolist() for key in keys]
    long = TokenDataset([*(np.arange(3000) + at for at in range(3)), np.arange(3)], documents=True)
    assert [len(each) for each in long.__getitems__([3, 1, -4])] == [3, 3000, 3000]


def test_a_map_of_the_users_is_read_as_its_file(tmp_path: Path) -> None:
    """Send its path to workers, and notice when it is cut short."""
    (np.arange(1000, dtype=np.uint16) + 7).tofile(tmp_path / "a.bin")
    dataset = TokenDataset(np.memmap(tmp_path / "a.bin", np.uint16, "r", 4), 8)
    assert len(pickle.dumps(dataset)) < 1500
    assert pickle.loads(pickle.dumps(dataset))[1][0][0] == dataset[1][0][0] == 17
    for mode in ("r+", "c"):
        own = TokenDataset(np.memmap(tmp_path / "a.bin", np.uint16, mode), 8)
        assert pickle.loads(pickle.dumps(own))[1][0][0] == own[1][0][0] == 15


def test_columns_of_other_libraries_are_read_where_they_lie(tmp_path: Path) -> None:
    """Take an `ArrowDataset`, and each type of list; choose the column."""
    pa = pytest.importorskip("pyarrow")
    documents = [[1, 2, 3], [], [4, 5], [6]]
    for number, kind in enumerate((pa.list_(pa.int64()), pa.large_list(pa.uint16()))):
        path = arrow(tmp_path / f"{number}.arrow", documents, kind, ids=[[7]] * 4)
        dataset = TokenDataset(ArrowDataset(path), documents=True)
        assert [each.tolist() for each in dataset] == documents
        assert [each.tolist() for each in TokenDataset(path, documents=True, field="ids")] == [[7]] * 4
        assert [inputs.tolist() for inputs, _ in TokenDataset(path, 2, stride=1)] == [[1, 2], [2, 3], [3, 4], [4, 5]]
    pairs = arrow(tmp_path / "pairs", [[1, 2], [3, 4], [5, 6]], pa.list_(pa.int32(), 2))
    assert [each.tolist() for each in TokenDataset(pairs, documents=True)] == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(ArgumentError, match=r"field='text' holds no lists of integers; it has 'input_ids"):
        TokenDataset(pairs, field="text")
    for bad, words in (([[1], None], "null rows"), ([[1], [None]], "null tokens")):
        with pytest.raises(BadFile, match=words):
            TokenDataset(arrow(tmp_path / "nulls", bad), documents=True)


def test_a_dataset_of_hugging_face_is_read_through_its_indices() -> None:
    """Read the chosen rows as documents, and windows over them in their order."""
    datasets = pytest.importorskip("datasets")
    documents = [[number] * (number + 1) for number in range(20)]
    whole = datasets.Dataset.from_dict({"text": ["a"] * 20, "input_ids": documents, "attention_mask": documents})
    assert [each.tolist() for each in TokenDataset(whole, documents=True)] == documents
    chosen = whole.select([7, 3, 11, 3])
    some = TokenDataset(chosen.with_format("numpy"), documents=True)
    rows = [documents[number] for number in (7, 3, 11, 3)]
    assert [each.tolist() for each in some] == rows
    assert some.lengths.tolist() == [8, 4, 12, 4]
    assert [each.tolist() for each in pickle.loads(pickle.dumps(some))] == rows
    assert some.shard_lengths == [4]
    flat = [token for row in rows for token in row]
    dataset = TokenDataset(chosen, 5, stride=2)
    expected = [flat[at : at + 5] for at in range(0, len(flat) - 5, 2)]
    assert [inputs.tolist() for inputs, _ in dataset] == expected
    assert_array_equal(dataset.read_batch(range(len(dataset)))[0], expected)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TokenDataset([]), "paths is empty"),
        (lambda: TokenDataset(5), "paths is an int"),
        (lambda: TokenDataset([1, 2, 3]), r"array 0 of tokens has the shape \(\)"),
        (lambda: TokenDataset(np.array(5)), r"array 0 of tokens has the shape \(\)"),
        (lambda: TokenDataset([np.zeros(9)]), "holds float64; expected one row of integers"),
        (lambda: TokenDataset([[1, 2]], 2), "no window of length . 1 = 3 tokens fits: the longest file has 2"),
        (lambda: TokenDataset([[1, 2]], 0), "length must be an integer from 1 up; got 0"),
        (lambda: TokenDataset([[1, 2]], 1, stride=0), "stride must be an integer from 1 up; got 0"),
        (lambda: TokenDataset([[1]], 1, separator=0), "separator=0 cannot be used with documents=False"),
        (lambda: TokenDataset([[1]], stride=1, documents=True), "stride=1 cannot be used with documents=True"),
        (lambda: TokenDataset([[1, 2]], 1, dtype="float32"), "is not an integer dtype"),
        (lambda: TokenDataset([[1, 2]], 1, dtype="words"), "is not an integer dtype"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(make: Any, words: str) -> None:
    """Say what is the matter, and what to pass."""
    with pytest.raises((ArgumentError, ArgumentTypeError), match=words):
        make()


def test_a_raw_file_needs_a_dtype(tmp_path: Path) -> None:
    """Show how to pass it; refuse one that a header contradicts, and a path that is not there."""
    np.arange(99, dtype=np.uint16).tofile(tmp_path / "train.bin")
    with pytest.raises(ArgumentError, match=r"no header that says the dtype.*Pass dtype=np\.uint16"):
        TokenDataset(tmp_path / "train.bin")
    llm_c(tmp_path / "a.bin", range(50))
    with pytest.raises(ArgumentError, match=r"holds uint16, and dtype=uint32 was given.*Leave dtype out"):
        TokenDataset(tmp_path / "a.bin", 8, dtype=np.uint32)
    with pytest.raises(MissingFile, match="there is no such file"):
        TokenDataset(tmp_path / "b.bin", dtype=np.uint16)
    with pytest.raises(ArgumentError, match=r"does not say where its documents are.*separator=50256"):
        TokenDataset(tmp_path / "a.bin", documents=True)
    megatron(tmp_path / "m", [[[1, 2]]])
    with pytest.raises(ArgumentError, match="already says where its documents are"):
        TokenDataset(tmp_path / "m", documents=True, separator=0)
    safetensors(tmp_path / "two.safetensors", a=np.arange(9), b=np.arange(9))
    with pytest.raises(ArgumentError, match="2 of its arrays are rows of integers; it has 'a, b'"):
        TokenDataset(tmp_path / "two.safetensors")
    assert len(TokenDataset(tmp_path / "two.safetensors", 4, field="b")) == 2
