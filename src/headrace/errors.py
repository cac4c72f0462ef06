"""Every error that headrace raises, and how a user's own error is told where it happened.

The tree; each of ours is also the standard error that a caller would look for::

    HeadraceError
    ├── ArgumentError (ValueError)          an argument cannot be used
    ├── MissingDependency (ImportError)     an optional library is needed; says which extra installs it
    ├── ListFileError (ValueError)          a list file has a line that cannot be read
    ├── BadFile (ValueError)                a file of data is not what it should be: cut short, changed, or hostile
    ├── SampleError                         one sample cannot be made; `on_error` may pass over it
    │   ├── MissingFile (FileNotFoundError)
    │   ├── UnreadableFile (OSError)        permission, a directory, an input/output error
    │   ├── BadImage (ValueError)           empty, truncated, corrupt, or no picture at all
    │   └── ImageTooLarge (ValueError)      more pixels than the limit: a decompression bomb, or a limit to raise
    ├── CollateError (RuntimeError)         samples that do not fit together in one batch
    ├── CollateTypeError (TypeError)        a sample of a type that no batch can be made of
    ├── TooManyErrors (RuntimeError)        more bad samples than `max_errors` allows
    ├── WorkerTimeout (TimeoutError, RuntimeError)  no batch came within `timeout` seconds
    ├── WorkerDied (RuntimeError)           a worker process ended by itself, was killed, or could not be started
    ├── StateMismatch (ValueError)          a saved state is of another dataset, batch size, seed, …
    ├── LoaderClosed (RuntimeError)         the loader was closed while a loop was still reading from it
    └── IterationError (RuntimeError)       an iterator for threads was pulled from where that would never end
"""

from __future__ import annotations


class HeadraceError(Exception):
    """The root of every error of ours: ``except HeadraceError`` catches them all, and nothing else."""


class ArgumentError(HeadraceError, ValueError):
    """An argument cannot be used: says which, what was given and what would do."""


class MissingDependency(HeadraceError, ImportError):
    """An optional library is not installed: says what needs it and how to install it."""


class ListFileError(HeadraceError, ValueError):
    """A list file has a line that cannot be read: names the file, the line number and the line."""


class BadFile(HeadraceError, ValueError):
    """A file of data is not what it should be (cut short, changed, or hostile): says which, and what was found."""


class SampleError(HeadraceError):
    """One sample cannot be made: the kind of error that ``on_error="skip"`` is for."""


class MissingFile(SampleError, FileNotFoundError):
    """The sample's file is not there."""


class UnreadableFile(SampleError, OSError):
    """The sample's file is there, but the operating system will not let it be read."""


class BadImage(SampleError, ValueError):
    """The sample's bytes are not a whole picture: empty, truncated, corrupt, or something else."""


class ImageTooLarge(SampleError, ValueError):
    """The picture has more pixels than the limit; refused before any memory is taken for them."""


class CollateError(HeadraceError, RuntimeError):
    """Samples do not fit together in one batch; ``rows`` are the two that disagree, where two do."""

    def __init__(self, message: str, rows: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.rows = rows


class CollateTypeError(HeadraceError, TypeError):
    """A sample has a type that no batch can be made of."""


class TooManyErrors(HeadraceError, RuntimeError):
    """More samples failed in one epoch than ``max_errors`` allows."""


class WorkerTimeout(HeadraceError, TimeoutError, RuntimeError):
    """No batch came within ``timeout`` seconds; a RuntimeError too, as in torch."""


class WorkerDied(HeadraceError, RuntimeError):
    """A worker process ended by itself, was killed, or could not be started: says which, how, and at which sample."""


class RemoteTraceback(Exception):
    """The text of a traceback in a worker process: stands as the cause of the error that came from there."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


class StateMismatch(HeadraceError, ValueError):
    """A state was saved of another run than it is loaded into: says what differs."""


class LoaderClosed(HeadraceError, RuntimeError):
    """The loader was closed while a loop was still reading from it."""


class IterationError(HeadraceError, RuntimeError):
    """A `ThreadSafeIterator` or a `prefetch` , or a loop, was pulled from within itself, or in a forked process."""


def missing(library: str, *, extra: str, purpose: str) -> MissingDependency:
    """Build the error for an optional library that is not installed.

    >>> print(missing("Pillow", extra="images", purpose="decoding pictures"))
    decoding pictures needs Pillow, which is not installed: pip install 'headrace[images]'
    """
    return MissingDependency(f"{purpose} needs {library}, which is not installed: pip install 'headrace[{extra}]'")
