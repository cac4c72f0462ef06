"""A loader's settings are read once: what is set later is read again, or refused."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from headrace import DataLoader
from headrace.errors import ArgumentError
from headrace.run.settings import CHANGEABLE, SHOWN


def made(**named: Any) -> DataLoader[Any]:
    """Make a loader of ten numbers."""
    return DataLoader(range(10), 4, **named)


@pytest.mark.parametrize("name", sorted(SHOWN - CHANGEABLE))
def test_what_says_which_batches_come_cannot_be_set_later(name: str) -> None:
    """Refuse another value for such a setting, and keep the one that was given."""
    loader = made(seed=3)
    before = getattr(loader, name)
    with pytest.raises(
        ArgumentError, match=rf"{name} attribute should not be set .* make another loader, with {name}="
    ):
        setattr(loader, name, 5)
    assert getattr(loader, name) is before
    assert loader.state_dict()["plan"]["seed"] == 3


@pytest.mark.parametrize("name", sorted(CHANGEABLE))
def test_what_says_how_batches_are_made_is_checked_again(name: str) -> None:
    """Take another value, and refuse one that the constructor would refuse."""
    loader = made(num_workers=1, backend="threads")
    setattr(loader, name, before := getattr(loader, name))
    assert getattr(loader, name) is before
    if name != "pin_memory_device":
        with pytest.raises(ArgumentError, match=name):
            setattr(loader, name, -1.5)
    assert getattr(loader, name) is before
    assert len(list(loader)) == 3


def test_a_new_setting_leaves_the_run_where_it_is() -> None:
    """Keep the place in the epoch, a sampler put in the place of the first one, and the ledger."""
    loader = made(shuffle=True, seed=3)
    rest = [batch.tolist() for batch in loader][1:]
    loader.set_epoch(0)
    next(iter(loader))
    state = loader.state_dict()
    loader.num_workers = 2
    loader.collate_fn = list
    assert loader.state_dict() == state
    loader.load_state_dict(state)
    assert list(loader) == rest

    loader = made()
    object.__setattr__(loader, "batch_sampler", [[1, 2], [3]])
    loader.collate_fn = list
    assert list(loader) == [[1, 2], [3]]
    loader.in_order = False
    assert list(loader) == [[1, 2], [3]]


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
    with pytest.raises(ArgumentError, match="batch_size attribute should not be set"):
        loader.batch_size = 2
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
