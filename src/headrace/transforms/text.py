"""Transforms of text and of tokens: tokenize, and fill in the middle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from headrace.checks import flag, fraction, integer, kind_of, shown
from headrace.errors import ArgumentError, ArgumentTypeError, BadFile, missing
from headrace.storage.files import read_file
from headrace.transforms.base import Transform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Tokenize(Transform):
    """Turn text into an array of token ids.

    >>> import numpy as np
    >>> from headrace import DataLoader
    >>> from headrace.collate import PaddedCollate
    >>> from headrace.datasets import Mapped
    >>> from headrace.transforms import Tokenize
    >>> words = {"a": 1, "little": 2, "text": 3}
    >>> texts = Mapped(["a little text", "a text"], Tokenize(lambda text: [words[word] for word in text.split()]))
    >>> for batch in DataLoader(texts, 2, collate_fn=PaddedCollate()):
    ...     print(batch)
    [[1 2 3]
     [1 3 0]]

    ``tokenizer`` is the path of a ``tokenizer.json``, a tokenizer of the ``tokenizers`` package, a fast tokenizer of
    ``transformers``, or a function of one text that returns its ids. A tokenizer of these packages encodes all texts
    of a batch in one call, without the GIL; in worker processes, one thread each. ``field`` is the key of the text, for
    samples that are mappings: its value becomes the ids. ``end`` is an id that is appended to each text, such as that
    of an end-of-text token. ``special`` lets the tokenizer add its own special tokens.

    The ids are an int64 array of shape (tokens,). A path is read when the transform is constructed. Raises
    `ArgumentError` for an unusable tokenizer, and `BadFile` for a file that is not one. A call raises
    `ArgumentTypeError` for a sample that is not text.
    """

    draws: ClassVar[bool] = False
    tokenizer: Any
    field: Any = None
    end: int | None = None
    special: bool = False
    _encodes: Any = dataclasses.field(default=None, init=False, repr=False, compare=False)
    """The tokenizer of the ``tokenizers`` package; None where it is a function."""

    def __post_init__(self) -> None:
        if self.end is not None:
            integer("end", self.end, least=0)
        object.__setattr__(self, "special", flag("special", self.special))
        found = self.tokenizer
        if isinstance(found, str | os.PathLike):
            found = _read(os.fspath(found))
        found = getattr(found, "backend_tokenizer", found)  # of a fast tokenizer of transformers
        if hasattr(found, "encode_batch"):
            object.__setattr__(self, "_encodes", found)
        elif not callable(found):
            raise ArgumentTypeError(
                f"Tokenize: tokenizer is {kind_of(found)}",
                found=found,
                expected="the path of a tokenizer.json, a tokenizer, or a function of one text",
                cure="Pass one of them.",
            )

    def apply(self, sample: Any, rng: Any) -> Any:  # noqa: ARG002  it draws nothing
        """Return the ids of one text."""
        text = self._text(sample)
        if self._encodes is None:
            return self._placed(sample, self.tokenizer(text))
        return self._placed(sample, self._encodes.encode(text, add_special_tokens=self.special).ids)

    def apply_many(self, samples: Sequence[Any]) -> list[Any] | None:
        """Return the ids of several texts, encoded in one call; None where the tokenizer is a function of one."""
        if self._encodes is None:
            return None
        texts = [self._text(sample) for sample in samples]
        # The faster method leaves out the offsets of characters, which nobody reads here.
        encode = getattr(self._encodes, "encode_batch_fast", self._encodes.encode_batch)
        found = encode(texts, add_special_tokens=self.special)
        return [self._placed(sample, each.ids) for sample, each in zip(samples, found, strict=True)]

    def _text(self, sample: Any) -> str:
        text = sample
        if self.field is not None:
            if not isinstance(sample, Mapping) or self.field not in sample:
                raise ArgumentTypeError(
                    f"Tokenize: the sample has no field {self.field!r}: {shown(sample)}",
                    found=sample,
                    expected=f"a mapping with the key {self.field!r}",
                    cure="Pass field=, the key of the text; leave it out if samples are the texts themselves.",
                )
            text = sample[self.field]
        if not isinstance(text, str):
            where = "" if self.field is None else f" at {self.field!r}"
            cure = "Pass field=, the key of the text." if isinstance(sample, dict) else "Decode bytes first, as UTF-8."
            raise ArgumentTypeError(
                f"Tokenize: the sample has {kind_of(text)}{where}", found=shown(text), expected="text (str)", cure=cure
            )
        return text

    def _placed(self, sample: Any, found: Any) -> Any:
        ids = _ids(found) if self.end is None else np.append(_ids(found), np.int64(self.end))
        return ids if self.field is None else {**sample, self.field: ids}


def _ids(found: Any) -> NDArray[np.int64]:
    ids = np.asarray(found)
    if ids.ndim != 1 or (ids.dtype.kind not in "iu" and len(ids)):
        raise ArgumentTypeError(
            f"Tokenize: the tokenizer returned {shown(found)}",
            found=found,
            expected="one list of token ids",
            cure="Return the ids alone: for a transformers tokenizer, pass the tokenizer itself.",
        )
    return ids.astype(np.int64)


def _read(path: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise missing("tokenizers", extra="text", purpose="reading a tokenizer.json") from error
    data = read_file(path, cure="Pass the path of a tokenizer.json, as tokenizer.save(path) writes it.")
    try:
        return Tokenizer.from_str(data.decode())
    except Exception as error:  # the package raises Exception itself
        raise BadFile(
            f"this is not a tokenizer: {error}",
            path=path,
            expected="a tokenizer.json of the tokenizers package",
            cure="Save one with tokenizer.save(path).",
        ) from error


@dataclass(frozen=True, slots=True)
class FillInTheMiddle(Transform):
    """Move the middle of a document to its end, so that a model learns to fill in the middle.

    >>> import numpy as np
    >>> from headrace.transforms import FillInTheMiddle
    >>> change = FillInTheMiddle(prefix=97, suffix=98, middle=99, rate=1, spm_rate=0)
    >>> change(np.arange(8), np.random.default_rng(6))
    array([97,  0,  1,  2, 98,  4,  5,  6,  7, 99,  3])

    Two cuts are drawn, uniform over the positions between tokens. A document becomes ``prefix`` id, its first part,
    ``suffix`` id, its last part, ``middle`` id, its middle (PSM). With probability ``spm_rate`` it becomes ``prefix``
    id, ``suffix`` id, last part, ``middle`` id, first part, middle (SPM). ``rate`` is the probability that a document
    is changed at all. Both orders are those of Bavarian et al., "Efficient training of language models to fill in the
    middle", 2022.

    The sample is an array of integers of shape (tokens,), or the pair (inputs, targets) of `TokenDataset`. A changed
    document is 3 tokens longer: add 3 to the lengths of a packing sampler. With ``keep_length`` its last 3
    tokens are dropped instead, and a document of fewer than 3 tokens does not change. A pair always keeps its length.
    Do not pack changed documents with ``longer="split"``: each part of one gets its own draw, and the parts do not fit.

    Raises `ArgumentError` for ids that are not integers from 0 up and for rates outside 0 to 1. A call raises it for a
    pair whose targets are not the inputs one token further, and `ArgumentTypeError` for other samples.
    """

    prefix: int
    suffix: int
    middle: int
    rate: float = 0.5
    spm_rate: float = 0.5
    keep_length: bool = False

    def __post_init__(self) -> None:
        for name in ("prefix", "suffix", "middle"):
            integer(name, getattr(self, name), least=0)
        fraction("rate", self.rate)
        fraction("spm_rate", self.spm_rate)
        object.__setattr__(self, "keep_length", flag("keep_length", self.keep_length))

    def apply(self, sample: Any, rng: np.random.Generator) -> Any:
        """Return the document in its new order."""
        if isinstance(sample, tuple | list):
            if len(sample) != 2 or not all(_is_tokens(part) and len(part) for part in sample):
                raise _no_tokens(sample)
            inputs, targets = sample
            if not np.array_equal(inputs[1:], targets[:-1]):
                raise _not_shifted(sample)
            whole = np.append(inputs, targets[-1])
            moved = self._moved(whole, rng, keep_length=True)
            pair = moved[:-1], moved[1:]
            return pair if isinstance(sample, tuple) else list(pair)
        if not _is_tokens(sample):
            raise _no_tokens(sample)
        return self._moved(sample, rng, keep_length=self.keep_length)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the two cuts and the order."""
        is_pair = not _is_tokens(sample)
        cuts = self._cuts(len(sample[0]) + 1 if is_pair else len(sample), rng, keep_length=is_pair or self.keep_length)
        return {"changed": False} if cuts is None else {"start": cuts[0], "stop": cuts[1], "order": cuts[2]}

    def _cuts(self, size: int, rng: np.random.Generator, *, keep_length: bool) -> tuple[int, int, str] | None:
        if rng.random() >= self.rate or (keep_length and size < 3):
            return None
        start, stop = sorted(rng.integers(0, size, 2, endpoint=True).tolist())
        return start, stop, "SPM" if rng.random() < self.spm_rate else "PSM"

    def _moved(self, tokens: NDArray[Any], rng: np.random.Generator, *, keep_length: bool) -> NDArray[Any]:
        self._check_ids(tokens.dtype)
        cuts = self._cuts(len(tokens), rng, keep_length=keep_length)
        if cuts is None:
            return tokens
        start, stop, order = cuts
        if keep_length:  # room for the three ids
            tokens = tokens[:-3]
        first, middle, last = tokens[:start], tokens[start:stop], tokens[stop:]
        parts: list[Any] = [[self.prefix], first, [self.suffix], last, [self.middle], middle]
        if order == "SPM":
            parts = [[self.prefix], [self.suffix], last, [self.middle], first, middle]
        return np.concatenate([np.asarray(part, tokens.dtype) for part in parts])

    def _check_ids(self, dtype: np.dtype[Any]) -> None:
        most = np.iinfo(dtype).max
        for name in ("prefix", "suffix", "middle"):
            if getattr(self, name) > most:
                raise ArgumentError(
                    f"FillInTheMiddle: {name}={getattr(self, name)} does not fit the tokens' dtype, {dtype}",
                    found=getattr(self, name),
                    expected=f"at most {most}",
                    cure="Convert the tokens to int64 first.",
                )


def _is_tokens(sample: Any) -> bool:
    return isinstance(sample, np.ndarray) and sample.ndim == 1 and sample.dtype.kind in "iu"


def _no_tokens(sample: Any) -> ArgumentTypeError:
    return ArgumentTypeError(
        f"FillInTheMiddle: the sample is {shown(sample)}",
        found=sample,
        expected="an array of integers with one axis, or a pair (inputs, targets) of them",
        cure="Apply it to the tokens, before other transforms.",
    )


def _not_shifted(sample: Any) -> ArgumentError:
    return ArgumentError(
        f"FillInTheMiddle: the targets are not the inputs one token further: {shown(sample)}",
        found=sample,
        expected="inputs and targets as TokenDataset gives them",
        cure="Apply it before transforms that change or mask targets.",
    )
