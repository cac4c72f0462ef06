"""The same samples collated by torch and by us: the same containers, values, dtypes and errors."""

from __future__ import annotations

from collections import OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from headrace import default_collate  # noqa: E402
from headrace.collate.padded import PaddedCollate  # noqa: E402
from headrace.errors import CollateError  # noqa: E402
from tests.parity.both import OURS, outcome, same, theirs  # noqa: E402

Point = namedtuple("Point", "x y")


class Items(list[Any]):
    pass


class Record(dict[str, Any]):
    pass


KINDS: dict[str, Any] = {
    "int": st.integers(-(2**40), 2**40),
    "bool": st.booleans(),
    "float": st.floats(-1e9, 1e9),
    "text": st.text(max_size=3),
    "bytes": st.binary(max_size=3),
    "np.float32": st.builds(np.float32, st.integers(-9, 9)),
    "np.int16": st.builds(np.int16, st.integers(-9, 9)),
    "np.bool": st.builds(np.bool_, st.booleans()),
    "array u1": st.builds(lambda n: np.full((2, 3), n, np.uint8), st.integers(0, 9)),
    "array f8": st.builds(lambda n: np.full(4, n, np.float64), st.integers(0, 9)),
    "array 0-d": st.builds(np.array, st.integers(0, 9)),
    "array none": st.builds(lambda n: np.empty((0, 2)), st.none()),
}
CONTAINERS: dict[str, Any] = {
    "tuple": tuple,
    "list": list,
    "items": Items,
    "user list": UserList,
    "deque": deque,
    "dict": lambda items: {str(n): item for n, item in enumerate(items)},
    "ordered": lambda items: OrderedDict((n, item) for n, item in enumerate(items)),
    "record": lambda items: Record((str(n), item) for n, item in enumerate(items)),
    "user dict": lambda items: UserDict(dict(enumerate(items))),
    "default": lambda items: defaultdict(list, enumerate(items)),
    "frozen": lambda items: MappingProxyType({str(n): item for n, item in enumerate(items)}),
    "point": lambda items: Point(items[0], items[-1]),
}

