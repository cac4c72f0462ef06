"""Iterators and threads: one iterator shared by many threads, and one that is read ahead in a thread of its own.

What ends an iteration, its end or its first error, ends it for all: whoever pulls later gets the same again. Nothing
here relies on the GIL: what threads share is either guarded by a lock or a queue, or written once before
they start, so it holds on free-threaded builds too.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextvars import copy_context
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from headrace.checks import article, integer, kind_of, shown
from headrace.context.current import leave
from headrace.errors import ArgumentTypeError, IterationError
from headrace.executors.lifecycle import ForkGuard
from headrace.run.ahead import End, Raised, ReadAhead

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
P = ParamSpec("P")


def _forked(what: str) -> IterationError:
    return IterationError(
        f"this {what} was made before the process forked, and belongs to the parent process",
        expected=f"{article(what)} made in the process that reads from it",
        cure="make one in the child process",
    )


class ThreadSafeIterator(Iterator[T]):
    """One iterator that any number of threads pull from: each item goes to exactly one of them.

    >>> import threading
    >>> from headrace import ThreadSafeIterator
    >>> shared, taken = ThreadSafeIterator(n * n for n in range(1000)), []
    >>> threads = [threading.Thread(target=lambda: taken.extend(shared)) for _ in range(4)]
    >>> for thread in threads: thread.start()
    >>> for thread in threads: thread.join()
    >>> sorted(taken) == [n * n for n in range(1000)]
    True

    Takes anything that can be iterated over. Items are made one at a time, by whichever thread asks.

    - **Exhaustion** reaches all: every later `next`, in any thread, ends its loop.
    - **An error** ends the iteration and reaches all: the thread that was pulling gets it, and every thread that waits
      or comes later gets the same exception object, never an end that looks like success.
    - ``close()``, from any thread, ends it for all, and closes the generator. It never waits: where another thread is
      inside the generator, that thread still gets its item, and closes the generator on its way out. What a generator
      raises while it is closed is raised in the thread that closes it. It is a context manager, which closes it.
    - **Pulling from itself**, a generator raises `IterationError`, a RuntimeError, where it would wait for ever; and so
      does a copy in a forked process, where items would come twice.

    Raises `ArgumentError` (a TypeError too) for what cannot be iterated over.
    """

    def __init__(self, iterable: Iterable[T]) -> None:
        self._source: Iterator[T] | None = _iterator(iterable, type(self).__name__)
        self._guard = ForkGuard()
        # Reentrant, so that a generator that pulls from itself comes as far as the check that refuses it.
        self._turn = threading.RLock()
        self._inside = False
        self._end: BaseException | None = None
        self._trace: TracebackType | None = None
        # Guards what `close` says to a thread that is inside, which holds the other; reentrant, for signal handlers.
        self._note = threading.RLock()
        self._closing = False

    def __next__(self) -> T:
        self._guard.check(lambda: _forked("ThreadSafeIterator"))
        try:
            with self._turn:
                return self._pull()
        finally:
            # Looked at after the turn is given back: whoever closes either finds the turn free, or is seen here.
            with self._note:
                closing = self._closing
            if closing:
                self._close_source()

    def _pull(self) -> T:
        if self._inside:
            raise IterationError(
                "a generator asked for an item of the ThreadSafeIterator that was reading from it",
                cure="give the generator an iterator of its own",
            )
        if self._end is not None:
            raise self._end.with_traceback(self._trace)
        with self._note:
            closing = self._closing
        if self._source is None or closing:
            raise StopIteration
        self._inside = True
        try:
            return next(self._source)
        except StopIteration:
            self._source = None
            raise StopIteration from None  # without the frames of the source, and what it returned
        # An interrupt too: a generator that one has gone through is over, and must not look as if it had ended well.
        except BaseException as error:
            self._source, self._end = None, error
            self._trace = _from_the_source(error)
            raise
        finally:
            self._inside = False

    def close(self) -> None:
        """End the iteration for all threads, and close the generator; may be called from anywhere, more than once."""
        if self._guard.in_child:
            return
        with self._note:
            self._closing = True
        self._close_source()

    def _close_source(self) -> None:
        # Taken: another thread is inside, or closing; it looks at the note when it comes out.
        if not self._turn.acquire(blocking=False):
            return
        try:
            if self._inside:  # a generator that closes itself: its frame comes out through `__next__`
                return
            source, self._source = self._source, None
            if isinstance(source, Generator):
                source.close()
        finally:
            self._turn.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def threadsafe_generator(function: Callable[P, Iterable[T]]) -> Callable[P, ThreadSafeIterator[T]]:
    """Make a generator function's generators safe to pull from on any number of threads.

    >>> from headrace import threadsafe_generator
    >>> @threadsafe_generator
    ... def batches(count):
    ...     for number in range(count):
    ...         yield [number] * 2
    >>> shared = batches(3)
    >>> next(shared), next(shared), next(shared)
    ([0, 0], [1, 1], [2, 2])

    Each call makes a `ThreadSafeIterator` of its own, which says what threads may rely on. Methods can be decorated as
    well. Raises `ArgumentError` (a TypeError too) for what is no function, and for an asynchronous one.
    """
    if not callable(function) or inspect.isasyncgenfunction(function) or inspect.iscoroutinefunction(function):
        raise ArgumentTypeError(
            f"threadsafe_generator decorates a function that returns a generator; got {shown(function)}"
            + (", which is asynchronous" if callable(function) else ""),
            found=function,
            expected="a function that returns a generator",
            cure="decorate a function with yield in it"
            + (", and without async" if callable(function) else "; call the decorator without arguments"),
        )

    @functools.wraps(function)
    def shared(*args: P.args, **kwargs: P.kwargs) -> ThreadSafeIterator[T]:
        return ThreadSafeIterator(function(*args, **kwargs))

    return shared


def prefetch(iterable: Iterable[T], n: int = 2) -> Prefetched[T]:
    """Run any iterable ahead in a thread: at most ``n`` items are made before they are asked for.

    >>> from headrace import prefetch
    >>> with prefetch((n * n for n in range(5)), 2) as squares:
    ...     print(next(squares), next(squares), list(squares))
    0 1 [4, 9, 16]

    Items come in order, and an error in its place, after the items before it. Any number of threads may pull: each
    item goes to one of them; the end, or the error, reaches all, as with `ThreadSafeIterator`.

    - The iterable is iterated over in one thread, from ``iter()`` to the end; a generator is closed there too.
    - ``close()``, leaving the ``with`` block, dropping it and leaving the interpreter end the thread after the item at
      hand, and wait for it; after ten seconds they leave it behind, with a warning. What the generator raises while it
      is closed early is raised by ``close()``.
    - The iterable sees a copy of the context variables as they were here (`numpy.errstate`, `decimal`), but is at no
      sample of a loader: there, `headrace.rng` is a generator of the thread's own. Give it one where it must be exact.
    - In a forked process, and pulled from by its own iterable, it raises `IterationError`, a RuntimeError.

    Raises `ArgumentError` (a TypeError too) for what cannot be iterated over, and for an ``n`` that is no integer from
    1 up.
    """
    return Prefetched(iterable, integer("n", n, least=1))


class Prefetched(ReadAhead[T]):
    """What `prefetch` returns: an iterator that can be closed."""

    def __init__(self, iterable: Iterable[T], n: int) -> None:
        if not _can_iterate(iterable):
            raise _not_iterable("prefetch", iterable)
        context = copy_context()
        context.run(leave)
        super().__init__(_Items(iterable), n, name="headrace-prefetch", doing="making an item", context=context)

    def __next__(self) -> T:
        self._guard.check(lambda: _forked("prefetch"))
        if threading.current_thread() is self._thread:
            raise IterationError(
                "an iterable asked for an item of the prefetch that was reading from it",
                cure="give the iterable a prefetch of its own",
            )
        item = self._take()
        if isinstance(item, End):
            if item.error is None:
                raise StopIteration
            raise item.error.with_traceback(item.trace)
        assert not isinstance(item, Raised)  # noqa: S101  for the type checker: the first error is the end
        return item

    def close(self) -> None:
        """End the thread, which closes the generator, and drop what it made ahead; may be called more than once."""
        self._finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Items(Generic[T]):
    """Iterates over what the user gave, from ``iter()`` to the end."""

    ends_on_error = True

    def __init__(self, iterable: Iterable[T]) -> None:
        self._iterable = iterable
        self._source: Iterator[T] | None = None

    def next(self) -> T:
        if self._source is None:
            self._source = iter(self._iterable)
        return next(self._source)

    def close(self) -> None:
        source = self._source
        if isinstance(source, Generator) or (source is not self._iterable and hasattr(source, "close")):
            source.close()  # type: ignore[union-attr]  # a generator, or what iter() made for us and nobody else has


def _from_the_source(error: BaseException) -> TracebackType | None:
    """Return the traceback without the frame that caught it, which would hold what holds the error."""
    return error.__traceback__ and error.__traceback__.tb_next


def _can_iterate(thing: object) -> bool:
    return hasattr(type(thing), "__iter__") or hasattr(type(thing), "__getitem__")


def _not_iterable(name: str, thing: object) -> ArgumentTypeError:
    expected = "an object that can be iterated over"
    what = f"{name} needs {expected}; got {kind_of(thing)}"
    return ArgumentTypeError(what, found=thing, expected=expected, cure="pass a generator, a list or a loader")


def _iterator(iterable: Iterable[T], name: str) -> Iterator[T]:
    if not _can_iterate(iterable):
        raise _not_iterable(name, iterable)
    return iter(iterable)
