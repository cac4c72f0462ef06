"""One's own types in a batch; and samples that are passed through without one."""

from __future__ import annotations

from collections import OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader, default_collate
from headrace.collate.default import collate, default_collate_fn_map, default_convert
from headrace.collate.register import register_collate
from headrace.errors import ArgumentError, CollateError, CollateTypeError

Point = namedtuple("Point", "x y")


@dataclass
class Box:
    corner: np.ndarray
    label: Any


class SmallBox(Box):
    pass


class Frozen(Sequence[Any]):
    """A sequence that is made from one and cannot be changed."""

    def __init__(self, items: Any) -> None:
        self.items = tuple(items)

    def __getitem__(self, index: Any) -> Any:
        return self.items[index]

    def __len__(self) -> int:
        return len(self.items)


def boxes(batch: Any, *, collate_fn_map: Any) -> Box:
    return Box(
        collate([box.corner for box in batch], collate_fn_map=collate_fn_map),
        collate([box.label for box in batch], collate_fn_map=collate_fn_map),
    )


def named(name: str) -> Any:
    return lambda batch, collate_fn_map: name


def test_a_type_of_ones_own_is_collated_anywhere_in_a_sample() -> None:
    """Find it at any depth; leave everything else to the defaults; take subclasses too."""
    samples = [{"boxes": (Box(np.full(2, n), n), SmallBox(np.zeros(1), n)), "n": n} for n in range(3)]
    batch = default_collate(samples, collate_fn_map={Box: boxes})
    assert batch["boxes"][0].corner.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert batch["boxes"][1].label.tolist() == [0, 1, 2]
    assert batch["n"].tolist() == [0, 1, 2]
    with pytest.raises(
        CollateTypeError, match=r"at sample\['boxes'\]\[0\]: samples of type .*Box cannot .* collate_fn_map"
    ):
        default_collate(samples)


def test_a_mapping_of_types_goes_to_a_loader_with_partial() -> None:
    """Register nothing anywhere: give the mapping to the collate function, on threads too."""
    loader = DataLoader(
        [Box(np.full(2, n), n) for n in range(4)],  # type: ignore[arg-type]
        2,
        collate_fn=partial(default_collate, collate_fn_map={Box: boxes}),
        num_workers=2,
    )
    assert [batch.label.tolist() for batch in loader] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("function", [collate, default_collate])
def test_the_very_type_goes_before_those_it_is_an_instance_of(function: Any) -> None:
    """Look a type up exactly first, then among the keys in their order; a key may be a tuple of types."""
    both = {Box: named("box"), SmallBox: named("small box"), (str, bytes): named("text"), object: named("anything")}
    box, small = Box(np.zeros(1), 0), SmallBox(np.zeros(1), 0)
    assert function([small, box], collate_fn_map=both) == "small box"
    assert function([box, small], collate_fn_map=both) == "box"
    assert function([None], collate_fn_map=both) == "anything"
    assert function([small], collate_fn_map={object: named("anything"), Box: named("box")}) == "anything"
    assert function([small], collate_fn_map={(int, Box): named("box")}) == "box"


def test_ones_own_functions_come_before_those_for_leaves_and_containers() -> None:
    """Replace what becomes of arrays, numbers, text, dicts and tuples."""
    for sample, kind in [(np.zeros(2), np.ndarray), (1, int), (True, int), ("a", str), ({}, dict), ((), tuple)]:
        assert default_collate([sample], collate_fn_map={kind: named("mine")}) == "mine"
    # A leaf's very type is known already: a wider key does not take it away.
    assert default_collate([1], collate_fn_map={object: named("mine")}).tolist() == [1]


def test_collate_alone_knows_containers_only() -> None:
    """Refuse leaves that the mapping has no function for; take the default ones from where they are."""
    with pytest.raises(CollateTypeError, match=r"at sample\[1\]: samples of type int"):
        collate([("a", 1)], collate_fn_map={str: default_collate_fn_map[str]})
    batch = collate([("a", 1), ("b", 2)], collate_fn_map={**default_collate_fn_map, str: named("text")})
    assert (batch[0], batch[1].tolist()) == ("text", [1, 2])
    with pytest.raises(CollateTypeError):
        collate([np.zeros(1)])
    with pytest.raises(CollateError, match="at least one"):
        collate([])


def test_the_default_functions_cannot_be_changed_for_all() -> None:
    """Keep one program's types out of another's batches."""
    with pytest.raises(TypeError):
        default_collate_fn_map[Box] = boxes  # type: ignore[index]


class Sound:
    """A type that is registered for all loaders."""

    def __init__(self, values: Any) -> None:
        self.values = values


class Speech(Sound):
    """Collated as what it derives from."""


register_collate(Sound, lambda samples, collate_fn_map: ("sounds", [sound.values for sound in samples]))


def test_a_registered_type_is_collated_by_every_loader() -> None:
    """Find the function at any depth, for subclasses too; one given to a single loader comes first."""
    samples = [{"sound": Sound(n), "more": [Speech(n), n]} for n in range(3)]
    for how in ({}, {"num_workers": 2, "backend": "threads"}):
        (batch,) = DataLoader(samples, 3, **how)
        assert batch["sound"] == ("sounds", [0, 1, 2])
        assert batch["more"][0] == ("sounds", [0, 1, 2])
    assert default_collate(samples, collate_fn_map={Sound: named("mine")})["sound"] == "mine"


