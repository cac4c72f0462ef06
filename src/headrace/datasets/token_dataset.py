"""Files of token ids as windows of inputs and targets, or as documents, read where they lie."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace.checks import flag, integer, kind_of, shown
from headrace.context.tokens import count_tokens
from headrace.datasets.arrow_dataset import ArrowDataset
from headrace.datasets.base import Dataset
from headrace.datasets.columns import Columns
from headrace.datasets.memory_maps import Sent, mapped_rows
from headrace.datasets.pieces import check_part
from headrace.datasets.protocol import rows_of
from headrace.datasets.shards import shard_paths
from headrace.datasets.span_table import at_once
from headrace.datasets.token_table import TokenTable
from headrace.datasets.unchanged import is_worker_of
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.formats import token_layouts
from headrace.formats.token_file import TokenFile
from headrace.formats.token_layouts import Wanted
from headrace.formats.token_lists import choose, column_of
from headrace.interop.keys import place, places
from headrace.storage.mapped_samples import lost, mapped_file
from headrace.storage.object_spans import fetch
from headrace.storage.objects import is_url

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import DTypeLike, NDArray

    from headrace.context.memory import Empty
    from headrace.datasets.shards import Shards
    from headrace.storage.object_spans import ObjectSpans

    Tokens = NDArray[np.int64]

WHAT = "a TokenDataset of {} samples"
MANY = 1000
"""This many arrays or more are copied into one, because each costs time and memory."""


class TokenDataset(Dataset[Any]):
    """Token ids in files of any usual layout: windows of ``length`` tokens and their targets, or whole documents.

    >>> import tempfile
    >>> from headrace import DataLoader
    >>> from headrace.datasets import TokenDataset
    >>> folder = tempfile.TemporaryDirectory()
    >>> np.arange(1000, dtype=np.uint16).tofile(f"{folder.name}/train.bin")
    >>> dataset = TokenDataset(f"{folder.name}/train.bin", length=8, dtype=np.uint16)
    >>> len(dataset), dataset[1]
    (124, (array([ 8,  9, 10, 11, 12, 13, 14, 15]), array([ 9, 10, 11, 12, 13, 14, 15, 16])))
    >>> inputs, targets = next(iter(DataLoader(dataset, 32, shuffle=True, seed=0)))
    >>> inputs.shape, inputs.dtype, (targets - inputs).max().item()
    ((32, 8), dtype('int64'), 1)
    >>> stories = TokenDataset([[5, 6, 0, 7, 0], [8, 9, 0]], documents=True, separator=0)
    >>> stories.lengths, stories[1]
    (array([3, 2, 3]), array([7, 0]))
    >>> folder.cleanup()

    ``paths``: a path, a pattern with braces or stars, a folder, a URL, arrays of integers, an `ArrowDataset`, a
    `datasets.Dataset`, or a list of paths, URLs and arrays. The first bytes of a file say what it is:

    - raw tokens, as nanoGPT writes them: pass ``dtype=np.uint16``, as no header says it;
    - llm.c's ``.bin`` files, of both versions;
    - Megatron's ``.bin`` and ``.idx`` files: give either, or the path without an ending;
    - one row of integers in a ``.npy``, ``.npz`` or safetensors file; ``field`` is its name where there are several;
    - uncompressed Arrow files with a column of lists of integers: ``field``, or "input_ids", or "tokens".

    Sample i is the window of ``length + 1`` tokens from token ``i * stride`` on, as two int64 arrays: the inputs, and
    the targets one token further. A window lies in one file; ``stride`` is ``length`` unless given. With ``stride=1``
    and a `ReplacementSampler`, batches are random windows, as nanoGPT draws them.

    With ``documents=True``, sample i is a document, an int64 array: a document of Megatron's, a row of an Arrow file,
    an array of the list. In other files documents end with the token ``separator``, or begin with it where the file
    does. It is searched for when the length of the dataset is first asked for. ``lengths`` are the lengths of all
    documents, for samplers that pack them.

    Nothing is indexed ahead and nothing is written. Files are memory-mapped when they are first read; worker processes
    map them too, and get paths.

    Raises `ArgumentError` for a raw file without ``dtype``, and where there is no window or document; `MissingFile`;
    `BadFile` for damaged files and for those that change while they are read, with the path and the sample.
    """

    suits_threads = True
    checks_maps = True

    def __init__(
        self,
        paths: Shards | Any,
        length: int = 1024,
        *,
        stride: int | None = None,
        documents: bool = False,
        dtype: DTypeLike | None = None,
        field: str | None = None,
        separator: int | None = None,
    ) -> None:
        self.length = integer("length", length, least=1)
        self.stride = self.length if stride is None else integer("stride", stride, least=1)
        self.documents = flag("documents", documents)
        _fit(documents=self.documents, stride=stride, separator=separator)
        self.separator = None if separator is None else integer("separator", separator, least=-(2**63))
        found, field, self._rows = _found(paths, field)
        self._wanted = Wanted(_dtype(dtype), field, self.documents, self.separator)
        self._given, self._cuts = (found, None) if separator is not None else _together(found)
        self._open()

    def _open(self) -> None:
        """Look at the headers of all files."""
        files = [each for each in self._given if isinstance(each, str)]
        remote = any(map(is_url, files))
        indexed = iter(
            at_once(lambda path: token_layouts.index(path, self._wanted), files, remote=remote) if files else ()
        )
        sources = [next(indexed) if isinstance(each, str) else _as_file(each) for each in self._given]
        _check_dtype(self._wanted.dtype, sources)
        bare = [each.without_documents() if isinstance(each, TokenFile) else each for each in sources]
        table = TokenTable(bare, self._cuts)
        self._documents: tuple[Tokens, Tokens] | None = None
        self._counts: list[int] | None = None
        self._scanned: list[Tokens] | None = None
        if self.documents:
            self._table = table
            if self._cuts is not None:
                self._documents = self._chosen(table.ends[:-1], self._cuts, [1] * len(self._cuts))
            elif self.separator is None:
                self._documents = self._chosen(*_joined(table, [_known(source) for source in sources]))
            else:
                _refuse_known(sources, self.separator)
            return
        if self._rows is not None:
            begins, lengths, _ = _joined(table, [_known(source) for source in sources])
            table = table.reordered(begins[self._rows], lengths[self._rows])
        self._table = table
        sizes = np.diff(table.ends)
        each = np.maximum((sizes - self.length - 1) // self.stride + 1, 0)
        self._first: Tokens = np.concatenate([[0], np.cumsum(each)])
        if not self._first[-1]:
            raise ArgumentError(
                f"no window of length + 1 = {self.length + 1:,} tokens fits: the longest file has "
                f"{int(sizes.max(initial=0)):,}",
                found=int(sizes.max(initial=0)),
                expected=f"at least {self.length + 1:,} tokens in a file",
                cure="Pass a smaller length, or pack documents with documents=True.",
            )

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name not in _MADE_AGAIN}
        given = [each if isinstance(each, str) else _sent(each) for each in self._given]
        facts = [source.facts for source in self._table.sources if isinstance(source, TokenFile)]
        return {**state, "_given": given, "_sent": (os.getpid(), facts, self._scanned)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        pid, facts, scanned = state.pop("_sent")
        vars(self).update(state)
        self._given = [each.array if isinstance(each, Sent) else each for each in self._given]
        self._open()
        files = [source for source in self._table.sources if isinstance(source, TokenFile)]
        same = [source.facts for source in files] == facts
        if not same and is_worker_of(pid):
            at = next(n for n, source in enumerate(files) if source.facts != facts[n])
            raise lost(files[at].path, "a sample", "the file was written to or replaced")
        self._scanned = scanned if same else None

    @property
    def shards(self) -> list[str]:
        """The paths of the files, in order."""
        return [source.path for source in self._table.sources if isinstance(source, TokenFile)]

    @property
    def tokens(self) -> int:
        """How many tokens all files have, those in no window included."""
        return int(self._table.ends[-1])

    @property
    def lengths(self) -> Tokens:
        """The number of tokens in each document; ``length`` for each window."""
        if not self.documents:
            return np.broadcast_to(np.int64(self.length), len(self))
        return self._places()[1]

    @property
    def shard_lengths(self) -> list[int]:
        """How many windows or documents each file has: what `ShardSampler` takes."""
        if not self.documents:
            counts: list[int] = np.diff(self._first).tolist()
            return counts
        self._places()
        return list(self._counts or ())

    def __len__(self) -> int:
        return len(self._places()[1]) if self.documents else int(self._first[-1])

    def __getitem__(self, index: int) -> Any:
        """Return the inputs and targets of a window, or a document."""
        row = place(index, len(self), WHAT)
        if self.documents:
            return self._document(row)
        inputs, targets = self._windows([row])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the samples of these indices."""
        rows = places(indices, len(self), WHAT)
        if self.documents:
            begins, lengths = self._places()
            self._fetch(begins[rows], lengths[rows])
            return list(self._table.spans(begins[rows], lengths[rows], rows))
        return list(zip(*self._windows(rows), strict=True))

    @property
    def read_batch(self) -> Callable[..., Any] | None:
        """Copy the windows of a batch into lent memory; None for documents, which have lengths of their own."""
        return None if self.documents else self._windows

    @property
    def read_part(self) -> Callable[..., Any] | None:
        """Copy a part of a document; None for windows."""
        return self._part if self.documents else None

    def _part(self, index: int, start: int, stop: int) -> Tokens:
        row = place(index, len(self), WHAT)
        begins, lengths = self._places()
        check_part(index, int(lengths[row]), start, stop)
        return self._table.span(int(begins[row]) + start, stop - start, row)

    @property
    def columns(self) -> Columns | None:
        """Inputs and targets; None for documents."""
        row = (np.dtype(np.int64), (self.length,))
        return None if self.documents else Columns((row, row))

    def where(self, index: int) -> str:
        """Return the file of a sample, and its first token there."""
        row = place(index, len(self), WHAT)
        begin = int(self._places()[0][row]) if self.documents else int(self._begins(np.array([row]))[0])
        name, token = self._table.place(begin)
        return f"{name}: token {token}"

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Return which ranges of objects behind URLs the samples of these keys need."""
        if not self._table.remote:
            return []
        rows = rows_of(keys, len(self))
        if self.documents:
            begins, lengths = self._places()
            return self._table.object_spans(begins[rows], lengths[rows])
        begins = self._begins(rows)
        return self._table.object_spans(begins, np.broadcast_to(np.int64(self.length + 1), begins.shape))

    def _fetch(self, begins: Tokens, lengths: Tokens) -> None:
        """Fetch these ranges of tokens, as far as they are behind URLs, by several requests at once."""
        if self._table.remote:
            fetch(self._table.object_spans(begins, lengths))

    def _windows(self, keys: Any, *, empty: Empty = np.empty) -> list[Tokens]:
        rows = rows_of(keys, len(self))
        shape, int64 = (len(rows), self.length), np.dtype(np.int64)
        inputs, targets, begins = empty(shape, int64), empty(shape, int64), self._begins(rows)
        self._fetch(begins, np.broadcast_to(np.int64(self.length + 1), begins.shape))
        self._table.windows(begins, inputs, targets, rows)
        count_tokens(inputs.size)
        return [inputs, targets]

    def _begins(self, rows: NDArray[np.int64]) -> Tokens:
        if len(self._first) == 2:
            return rows * self.stride
        part = np.searchsorted(self._first, rows, "right") - 1
        found: Tokens = self._table.ends[part] + (rows - self._first[part]) * self.stride
        return found

    def _document(self, row: int) -> Tokens:
        begins, lengths = self._places()
        return self._table.span(int(begins[row]), int(lengths[row]), row)

    def _places(self) -> tuple[Tokens, Tokens]:
        """Return where each document begins in the table, and its tokens."""
        if self._documents is None:
            if self._scanned is None:
                self._scanned = self._search(cast("int", self.separator))
            self._documents = self._chosen(*_joined(self._table, [(np.cumsum(n) - n, n) for n in self._scanned]))
        return self._documents

    def _chosen(self, begins: Tokens, lengths: Tokens, counts: list[int]) -> tuple[Tokens, Tokens]:
        if self._rows is not None:
            begins, lengths, counts = begins[self._rows], lengths[self._rows], [len(self._rows)]
        if not len(lengths):
            raise ArgumentError(
                "there are no documents", found=0, expected="at least one document", cure="Check the paths."
            )
        self._counts = counts
        return begins, lengths

    def _search(self, separator: int) -> list[Tokens]:
        found = at_once(lambda source: token_layouts.separated(source, separator), self._table.sources)
        if not any(count for _, count in found):
            raise ArgumentError(
                f"none of the {self.tokens:,} tokens is separator={separator}",
                found=separator,
                expected="the token between documents",
                cure="Pass the tokenizer's end-of-text token: 50256 for GPT-2.",
            )
        return [lengths for lengths, _ in found]


_MADE_AGAIN = ("_table", "_documents", "_counts", "_scanned", "_first")


def _fit(*, documents: bool, stride: int | None, separator: int | None) -> None:
    for name, value, wanted in (("stride", stride, False), ("separator", separator, True)):
        if value is not None and documents != wanted:
            raise ArgumentError(
                f"{name}={value} cannot be used with documents={documents}",
                found=value,
                expected=f"documents={wanted}",
                cure=f"Pass documents={wanted}, or leave {name} out.",
            )


def _dtype(given: DTypeLike | None) -> np.dtype[Any] | None:
    if given is None:
        return None
    try:
        dtype = np.dtype(given)
    except TypeError:
        dtype = np.dtype(bool)
    if dtype.kind in "iu":
        return dtype
    raise ArgumentError(
        f"dtype={shown(given)} is not an integer dtype",
        found=given,
        expected="the integer dtype of the tokens in the files",
        cure="Pass dtype=np.uint16 or another integer dtype.",
    )


def _check_dtype(dtype: np.dtype[Any] | None, sources: Sequence[TokenFile | NDArray[Any]]) -> None:
    """Raise for a dtype that no file needs, and that one contradicts."""
    if dtype is None or not all(isinstance(each, TokenFile) and each.says_dtype for each in sources):
        return
    for each in sources:
        if each.dtype != dtype and isinstance(each, TokenFile):
            raise ArgumentError(
                f"{each.path} holds {each.dtype}, and dtype={dtype} was given",
                found=str(dtype),
                expected=f"the dtype that the file says, {each.dtype}",
                cure="Leave dtype out: it is for files without a header.",
            )


def _found(paths: Any, field: str | None) -> tuple[list[Any], str | None, NDArray[np.int64] | None]:
    """Return the paths and arrays that were given, the column of tokens, and the rows of those of `datasets`."""
    if isinstance(paths, str | os.PathLike):
        return token_layouts.token_paths(shard_paths(paths, *token_layouts.SUFFIXES, urls=True)), field, None
    if isinstance(paths, ArrowDataset):
        return paths.shards, column_of(paths.shards[0], paths._types, field), None
    if any(kind.__module__.partition(".")[0] == "datasets" for kind in type(paths).__mro__):
        return _of_huggingface(paths, field)
    if not isinstance(paths, Iterable):
        raise ArgumentTypeError(
            f"paths is {kind_of(paths)}",
            found=paths,
            expected="a path, arrays, or a list of them",
            cure="Pass the path of a file of tokens.",
        )
    if hasattr(paths, "ndim") and paths.ndim < 2:
        return [_array(paths, 0)], field, None
    found = list[Any]()
    for number, each in enumerate(paths):
        if isinstance(each, str | os.PathLike):
            found += shard_paths(each, *token_layouts.SUFFIXES, urls=True)
        else:
            found.append(_array(each, number))
    if not found:
        raise ArgumentError("paths is empty", found="[]", expected="a path or an array", cure="Pass one or more.")
    if all(isinstance(each, str) for each in found):
        found = token_layouts.token_paths(found)
    return found, field, None


def _together(found: list[Any]) -> tuple[list[Any], NDArray[np.int64] | None]:
    """Return many arrays in memory as one, and their lengths; fewer, and files, as they are."""
    if len(found) < MANY or not all(isinstance(each, np.ndarray) and mapped_file(each) is None for each in found):
        return found, None
    dtype = np.result_type(*{each.dtype for each in found})
    if dtype.kind not in "iu":  # none holds all of them
        return found, None
    return [np.concatenate(found).astype(dtype, copy=False)], np.fromiter(map(len, found), np.int64, len(found))


def _of_huggingface(dataset: Any, field: str | None) -> tuple[list[Any], str, NDArray[np.int64] | None]:
    from headrace.datasets.huggingface import from_huggingface

    plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
    name = _huggingface_column(plain, field)
    column = from_huggingface(plain, fields=[name])._columns[name]
    return column.part.shards, column.name, column.rows


def _huggingface_column(dataset: Any, field: str | None) -> str:
    try:
        schema = dataset.data.schema
    except AttributeError:  # a dict of splits, or a stream: the reader says what to pass
        return field or "input_ids"
    kinds = {each.name: getattr(each.type, "value_type", None) for each in schema}
    found = [name for name, kind in kinds.items() if str(kind).lstrip("u").startswith("int")]
    return choose(found, {each.name: str(each.type) for each in schema}, field, "the datasets.Dataset")


def _array(given: Any, number: int) -> NDArray[Any]:
    try:
        array = np.asanyarray(given)
    except Exception as error:  # what a framework raises for arrays on a device
        raise ArgumentError(
            f"array {number} of tokens cannot be converted to NumPy: {error}",
            found=given,
            expected="one row of integers",
            cure="Convert it to a NumPy array first.",
        ) from error
    if array.ndim == 1 and not array.size and array.dtype == float:
        array = array.astype(np.int64)  # NumPy's dtype of an empty list
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ArgumentError(
            f"array {number} of tokens has the shape {array.shape} and holds {array.dtype}",
            found=f"{array.dtype} of shape {array.shape}",
            expected="one row of integers",
            cure="Pass a list of such arrays, or of paths.",
        )
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _as_file(array: NDArray[Any]) -> TokenFile | NDArray[Any]:
    """Return the file of an array that is mapped for reading, so that it is read as a file; any other as it is."""
    rows = mapped_rows(array)
    found = None if rows is None or rows.mode != "r" else rows.place()
    if rows is None or found is None:
        return array
    path, offset, dtype, _ = found
    return TokenFile.of(path, (rows.facts[0], rows.facts[3]), dtype, offset, len(array))


def _sent(array: NDArray[Any]) -> Any:
    rows = mapped_rows(array)
    return array if rows is None else Sent(array, rows)


def _refuse_known(sources: Sequence[TokenFile | NDArray[Any]], separator: int) -> None:
    for source in sources:
        if isinstance(source, TokenFile) and source.has_documents:
            raise ArgumentError(
                f"{source.path} already says where its documents are, but separator={separator} was given",
                found=separator,
                expected="no separator",
                cure="Leave separator out.",
            )


def _known(source: TokenFile | NDArray[Any]) -> tuple[Tokens, Tokens]:
    """Return the first token and the length of each document of a file; an array is one."""
    if not isinstance(source, TokenFile):
        return np.zeros(1, np.int64), np.array([len(source)], np.int64)
    if source.begins is None or source.lengths is None:
        raise ArgumentError(
            f"{source.path} does not say where its documents are",
            path=source.path,
            found=None,
            expected="the token that separates documents",
            cure="Pass separator=50256 for GPT-2's end-of-text token, or that of your tokenizer.",
        )
    return source.begins, source.lengths


def _joined(table: TokenTable, each: Sequence[tuple[Tokens, Tokens]]) -> tuple[Tokens, Tokens, list[int]]:
    """Return where all documents begin in a table, their lengths, and how many each source has."""
    begins = [begin + end for (begin, _), end in zip(each, table.ends.tolist(), strict=False)]
    return np.concatenate(begins), np.concatenate([n for _, n in each]), [len(n) for _, n in each]
