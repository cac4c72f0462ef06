"""What this thread is working on: the one context variable of the package.

The modules beside this one each own an attribute of it: they read it through `current`, and change it for the length
of a block through a `setting`. A thread that a user's code starts works on nothing; a copy of a context, as
``contextvars`` and ``asyncio`` make it, works on what the original worked on.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Any


class Context:
    """What a thread works on. It is never changed: whoever changes an attribute puts a copy in its place.

    The modules that own the attributes know their types; naming them here would be a circle of imports.
    """

    __slots__ = ("generator", "here", "recycler", "seconds", "share", "worker")

    def __init__(
        self,
        here: Any = None,
        seconds: Any = None,
        recycler: Any = None,
        share: Any = None,
        worker: Any = None,
        generator: Any = None,
    ) -> None:
        self.here = here
        """The place in the data, with its random numbers and, in a replay, its trace (`seeds`)."""
        self.seconds = seconds
        """Where the time is counted, by stage (`timing`)."""
        self.recycler = recycler
        """Who lends the memory for the steps on the way to a sample (`memory`)."""
        self.share = share
        """What gives other threads a part of a job (`sharing`)."""
        self.worker = worker
        """The worker in whose place a stream is read (`worker_info`)."""
        self.generator = generator
        """Outside a loader, the thread's own random generator (`seeds`)."""


_variable: ContextVar[Context] = ContextVar("headrace_context", default=Context())  # noqa: B039  never changed

current = _variable.get
"""Return what this thread works on."""

put = _variable.set
"""Let this thread work on something else; returns a token for `setting`."""


reset = _variable.reset
"""Let this thread work on what it worked on before, by the token of `put`."""


class setting:  # noqa: N801  a context manager, named as its subclasses are
    """Gives this thread its last context back at the end of a block; a subclass says what changes at the beginning."""

    __slots__ = ("_token",)
    _token: Token[Context]

    def __exit__(self, *_: object) -> None:
        reset(self._token)


def leave() -> None:
    """Leave the sample at hand, its timing and its memory: they belong to one thread, and move on."""
    now = current()
    put(Context(share=now.share, worker=now.worker))