@register_collate
@dataclass(frozen=True, slots=True)
class Photo:
    """A sample whose batch is one of its own kind."""

    image: np.ndarray
    label: int
    name: str = "a"

    def __post_init__(self) -> None:
        assert self.image.ndim == 2


class Photos:
    """Samples that are made anew each time."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Photo:
        return Photo(np.full((3, 5), index), index)


@pytest.mark.parametrize(
    "how", [{}, {"num_workers": 2, "backend": "threads"}, {"num_workers": 1, "backend": "processes"}]
)
def test_a_registered_dataclass_is_collated_by_its_fields(how: Any) -> None:
    """Give a batch of the same type, on any worker; its checks are of one sample."""
    batches: list[Any] = list(DataLoader(Photos(), 2, **how))
    for number, batch in enumerate(batches):
        assert type(batch) is Photo
        np.testing.assert_array_equal(batch.image[:, 0, 0], [2 * number, 2 * number + 1])
        assert (batch.label.tolist(), batch.name) == ([2 * number, 2 * number + 1], ["a", "a"])


@pytest.mark.parametrize(
    ("kind", "function", "words"),
    [
        (Sound, None, "function must be callable; got None"),
        ("Sound", named("x"), "kind must be a type; got 'Sound'"),
        (bool, named("x"), "bool has a default"),
        (Sound, 3, "function must be callable"),
    ],
)
def test_what_cannot_be_registered_is_refused(kind: Any, function: Any, words: str) -> None:
    """Name the argument, and keep the defaults of NumPy's and Python's types."""
    with pytest.raises(ArgumentError, match=words):
        register_collate(kind, function)


def test_lent_memory_reaches_through_ones_own_functions() -> None:
    """Write what is collated inside them into the batch's memory as well."""
    lent: list[np.ndarray] = []

    def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        lent.append(np.empty(shape, dtype))
        return lent[-1]

    batch = default_collate([(Box(np.zeros(3), np.ones(2)),)] * 2, empty=empty, collate_fn_map={Box: boxes})
    assert batch[0].corner is lent[0]
    assert batch[0].label is lent[1]


def test_an_error_inside_ones_own_function_tells_the_place() -> None:
    """Say where in the sample, beyond the type that is not ours."""
    samples = [{"box": Box(np.zeros(n + 1), n)} for n in range(2)]
    with pytest.raises(CollateError, match=r"at sample\['box'\]: samples 0 and 1 of the batch differ in shape"):
        default_collate(samples, collate_fn_map={Box: boxes})


def test_containers_keep_their_type_where_they_can_be_made_again() -> None:
    """Copy what can be changed, make what is made from a sequence or mapping, else give a list or dict."""
    assert type(default_collate([Frozen([1, 2]), Frozen([3, 4])])) is Frozen
    assert type(default_collate([deque([1, 2]), deque([3, 4])])) is deque
    assert type(default_collate([UserDict(a=1), UserDict(a=2)])) is UserDict
    assert type(default_collate([memoryview(b"ab"), memoryview(b"cd")])) is list

    class Stubborn(UserDict[str, int]):
        def __init__(self) -> None:
            self.data = {"a": 1}

    assert type(default_collate([Stubborn(), Stubborn()])) is Stubborn


def test_an_array_of_strings_is_a_batch_already() -> None:
    """Leave a batch of NumPy's strings as it is."""
    strings = np.array(["a", "b", "c"])
    assert default_collate(strings) is strings
    with pytest.raises(CollateTypeError):
        default_collate(np.array([object(), object()]))


def test_a_sample_passed_through_has_arrays_for_leaves_of_numpys() -> None:
    """Turn NumPy's scalars into arrays; leave arrays, numbers, text and all other things as they are."""
    array, thing, text = np.zeros(3), object(), np.array(["a"])
    for leaf in (array, thing, text, 1, 1.5, "text", b"bytes", None, True, np.str_("a"), np.bytes_(b"a")):
        assert default_convert(leaf) is leaf
    for scalar in (np.float32(1.5), np.int8(3), np.bool_(True), np.datetime64("2026-01-01")):  # noqa: FBT003
        converted = default_convert(scalar)
        assert (type(converted), converted.shape, converted.dtype) == (np.ndarray, (), scalar.dtype)
        assert converted == scalar


def test_a_sample_passed_through_has_new_containers() -> None:
    """Walk into containers by the rules of a batch: tuples become lists, others keep their type; nothing is changed."""
    sample = {"a": (1, np.float64(2)), "b": [np.float64(3)]}
    converted = default_convert(sample)
    assert converted == {"a": [1, 2.0], "b": [3.0]}
    assert type(converted["b"][0]) is np.ndarray
    assert type(sample["b"][0]) is np.float64
    assert converted["b"] is not sample["b"]
    assert default_convert(Point(np.float64(1), (2,))) == Point(1.0, [2])
    assert type(default_convert(Point(1, 2))) is Point
    for kept in (
        OrderedDict(a=1),
        UserList([1, 2]),
        deque([1]),
        MappingProxyType({"a": 1}),
        defaultdict(int, a=1),
        Frozen([1]),
    ):
        assert type(default_convert(kept)) is type(kept)
    assert default_convert(range(2)) == [0, 1]
