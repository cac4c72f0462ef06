"""What a batch keeps of its samples: every digit, mask, sign and key; or an error with the field's path."""

from __future__ import annotations

from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, namedtuple
from collections.abc import Iterator, MutableMapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader, default_collate
from headrace.collate import PackedCollate, PaddedCollate
from headrace.collate.default import default_convert
from headrace.errors import CollateError, CollateTypeError

HASH = 2**63 + 1
"""A 64-bit id that int64 does not hold, nor float64."""


@pytest.mark.parametrize(
    ("samples", "dtype"),
    [
        ([1, HASH], "u8"),
        ([HASH, 4], "u8"),
        ([2**64 - 1, True], "u8"),
        ([np.uint64(HASH), np.int64(3)], "u8"),
        ([np.uint64(7), -1], "i8"),
        ([True, 2], "i8"),
        ([True, 0.5], "f8"),
        ([2**53, 0.5], "f8"),
        ([np.float32(0.1), 0.1], "f8"),
        ([1, 2j], "c16"),
        ([np.datetime64("2026-01-01"), np.datetime64("2026-01-01T00:00:01")], "M8[s]"),
    ],
    ids=repr,
)
def test_numbers_of_several_kinds_keep_every_digit(samples: list[Any], dtype: str) -> None:
    """Choose the dtype that holds them all: uint64 where int64 does not."""
    batch = default_collate(samples)
    assert batch.dtype == np.dtype(dtype)
    assert all(value == sample for value, sample in zip(batch.tolist(), samples, strict=True) if dtype[0] != "M")
    assert all(value == sample for value, sample in zip(batch, samples, strict=True) if dtype[0] == "M")


@pytest.mark.parametrize(
    ("samples", "error"),
    [
        ([-1, HASH], CollateTypeError),
        ([1, 2**64], CollateTypeError),
        ([1, 10**5000], CollateTypeError),
        ([0.5, 2**53 + 1], CollateError),
        ([2**53 + 1, 0.5], CollateError),
        ([1j, 2**63 - 1], CollateError),
        ([np.float32(1), np.int64(2**53 + 1)], CollateError),
        ([np.timedelta64(5, "s"), 3], CollateTypeError),
        ([np.datetime64(10**12, "D"), np.datetime64(1, "ns")], CollateError),
        ([1.5, Decimal("0.1")], CollateTypeError),
        ([Fraction(1, 3)], CollateTypeError),
        ([np.zeros(2, "i8"), np.zeros(2, "U3")], CollateTypeError),
        ([np.zeros(2, "m8[s]"), np.zeros(2, "i8")], CollateTypeError),
        ([np.array([2**63 - 1]), np.array([0.5])], CollateError),
        ([np.array([-1]), np.array([HASH], "u8")], CollateTypeError),
        ([np.ma.array([1, 2], mask=[0, 1])] * 2, CollateTypeError),
        ([np.ma.array(np.zeros(9000), mask=np.ones(9000))] * 2, CollateTypeError),
        ([np.zeros(1, [("id", "i8")]), np.zeros(1, [("id", "f8")])], CollateTypeError),
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, list) else str(len(value)),
)
def test_what_no_dtype_holds_is_refused_with_the_path_of_its_field(samples: list[Any], error: type[Exception]) -> None:
    """Name the place in the sample, also through a loader that writes rows as they are made."""
    nested = [{"meta": {"v": sample}} for sample in samples]
    with pytest.raises(error, match=r"at sample\['meta'\]\['v'\]: "):
        default_collate(nested)
    with pytest.raises(error, match=r"at sample\['meta'\]\['v'\]: "):
        list(DataLoader(nested, len(nested)))


def test_unsigned_and_signed_arrays_stay_integers() -> None:
    """Give 64-bit integers for int64 beside uint64, which NumPy would make floats of."""
    batch = default_collate([np.array([1]), np.array([HASH], "u8")])
    assert (batch.dtype, batch.tolist()) == (np.dtype("u8"), [[1], [HASH]])
    assert default_collate([np.array([-1]), np.array([5], "u8")]).tolist() == [[-1], [5]]


def test_signs_of_zero_and_the_bits_of_nan_are_kept() -> None:
    """Copy floats as they are."""
    odd = np.array([0x7FF8000000000123, 0x8000000000000000], "u8").view("f8")
    assert default_collate([odd, odd]).tobytes() == odd.tobytes() * 2
    assert default_collate(list(odd)).tobytes() == odd.tobytes()
    assert np.signbit(default_collate([-0.0, 1])).tolist() == [True, False]


def test_records_and_strings_of_several_lengths_are_put_together() -> None:
    """Keep the names of fields, and the longest text."""
    records = np.array([(1, "a"), (HASH, "b")], [("id", "u8"), ("name", "U4")])
    assert default_collate(list(records)).tolist() == records.tolist()
    assert default_collate([np.array(["ab"]), np.array(["abcd"])]).tolist() == [["ab"], ["abcd"]]
    wider = default_collate([records[:1], np.array([(2, "longer")], [("id", "u8"), ("name", "U9")])])
    assert wider.tolist() == [[(1, "a")], [(2, "longer")]]


