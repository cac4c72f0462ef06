"""What datasets, samplers and their iterators keep of themselves: ``state_dict`` and ``load_state_dict``."""

from __future__ import annotations

import copy
from typing import Any

from headrace.checks import article, kind_of
from headrace.errors import StateMismatch


def keeps_state(thing: Any) -> bool:
    """Whether a dataset, a sampler or an iterator keeps a state of its own."""
    # A class has the methods, but no state: Accelerate unpickles its loaders by way of one over a class.
    return not isinstance(thing, type) and hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")


def restore(thing: Any, what: str, state: Any) -> None:
    """Give something the state that it kept of itself.

    Raises `StateMismatch` where it takes none, and where it raises anything for the state at hand.
    """
    name = kind_of(thing)
    if not keeps_state(thing):
        raise StateMismatch(
            f"the loaded state has one of the {what}, but {name} has no load_state_dict",
            (what,),
            found=thing,
            expected=f"{article(what)} with state_dict and load_state_dict",
            cure=f"Load the state into a loader of the {what} that it was saved with.",
        )
    try:
        thing.load_state_dict(copy.deepcopy(state))
    except StateMismatch:
        raise
    except Exception as error:
        raise StateMismatch(
            f"the {what}, {name}, does not load its saved state ({type(error).__name__}: {error})",
            (what,),
            found=state,
            expected=f"a state that this {what} saved",
            cure=f"Load the state into a loader of the {what} that it was saved with.",
        ) from error
