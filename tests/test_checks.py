"""Arguments are checked in one place: what can be used is returned, all else is an error in three parts."""

from __future__ import annotations

import math
import pickle
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import checks
from headrace.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Callable


class Silent:
    """An object whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("check", "value", "given"),
    [
        (lambda v: checks.integer("n", v, least=1), 3, 3),
        (lambda v: checks.integer("n", v, least=1), np.int8(3), 3),
        (lambda v: checks.integer("n", v, least=1), 2**80, 2**80),
        (lambda v: checks.integer("n", v, least=1, most=4), 4, 4),
        (lambda v: checks.positive("n", v), np.uint64(7), 7),
        (lambda v: checks.number("n", v), -3, -3.0),
        (lambda v: checks.number("n", v), np.float32(0.5), 0.5),
        (lambda v: checks.number("n", v, above=0), Fraction(1, 2), 0.5),
        (lambda v: checks.fraction("p", v), 1, 1.0),
        (lambda v: checks.seconds("t", v), 0, 0),
        (lambda v: checks.seconds("t", v), np.float64(1.5), 1.5),
        (lambda v: checks.flag("f", v), np.True_, True),
        (lambda v: checks.flag("f", v), np.int64(0), False),
        (lambda v: checks.flag("f", v, exact=True), np.False_, False),
        (lambda v: checks.one_of("o", v, (None, "a")), None, None),
        (lambda v: checks.one_of("o", v, ("a", "b")), np.str_("b"), "b"),
        (lambda v: checks.function("f", v), len, len),
        (lambda v: checks.path("p", v), Path("a/b"), "a/b"),
    ],
)
def test_what_can_be_used_is_returned(check: Callable[[Any], Any], value: Any, given: Any) -> None:
    """Return the value in the builtin type that it stands for."""
    found = check(value)
    assert found == given
    assert type(found) is type(given)


@pytest.mark.parametrize(
    ("check", "value", "said", "kind"),
    [
        (lambda v: checks.integer("n", v, least=1), 0, "n must be an integer from 1 up; got 0", ValueError),
        (lambda v: checks.integer("n", v, least=1, most=4), 5, "n must be an integer from 1 to 4; got 5", ValueError),
        (lambda v: checks.integer("n", v, least=0), True, "n must be an integer from 0 up; got True", TypeError),
        (lambda v: checks.integer("n", v, least=0), np.True_, "an integer from 0 up; got", TypeError),
        (lambda v: checks.integer("n", v, least=0), 2.0, r"got 2\.0; give a whole number", TypeError),
        (lambda v: checks.integer("n", v, least=0), "2", r"got '2'; convert text with int\(\) first", TypeError),
        (lambda v: checks.integer("n", v, least=0, cure="wait"), -1, "got -1; wait", ValueError),
        (lambda v: checks.positive("n", v), 0, "n should be a positive integer value, but got n=0", ValueError),
        (lambda v: checks.positive("n", v), 1.5, r"n should be a positive integer value, but got n=1\.5", TypeError),
        (lambda v: checks.number("n", v), math.nan, "n must be a finite number; got nan", ValueError),
        (lambda v: checks.number("n", v, above=0), 0, "a finite number above 0; got 0", ValueError),
        (lambda v: checks.number("n", v, least=0), -1, "a finite number from 0 up; got -1", ValueError),
        (lambda v: checks.number("n", v), "1", r"got '1'; convert it with float\(\)", TypeError),
        (lambda v: checks.fraction("p", v), 1.5, r"a finite number from 0 to 1; got 1\.5", ValueError),
        (lambda v: checks.seconds("t", v), -1, "t option should be non-negative; got -1", ValueError),
        (lambda v: checks.seconds("t", v), math.inf, "t must be seconds from 0 to .*; got inf", ValueError),
        (lambda v: checks.seconds("t", v), math.nan, "t must be seconds from 0 up; got nan", TypeError),
        (lambda v: checks.seconds("t", v), True, "t must be seconds from 0 up; got True", TypeError),
        (lambda v: checks.flag("f", v), "False", "f should be a boolean value, but got f='False'", TypeError),
        (lambda v: checks.flag("f", v, exact=True), 1, "f should be a boolean value, but got f=1", TypeError),
        (lambda v: checks.flag("f", v), np.ones(1, bool), "f should be a boolean value", TypeError),
        (lambda v: checks.one_of("o", v, ("a", 1)), True, "o must be one of 'a', 1; got True", ValueError),
        (lambda v: checks.one_of("o", v, ("a", "b")), np.zeros(3), "o must be one of 'a', 'b'", ValueError),
        (lambda v: checks.function("f", v), 3, "f must be callable, or None; got 3", TypeError),
        (lambda v: checks.path("p", v), b"a", "p must be a path, str or os.PathLike; got b'a'; decode", TypeError),
        (lambda v: checks.integer("n", v, least=0), Silent(), "got a value of type Silent", TypeError),
        (lambda v: checks.integer("n", v, least=0), "x" * 500, "got 'x{78}…", TypeError),
    ],
)
def test_what_cannot_be_used_is_an_error_in_three_parts(
    check: Callable[[Any], Any], value: Any, said: str, kind: type[Exception]
) -> None:
    """Say the name, the value, what was expected and what to do; as attributes too, in an error that can be pickled."""
    with pytest.raises(ArgumentError, match=said) as caught:
        check(value)
    error = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(error, ValueError)
    assert isinstance(error, ArgumentTypeError) == (kind is TypeError)
    assert error.expected
    assert error.found is not None
    assert error.expected in str(error)


def test_types_are_named_with_their_article() -> None:
    """Say "an int" and "a list"."""
    assert (checks.kind_of(3), checks.kind_of([]), checks.article("")) == ("an int", "a list", "a ")