def test_padded_and_packed_lists_of_ids_keep_their_digits() -> None:
    """Hold lists of numbers to the same rule as numbers."""
    assert PaddedCollate()([[1, HASH], [3]]).tolist() == [[1, HASH], [3, 0]]
    assert PackedCollate(row_length=4)([[[1, HASH], [3]]])[0].tolist() == [[1, HASH, 3, 0]]
    with pytest.raises(CollateTypeError, match=r"at sample\['ids'\]"):
        PaddedCollate()([{"ids": [1, 2**70]}])
    with pytest.raises(CollateTypeError, match="mask"):
        PaddedCollate()([np.ma.array([1, 2], mask=[0, 1]), np.array([1])])


class Noisy(dict[str, Any]):
    """A mapping whose every method does something more."""

    calls = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        type(self).calls += 1
        super().__init__(*args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> None:
        type(self).calls += 1
        super().update(*args, **kwargs)

    def __setitem__(self, key: str, value: Any) -> None:
        type(self).calls += 1
        super().__setitem__(key.upper(), value)


class Ordered(OrderedDict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key + "!", value)


class Doubling(list[Any]):
    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(index, [value, value])


class Registered(UserDict[str, Any]):
    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, (value, "seen") if isinstance(value, np.ndarray) else value)


class Stored(MutableMapping[str, Any]):
    """Somebody's own mapping, over a dict of its own."""

    def __init__(self, items: dict[str, Any]) -> None:
        self._items = items

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._items[key] = value

    def __delitem__(self, key: str) -> None:
        del self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Adding(Stored):
    """One that does not keep what it is given."""

    def __setitem__(self, key: str, value: Any) -> None:
        self._items[key] = self._items.get(key, 0) + value


def test_counters_are_not_added_up() -> None:
    """Give each word's count in each sample, and a sample by itself as it was."""
    words = [Counter("aab"), Counter("abb")]
    batch = next(iter(DataLoader(words, 2)))
    assert type(batch) is Counter
    assert {key: counts.tolist() for key, counts in batch.items()} == {"a": [2, 1], "b": [1, 2]}
    assert dict(next(iter(DataLoader(words, None)))) == {"a": 2, "b": 1}
    assert words == [Counter("aab"), Counter("abb")]


def test_containers_are_made_without_their_own_methods() -> None:
    """Fill subclasses of Python's containers by Python's own methods; keep what they carry beside."""
    samples = [Noisy(a=1), Noisy(a=2)]
    samples[0].note = "kept"  # type: ignore[attr-defined]
    Noisy.calls = 0
    batch = default_collate(samples)
    assert (type(batch), Noisy.calls, batch.note, batch["a"].tolist()) == (Noisy, 0, "kept", [1, 2])
    assert list(default_collate([OrderedDict(b=1, a=2)])) == ["b", "a"]
    ordered = [Ordered(), Ordered()]
    for sample in ordered:
        OrderedDict.__setitem__(sample, "b", 1)
        OrderedDict.__setitem__(sample, "a", 2)
    assert [list(default_collate(ordered)), type(default_collate(ordered))] == [["b", "a"], Ordered]
    assert [column.tolist() for column in default_collate([Doubling([1, 2]), Doubling([3, 4])])] == [[1, 3], [2, 4]]
    registered = default_collate([Registered(a=1), Registered(a=2)])
    assert (type(registered), registered["a"].tolist()) == (Registered, [1, 2])
    factory = default_collate([defaultdict(list, a=1), defaultdict(list, a=2)])
    assert (factory.default_factory, factory["a"].tolist(), factory["new"]) == (list, [1, 2], [])
    assert type(default_collate([UserList([1]), UserList([2])])) is UserList


def test_named_tuples_are_made_without_their_own_constructor() -> None:
    """Keep the fields of one whose ``__new__`` computes them."""

    class Scaled(namedtuple("Scaled", "x y")):  # noqa: SLOT002
        def __new__(cls, x: Any, y: Any) -> Any:
            return super().__new__(cls, x * 10, y * 10)

    batch = default_collate([Scaled(1, 2), Scaled(3, 4)])
    assert (type(batch), batch.x.tolist(), batch.y.tolist()) == (Scaled, [10, 30], [20, 40])
    assert tuple(default_convert(Scaled(1, 2))) == (10, 20)


def test_a_mapping_of_ones_own_is_filled_apart_from_the_sample() -> None:
    """Leave the sample's own items alone, and give a dict where the kind does not keep what it is given."""
    samples = [Stored({"a": 1}), Stored({"a": 2})]
    for _ in range(2):
        batch = next(iter(DataLoader(samples, 2)))
        assert (type(batch), batch["a"].tolist()) == (Stored, [1, 2])
    adding = [Adding({"a": 1}), Adding({"a": 2})]
    for _ in range(2):
        added = next(iter(DataLoader(adding, 2)))
        assert (type(added), added["a"].tolist()) == (dict, [1, 2])


def test_errors_of_ones_own_functions_say_where_they_came() -> None:
    """Note the field's path, and keep the error's type."""

    class Mine:
        pass

    def fail(samples: Any, collate_fn_map: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError) as told:
        default_collate([{"a": [Mine()]}], collate_fn_map={Mine: fail})
    assert told.value.__notes__ == ["headrace: the error came at sample['a'][0]"]


def test_what_refuses_to_be_an_array_is_named() -> None:
    """Say which field, and what its own library said."""

    class Stubborn:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise RuntimeError("on another device")

    with pytest.raises(CollateTypeError, match=r"at sample\['meta'\]\['v'\]: sample 0 .*Stubborn.*on another device"):
        default_collate([{"meta": {"v": Stubborn()}}])
