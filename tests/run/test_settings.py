"""A loader's settings are read once: what is set later is refused, what is read is what was given."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from headrace import DataLoader
from headrace.errors import ArgumentError
from headrace.run.settings import SHOWN


def made(**named: Any) -> DataLoader[Any]:
    """Make a loader of ten numbers."""
    return DataLoader(range(10), 4, **named)


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_no_setting_can_be_set_later(name: str) -> None:
    """Refuse another value for every setting, and keep the one that was given."""
    loader = made(seed=3)
    before = getattr(loader, name)
    with pytest.raises(
        ArgumentError, match=rf"{name} attribute should not be set .* make another loader, with {name}="
    ):
        setattr(loader, name, 5)
    assert getattr(loader, name) is before
    assert loader.state_dict()["plan"]["seed"] == 3


def test_every_argument_of_the_constructor_is_shown() -> None:
    """Find each argument as an attribute, but for ``shuffle``, as on torch."""
    arguments = set(DataLoader.__init__.__annotations__) - {"return", "shuffle"}
    assert arguments == SHOWN


def test_other_attributes_may_be_set() -> None:
    """Let a subclass, or anyone else, keep what they like beside the settings."""
    loader = made()
    loader.note = "mine"  # type: ignore[attr-defined]
    assert loader.note == "mine"  # type: ignore[attr-defined]


def test_an_open_lock_lets_nothing_but_the_samplers_be_set() -> None:
    """Refuse a setting that would be ignored, also where a subclass has opened torch's lock."""
    loader = made()
    loader._DataLoader__initialized = False  # type: ignore[attr-defined]
    loader.batch_sampler = [[1, 2], [3]]
    with pytest.raises(ArgumentError, match="num_workers attribute should not be set"):
        loader.num_workers = 2
    assert [batch.tolist() for batch in loader] == [[1, 2], [3]]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda loader: pickle.loads(pickle.dumps(loader))])
def test_a_copy_has_the_settings_and_refuses_others(copied: Any) -> None:
    """Copy settings with the loader; what holds for the one holds for the other."""
    loader = copied(made(seed=1, drop_last=True))
    assert (loader.seed, loader.drop_last, len(loader)) == (1, True, 2)
    with pytest.raises(ArgumentError, match="seed attribute should not be set"):
        loader.seed = 2


@pytest.mark.parametrize("value", ["banana", "thread", 3, None])
def test_an_unknown_backend_is_refused(value: Any) -> None:
    """Name the backends that there are."""
    with pytest.raises(ArgumentError, match="backend must be one of 'auto', 'inline', 'threads', 'processes'"):
        made(backend=value)


def test_read_once_needs_a_stream() -> None:
    """Say that a dataset with an index is never read twice."""
    with pytest.raises(ArgumentError, match="read_once=True is for iterable datasets"):
        made(read_once=True)
    with pytest.raises(ArgumentError, match="read_once should be a boolean value"):
        DataLoader(iter(range(3)), read_once="auto")  # type: ignore[arg-type]
