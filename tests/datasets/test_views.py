"""Views by position and predicate: filter, take, skip, repeat, shard, zip and concat, of datasets and of streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace as hr
from headrace._native import extension
from headrace.datasets.iterable import MappedIterable
from headrace.datasets.protocol import batch_reader, columns, shard_lengths
from headrace.datasets.subset import Repetition

if TYPE_CHECKING:
    from collections.abc import Iterator


def rows(count: int = 10) -> hr.ArrayDataset:
    return hr.ArrayDataset(np.arange(count), np.arange(count) % 3)


def numbers(dataset: Any) -> list[int]:
    return [int(np.ravel(sample[0] if isinstance(sample, tuple) else sample)[0]) for sample in dataset]


@given(count=st.integers(0, 30), size=st.integers(0, 12), times=st.integers(1, 3), data=st.data())
def test_views_select_what_slices_select(count: int, size: int, times: int, data: st.DataObject) -> None:
    """Agree with lists, sample by sample and in whole batches."""
    listed = list(range(size))
    dataset = hr.ArrayDataset(np.arange(size))
    of = data.draw(st.integers(1, 5))
    index = data.draw(st.integers(0, of - 1))
    cases: list[tuple[Any, list[int]]] = [
        (dataset.take(count), listed[:count]),
        (dataset.skip(count), listed[count:]),
        (dataset.repeat(times), listed * times),
        (dataset.shard(index, of), listed[index::of]),
        (dataset.skip(2).take(count), listed[2:][:count]),
        (dataset.filter(lambda number: number % 2), listed[1::2]),
    ]
    for view, expected in cases:
        assert numbers(view) == expected
        assert len(view) == len(expected)
        keys = list(range(-len(expected), len(expected)))
        reader = batch_reader(view)
        assert reader is not None
        assert reader(keys, empty=np.empty).tolist() == [expected[key] for key in keys]


def test_a_repetition_is_a_sequence() -> None:
    """Index from both ends, slice, iterate, and turn into an array without holding one."""
    indices = Repetition(3, times=2)
    assert list(indices) == [0, 1, 2, 0, 1, 2] == indices[:]
    assert (indices[-1], indices[1:4]) == (2, [1, 2, 0])
    assert np.asarray(indices).tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(IndexError):
        indices[6]


def test_a_predicate_is_asked_once_for_each_sample() -> None:
    """Ask when the view is made, in order, and never again."""
    asked: list[int] = []

    def odd(sample: Any) -> bool:
        asked.append(int(sample[0]))
        return bool(sample[0] % 2)

    view = rows().filter(odd)
    assert asked == list(range(10))
    with hr.DataLoader(view, 2, shuffle=True, seed=0, num_workers=2) as loader:
        assert sorted(np.concatenate([batch[0] for batch in loader]).tolist()) == [1, 3, 5, 7, 9]
    assert len(asked) == 10


def test_a_filter_over_random_transforms_depends_on_the_data_alone() -> None:
    """Choose the same samples each time, whatever was drawn before."""
    noisy = hr.ArrayDataset(np.zeros(50)).map(lambda x, rng: x + rng.random())
    chosen = [noisy.filter(lambda x: x > 0.5).indices for _ in range(2)]  # type: ignore[attr-defined]
    assert chosen[0] == chosen[1]
    assert 0 < len(chosen[0]) < 50


def test_a_filtered_run_resumes() -> None:
    """Continue in the middle of an epoch of a filtered, repeated dataset, on other workers."""
    dataset = rows(30).filter(lambda label: label != 1, by="label").repeat(2).map(lambda s, rng: s[0] + rng.random())
    whole = [batch.tolist() for batch in hr.DataLoader(dataset, 4, shuffle=True, seed=5)]
    loader: Any = hr.DataLoader(dataset, 4, shuffle=True, seed=5)
    iterator = iter(loader)
    first = [next(iterator).tolist() for _ in range(3)]
    state = loader.state_dict()
    with hr.DataLoader(dataset, 4, shuffle=True, seed=5, num_workers=2) as resumed:
        resumed.load_state_dict(state)
        assert first + [batch.tolist() for batch in resumed] == whole


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: rows().filter(3), "filter: predicate is an int"),
        (lambda: rows().filter(bool, by="row"), "filter: by must be one of 'sample', 'label'; got 'row'"),
        (lambda: hr.ArrayDataset(np.zeros(3)).filter(bool, by="label"), "has no labels"),
        (lambda: rows().take(-1), "take: count must be an integer from 0 up; got -1"),
        (lambda: rows().skip(1.5), "skip: count must be an integer from 0 up; got 1.5"),
        (lambda: rows().repeat(0), "repeat: times must be an integer from 1 up; got 0"),
        (lambda: rows().repeat(None), "repeat: times must be an integer from 1 up; got None"),
        (lambda: rows().shard(3, 3), "shard: index must be an integer from 0 to 2; got 3"),
        (lambda: rows().shard("1", 3), "shard: index must be an integer from 0 to 2; got '1'"),
        (lambda: rows().zip([1]), "Size mismatch between datasets"),
    ],
)
def test_what_cannot_be_viewed_is_refused(ask: Any, message: str) -> None:
    """Say what was given, what was expected and what to do, when the view is made."""
    with pytest.raises(hr.errors.ArgumentError, match=message):
        ask()


def test_an_error_of_a_predicate_names_the_sample() -> None:
    """Add a note with the index, and the place where the dataset knows it."""

    class Placed(hr.ArrayDataset):
        def where(self, index: int) -> str:
            return f"row/{index}"

    with pytest.raises(ZeroDivisionError) as caught:
        Placed(np.arange(4)).filter(lambda number: 1 // int(number - 2))
    assert caught.value.__notes__ == ["headrace: filter: sample 2 (row/2)"]


def test_columns_and_shards_come_through_views() -> None:
    """Keep what describes batches and shards, as far as a view keeps their order."""
    a, b = rows(4), rows(6)
    both = a.concat(b)
    assert shard_lengths(both) == [4, 6]
    assert shard_lengths(both.take(7)) == [4, 3]
    assert shard_lengths(both.skip(5)) == [0, 5]
    assert shard_lengths(both.shard(0, 2)) == [2, 3]
    assert shard_lengths(both.repeat(2)) == [4, 6, 4, 6]
    assert shard_lengths(both.filter(lambda label: label == 0, by="label")) == [2, 2]
    assert shard_lengths(both.concat(a)) == [4, 6, 4]
    assert shard_lengths(both.map(str)) == [4, 6]
    assert shard_lengths(hr.Subset(both, [3, 1])) is None
    assert shard_lengths(a) is None
    sampler = hr.samplers.ShardSampler(shard_lengths(both.take(7)), window=1, seed=0)  # type: ignore[arg-type]
    assert sorted(sampler) == list(range(7))
    for view in (both.take(3), both.repeat(2), both.filter(lambda _: True), a.skip(1).concat(b)):
        assert columns(view) == columns(a)
    side = hr.ArrayDataset(np.zeros((4, 2))).zip(hr.ArrayDataset(np.arange(4)))
    found = columns(side)
    assert found is not None
    assert [shape for _, shape in found.rows] == [(2,), ()]


@pytest.mark.skipif(extension is None, reason="needs the native extension")
def test_the_native_path_comes_through_views() -> None:
    """Fuse transforms over any selection of images, and give what the steps give."""
    images = np.random.default_rng(0).integers(0, 256, (12, 20, 20, 3), np.uint8)
    base = hr.ArrayDataset(images)
    for view in (
        base.take(9),
        base.skip(2),
        base.shard(1, 3),
        base.repeat(2),
        base.filter(lambda image: image[0, 0, 0] > 99),
    ):
        quick = view.map(hr.RandomCrop(12), hr.RandomHorizontalFlip())
        assert hr.explain(quick).startswith("Mapped: all fused")
        slow = hr.datasets.Mapped(list(view), *quick.functions)  # type: ignore[attr-defined]
        both = [list(hr.DataLoader(each, 5, shuffle=True, seed=2)) for each in (quick, slow)]
        for ours, theirs in zip(*both, strict=True):
            np.testing.assert_array_equal(ours, theirs)


class Letters(hr.IterableDataset[str]):
    """A stream that starts again for each pass."""

    suits_threads = True  # read once, where worker processes would each read a copy

    def __init__(self, text: str) -> None:
        self.text = text

    def __iter__(self) -> Iterator[str]:
        return iter(self.text)

    def __len__(self) -> int:
        return len(self.text)


def test_streams_have_the_views_that_need_no_index() -> None:
    """Filter, cut, repeat, zip and chain what is read one after the other."""
    stream = Letters("abcdef")
    assert "".join(stream.filter(lambda letter: letter in "ace")) == "ace"
    assert "".join(stream.take(2)) == "ab"
    assert "".join(stream.skip(4)) == "ef"
    assert "".join(stream.take(2).repeat(2)) == "abab"
    assert "".join(stream.repeat().take(8)) == "abcdefab"
    assert list(stream.take(2).zip(range(9))) == [("a", 0), ("b", 1)]
    assert "".join(stream.concat(Letters("xy"))) == "abcdefxy"
    assert [len(view) for view in (stream.take(9), stream.skip(4), stream.repeat(2), stream.zip("ab"))] == [6, 2, 12, 2]
    with pytest.raises(TypeError, match="without an end has no len"):
        len(stream.repeat())


@pytest.mark.parametrize("workers", [{}, {"num_workers": 2}], ids=["inline", "threads"])
def test_views_of_streams_come_through_the_loader_and_resume(workers: dict[str, Any]) -> None:
    """Give the same batches on any workers, and continue from a state."""
    stream = Letters("abcdefghij").map(str.upper).repeat(2).skip(3).filter(lambda letter: letter != "E").take(12)
    loader: Any = hr.DataLoader(stream, 4, **workers)
    whole = list(loader)
    assert "".join(letter for batch in whole for letter in batch) == "DFGHIJABCDFG"
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    iterator.close()
    resumed: Any = hr.DataLoader(stream, 4, **workers)
    resumed.load_state_dict(state)
    assert list(resumed) == whole[1:]


def test_a_stream_that_can_be_read_once_is_not_repeated_in_silence() -> None:
    """Refuse the second pass over a generator."""
    view = MappedIterable(letter for letter in "abc")
    with pytest.raises(TypeError, match="can be read only once"):
        list(view.repeat(2))
    spent = MappedIterable(letter for letter in "abc").filter(lambda _: True)
    assert list(spent) == ["a", "b", "c"]
    with pytest.raises(TypeError, match="can be read only once"):
        list(spent)


def test_what_a_stream_cannot_do_is_refused() -> None:
    """Say what to do in place of dividing a stream, and of asking for its labels."""
    with pytest.raises(TypeError, match="get_worker_info"):
        Letters("ab").shard(0, 2)
    with pytest.raises(hr.errors.ArgumentError, match="pass a predicate of the sample"):
        Letters("ab").filter(bool, by="label")
    with pytest.raises(TypeError, match="cannot be iterated over"):
        Letters("ab").zip(3)


@pytest.mark.skipif(extension is None, reason="needs the native extension")
def test_transforms_over_datasets_end_to_end_are_fused_in_each() -> None:
    """Fuse what is mapped after putting datasets together, and a selection of it; give what the steps give."""
    generator = np.random.default_rng(0)
    a, b = (hr.ArrayDataset(generator.integers(0, 256, (7, size, size, 3), np.uint8)) for size in (20, 24))
    for base in (a.concat(b), a.concat(b).shard(0, 2), a.concat(b).skip(3).repeat(2)):
        for functions in ((hr.RandomCrop(12), hr.RandomHorizontalFlip()), (hr.RandomCrop(12), np.negative)):
            quick = base.map(*functions)
            assert "RandomCrop" in hr.explain(quick)
            assert "fused" in hr.explain(quick)
            slow = hr.datasets.Mapped(list(base), *functions)
            both = [list(hr.DataLoader(each, 5, shuffle=True, seed=2)) for each in (quick, slow)]
            for ours, theirs in zip(*both, strict=True):
                np.testing.assert_array_equal(ours, theirs)
            loader = hr.DataLoader(quick, 5, shuffle=True, seed=2)
            np.testing.assert_array_equal(loader.lineage(epoch=0, step=1, index=1).sample, both[0][1][1])
