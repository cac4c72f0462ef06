"""Text to tokens, and the middle of a document moved to its end."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import DataLoader
from headrace.collate import PaddedCollate
from headrace.datasets import Mapped
from headrace.errors import ArgumentError, ArgumentTypeError, BadFile, SampleError
from headrace.testing import TransformTests
from headrace.transforms import FillInTheMiddle, Tokenize

WORDS = {"<unk>": 0, "a": 1, "little": 2, "text": 3, "<end>": 4}
TEXTS = ["a little text", "a text", "", "little little little a"] * 3
IDS = [[1, 2, 3], [1, 3], [], [2, 2, 2, 1]] * 3


def by_words(text: str) -> list[int]:
    return [WORDS[word] for word in text.split()]


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a tokenizer by words, as its package does."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 4)])
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


class TestTokenizeByAFunction(TransformTests):
    """The suite of transforms, for a function of one text."""

    def make(self) -> Any:
        """Return one that ends each text."""
        return Tokenize(by_words, end=4)

    def samples(self) -> list[Any]:
        """Return texts."""
        return list(TEXTS)


class TestTokenizeByAFile(TransformTests):
    """The suite of transforms, for a tokenizer that encodes many texts at once."""

    @pytest.fixture(autouse=True)
    def _file(self, tokenizer_file: Path) -> None:
        self.file = tokenizer_file

    def make(self) -> Any:
        """Return one for a field of a mapping."""
        return Tokenize(self.file, field="text")

    def samples(self) -> list[Any]:
        """Return mappings with texts."""
        return [{"text": text, "number": number} for number, text in enumerate(TEXTS)]

    @pytest.mark.parametrize("options", [{}, {"num_workers": 2, "backend": "threads"}, {"num_workers": 2}])
    def test_the_ids_are_those_of_the_tokenizer(self, options: dict[str, Any]) -> None:
        """Keep the other fields, and have int64 ids, with special tokens only where asked for."""
        found = self.transformed(self.make(), **options)
        assert [each["text"].tolist() for each in found] == IDS
        assert [each["number"] for each in found] == list(range(len(TEXTS)))
        assert all(each["text"].dtype == np.int64 for each in found)
        special = self.transformed(Tokenize(self.file, field="text", special=True), **options)
        assert [each["text"].tolist() for each in special] == [[*ids, 4] for ids in IDS]

    def test_a_tokenizer_is_taken_as_an_object_too(self) -> None:
        """Give the ids of its file."""
        import tokenizers

        made = Tokenize(tokenizers.Tokenizer.from_file(str(self.file)), end=4)
        assert [made(text).tolist() for text in TEXTS] == [[*ids, 4] for ids in IDS]


def test_texts_are_encoded_a_batch_at_a_time() -> None:
    """Call the tokenizer once for each batch; alone, and where a text is bad, one by one."""
    calls: list[int] = []

    class Counting:
        """A tokenizer with the methods of the package's."""

        def encode_batch(self, texts: list[str], add_special_tokens: bool = True) -> list[Any]:
            assert not add_special_tokens
            calls.append(len(texts))
            return [self.encode(text) for text in texts]

        def encode(self, text: str, add_special_tokens: bool = True) -> Any:
            return type("Encoding", (), {"ids": by_words(text)})()

    texts: Any = Mapped(TEXTS, Tokenize(Counting()), lambda ids: ids[:2])
    batches = list(DataLoader(texts, 4, collate_fn=list))
    assert calls == [4, 4, 4]
    assert [ids.tolist() for batch in batches for ids in batch] == [ids[:2] for ids in IDS]
    assert texts[0].tolist() == [1, 2]
    bad: Any = Mapped([*TEXTS[:2], b"bytes", *TEXTS[3:]], Tokenize(Counting()))
    with pytest.raises(ArgumentTypeError, match="Decode bytes first") as caught:
        list(DataLoader(bad, 4, collate_fn=list))
    assert any("sample 2" in note for note in caught.value.__notes__)
    kept = DataLoader(bad, 4, collate_fn=PaddedCollate(), on_error="skip")
    assert sum(map(len, kept)) == len(TEXTS) - 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Tokenize(3), "tokenizer is an int"),
        (lambda: Tokenize(by_words, end=-1), "end must be"),
        (lambda: Tokenize(by_words, special="no"), "special"),
        (lambda: Tokenize(lambda _: [0.5])("a"), "the tokenizer returned"),
        (lambda: Tokenize(lambda _: {"input_ids": [1]})("a"), "the tokenizer returned"),
        (lambda: Tokenize(by_words)({"text": "a"}), "Pass field=, the key of the text"),
        (lambda: Tokenize(by_words, field="text")({"text": 5}), "at 'text'"),
        (lambda: Tokenize(by_words, field="text")({"content": "a"}), "the sample has no field 'text'"),
        (lambda: Tokenize(by_words, field="text")("a"), "the sample has no field 'text': 'a'"),
    ],
)
def test_what_cannot_be_tokenized_is_refused(make: Any, says: str) -> None:
    """Say what was found, and what to do."""
    with pytest.raises(ArgumentError, match=says):
        make()


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    """Name the path of a missing file, of other text, of bytes, and of what is no file."""
    pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    with pytest.raises(SampleError, match=r"tokenizer\.json"):
        Tokenize(path)
    for data in (b"", b"{}", b"\xff\xfe", b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(BadFile, match=r"tokenizer\.json"):
            Tokenize(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SampleError, match=r"tokenizer\.json"):
        Tokenize(path)


class TestFillInTheMiddle(TransformTests):
    """The suite of transforms, for documents."""

    def make(self) -> Any:
        """Return one that changes most documents, in both orders."""
        return FillInTheMiddle(997, 998, 999, rate=0.8)

    def samples(self) -> list[Any]:
        """Return documents of several lengths."""
        return [np.arange(length) for length in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144)]