shapes = st.recursive(
    st.sampled_from(sorted(KINDS)),
    lambda inner: st.tuples(st.sampled_from(sorted(CONTAINERS)), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=5,
)


def sample(shape: Any, draw: Any) -> Any:
    if isinstance(shape, str):
        return draw(KINDS[shape])
    name, items = shape
    return CONTAINERS[name]([sample(item, draw) for item in items])


def common(value: Any) -> Any:
    """Make containers of both libraries comparable; a column of text is a list here, and in torch often a tuple."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return str(value.dtype), value.shape, value.tolist()
    if isinstance(value, UserDict | MappingProxyType | dict):
        return type(value).__name__, [(key, common(item)) for key, item in value.items()]
    if isinstance(value, tuple) and all(isinstance(item, str | bytes) for item in value) and not hasattr(value, "x"):
        value = list(value)
    if isinstance(value, list | tuple | UserList | deque):
        return type(value).__name__, [common(item) for item in value]
    return type(value).__name__, value


@given(data=st.data(), shape=shapes, count=st.integers(1, 4))
def test_nested_samples_collate_the_same(data: st.DataObject, shape: Any, count: int) -> None:
    """Nest containers of a dozen types around leaves of a dozen kinds."""
    samples = [sample(shape, data.draw) for _ in range(count)]
    same(lambda lib: common(lib.default_collate(samples)))
    same(lambda lib: common(lib.collate(samples, collate_fn_map=lib.default_collate_fn_map)))


@given(data=st.data(), shape=shapes)
def test_nested_samples_convert_the_same(data: st.DataObject, shape: Any) -> None:
    """Pass a sample through without a batch: the same containers, arrays where torch has tensors."""
    one = sample(shape, data.draw)
    same(lambda lib: common(lib.default_convert(one)))


@pytest.mark.parametrize(
    "samples",
    [
        [None],
        [object()],
        [{1, 2}],
        [("X",), ("X", "X")],
        [["X", "X"], ["X"]],
        [np.zeros(2), np.zeros(3)],
        [np.zeros((1, 2)), np.zeros(1)],
        [{"a": 1, "b": 2}, {"a": 1}],
        [{"a": [1]}, {"a": [1, 2]}],
        [np.array([object()])],
        [1, "a"],
        [1.5, None],
        ["a", 1],
        [range(2), range(2)],
        [[], []],
        [{}, {}],
        np.array(["a", "b"]),
        np.array([object(), object()]),
        np.arange(6).reshape(3, 2),
        [True, False],
        [np.float16(1), np.float16(2)],
        [1.1, 2.3, -0.9],
    ],
    ids=str,
)
def test_odd_batches_are_taken_or_refused_alike(samples: Any) -> None:
    """Give the same result; or an error, of a kind that says as much."""
    expected, their_error, _ = outcome(lambda lib: common(lib.default_collate(samples)), theirs(), 0)
    result, our_error, _ = outcome(lambda lib: common(lib.default_collate(samples)), OURS, 0)
    assert (our_error is None) == (their_error is None), (our_error, their_error)
    assert result == expected
    if their_error is not None and our_error is not None:
        # A dict's missing key is a KeyError there, and here as much a CollateError as everything that does not fit.
        assert issubclass(our_error, their_error) or issubclass(our_error, CollateError)


def test_what_differs_knowingly() -> None:
    """Refuse an extra key rather than drop it; keep float64 for an int beside a float; stack text."""
    extra = [{"a": 1}, {"a": 2, "b": 3}]
    assert list(theirs().default_collate(extra)) == ["a"]
    with pytest.raises(CollateError, match="differ in their keys"):
        default_collate(extra)
    assert theirs().default_collate([1, 2.5]).dtype == torch.float32
    assert default_collate([1, 2.5]).dtype == np.float64
    with pytest.raises(TypeError):
        theirs().default_collate([np.array(["a"])])
    assert default_collate([np.array(["a"])]).tolist() == [["a"]]
    assert default_collate([1j]).tolist() == [1j]


class Own:
    def __init__(self, value: int) -> None:
        self.value = value


class Derived(Own):
    pass


@given(
    kinds=st.permutations([Own, Derived, object, (int, Derived), (str, Own)]),
    of=st.sampled_from([Own, Derived]),
    taken=st.integers(0, 5),
)
def test_the_registry_is_searched_in_the_same_order(kinds: list[Any], of: Any, taken: int) -> None:
    """Find the same function for a type, in whatever order the types were registered."""

    def function(name: str) -> Any:
        return lambda batch, *, collate_fn_map: (name, len(batch), len(collate_fn_map))

    registered = {kind: function(str(kind)) for kind in kinds[:taken]}
    same(lambda lib: lib.collate([of(1), of(2)], collate_fn_map=registered))
    same(lambda lib: lib.collate([{"x": (of(1), 2)}], collate_fn_map=registered or None))


def test_a_registered_function_continues_with_the_registry() -> None:
    """Collate inside a function of one's own with the mapping it was called with."""

    def script(lib: Any) -> Any:
        def own(batch: Any, *, collate_fn_map: Any) -> Any:
            return Own(lib.collate([one.value for one in batch], collate_fn_map=collate_fn_map))

        functions = {**lib.default_collate_fn_map, Own: own}
        batch = lib.collate([{"own": Own(n), "n": n} for n in range(3)], collate_fn_map=functions)
        return batch["own"].value, batch["n"]

    same(script)


def test_tensors_collate_to_arrays() -> None:
    """Take torch's tensors in samples, on their own and beside NumPy's."""
    batch = default_collate([(torch.ones(2, dtype=torch.float32), torch.tensor(3)), (np.zeros(2, "f4"), 4)][:1] * 2)
    assert (batch[0].dtype, batch[0].tolist(), batch[1].tolist()) == (np.float32, [[1, 1], [1, 1]], [3, 3])
    assert PaddedCollate()([torch.ones(2), torch.ones(1)]).tolist() == [[1, 1], [1, 0]]