class TestFillInTheMiddleOfPairs(TestFillInTheMiddle):
    """The suite of transforms, for inputs and targets."""

    def samples(self) -> list[Any]:
        """Return windows of several lengths."""
        return [(np.arange(length), np.arange(1, length + 1)) for length in range(1, 13)]


@given(size=st.integers(0, 40), seed=st.integers(0, 999), spm=st.booleans(), keep=st.booleans())
def test_a_document_is_put_together_again_from_its_parts(size: int, seed: int, spm: bool, keep: bool) -> None:
    """Find each part behind its id, and nothing else; with the length kept, all but the last tokens."""
    tokens = np.arange(size, dtype=np.uint16)
    change = FillInTheMiddle(997, 998, 999, rate=1, spm_rate=float(spm), keep_length=keep)
    found = change(tokens, np.random.default_rng(seed))
    assert found.dtype == np.uint16
    assert tokens.tolist() == list(range(size))
    if keep and size < 3:
        assert found.tolist() == tokens.tolist()
        return
    marks = {mark: found.tolist().index(mark) for mark in (997, 998, 999)}
    drawn = change.drawn(tokens, np.random.default_rng(seed))
    behind = [found[marks[997] + 1 : marks[998]], found[marks[998] + 1 : marks[999]], found[marks[999] + 1 :]]
    assert marks[997] == 0
    assert drawn["order"] == ("SPM" if spm else "PSM")
    if spm:
        assert not len(behind[0])
        first = behind[2][: drawn["start"]]
        parts = [first, behind[2][len(first) :], behind[1]]
    else:
        parts = [behind[0], behind[2], behind[1]]
    whole = np.concatenate(parts).tolist()
    if not keep:
        assert [len(part) for part in parts[:2]] == [drawn["start"], drawn["stop"] - drawn["start"]]
        assert whole == list(range(size))
    else:
        assert len(found) == size
        assert whole == list(range(size - 3))


def test_a_window_keeps_its_shape_and_its_shift() -> None:
    """Change the tokens of inputs and targets together."""
    inputs, targets = FillInTheMiddle(97, 98, 99, rate=1)((np.arange(16), np.arange(1, 17)), np.random.default_rng(3))
    assert inputs.shape == targets.shape == (16,)
    assert inputs[1:].tolist() == targets[:-1].tolist()
    assert inputs[0] == 97


def test_the_rates_say_how_many_documents_change() -> None:
    """Change about that part, and about that part of them to SPM."""
    change = FillInTheMiddle(97, 98, 99, rate=0.3, spm_rate=0.25)
    drawn = [change.drawn(np.arange(50), np.random.default_rng(seed)) for seed in range(4000)]
    orders = [each["order"] for each in drawn if "order" in each]
    assert 0.27 < len(orders) / len(drawn) < 0.33
    assert 0.21 < orders.count("SPM") / len(orders) < 0.29


@pytest.mark.parametrize("sample", [np.arange(2), (np.arange(1), np.arange(1, 2))])
def test_a_document_that_is_too_short_is_drawn_as_unchanged(sample: Any) -> None:
    """Say of a document without room for three ids what happens to it: nothing."""
    change = FillInTheMiddle(97, 98, 99, rate=1, keep_length=True)
    found = change(sample, np.random.default_rng(0))
    assert np.array_equal(found, sample)
    assert change.drawn(sample, np.random.default_rng(0)) == {"changed": False}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FillInTheMiddle(-1, 2, 3), "prefix"),
        (lambda: FillInTheMiddle(1, 2, 3, rate=1.5), "rate"),
        (lambda: FillInTheMiddle(1, 2, 3, spm_rate=float("nan")), "spm_rate"),
        (lambda: FillInTheMiddle(1, 2, 300)(np.zeros(4, np.uint8)), "does not fit"),
        (lambda: FillInTheMiddle(1, 2, 3)(np.zeros(4)), "an array of integers"),
        (lambda: FillInTheMiddle(1, 2, 3)(np.zeros((2, 2), int)), "an array of integers"),
        (lambda: FillInTheMiddle(1, 2, 3)("text"), "an array of integers"),
        (lambda: FillInTheMiddle(1, 2, 3)((np.arange(3), 4)), "an array of integers"),
        (lambda: FillInTheMiddle(1, 2, 3)((np.arange(3), np.arange(1, 6))), "not the inputs one token further"),
        (lambda: FillInTheMiddle(1, 2, 3)((np.arange(3), np.array([-100, 2, 3]))), "not the inputs one token further"),
    ],
)
def test_what_has_no_middle_is_refused(make: Any, says: str) -> None:
    """Say what was found, and what to do."""
    with pytest.raises(ArgumentError, match=says):
        make()
