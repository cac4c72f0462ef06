"""Every error and warning that headrace raises, with what it says as attributes.

The tree; each error is also the standard one that a caller would look for::

    HeadraceError
    ├── ArgumentError (ValueError)              an argument has a value that cannot be used
    │   ├── ArgumentTypeError (TypeError)       an argument has a type that cannot be used
    │   └── UnusableArgument (AssertionError)   arguments that torch refuses by an assertion
    ├── MissingDependency (ImportError)         an optional library is not installed
    ├── ListFileError (ValueError)              a line of a list file cannot be read
    ├── BadFile (ValueError)                    a data file is cut short, changed or hostile
    ├── SampleError                             one sample cannot be made; `on_error` may skip it
    │   ├── MissingFile (FileNotFoundError)
    │   ├── UnreadableFile (OSError)            permission, a folder, an input/output error
    │   │   └── FileTooLarge                    more bytes than the limit
    │   ├── BadAnnotation (ValueError)          boxes, masks or keypoints that cannot be used
    │   ├── BadImage (ValueError)               empty, truncated, corrupt, or not an image
    │   └── ImageTooLarge (ValueError)          more pixels than the limit, or than its file can hold
    ├── CollateError (RuntimeError)             samples do not fit together in one batch
    ├── CollateTypeError (TypeError)            no batch can be made of samples of this type
    ├── TooManyErrors (RuntimeError)            more bad samples than `max_errors` allows
    ├── WorkerTimeout (TimeoutError, RuntimeError)  no batch came within `timeout` seconds
    ├── WorkerDied (RuntimeError)               a worker process exited, was killed or could not start
    ├── StateMismatch (ValueError)              a saved state belongs to another run
    ├── LoaderClosed (RuntimeError)             the loader was closed while a loop was reading from it
    └── IterationError (RuntimeError)           an iterator was used from within itself, after a fork or out of order

    RandomnessWarning (UserWarning)             no seed can fix the random numbers of a dataset
    NotNativeWarning (UserWarning)              native=True was passed, and the native extension cannot read the dataset

Beside the tree stands `RemoteTraceback`, the cause of an error that came from a worker process.

A message has three parts: what happened, what was expected, what to do. They are attributes too (`HeadraceError` lists
them), so that no program has to cut a message into pieces:

>>> try:
...     raise BadImage("empty (0 bytes)", path="a.jpg", expected="an image file", cure="Fix or remove the file.")
... except SampleError as error:
...     print(error, error.path, error.cure, sep=" | ")
a.jpg: empty (0 bytes); expected an image file. Fix or remove the file. | a.jpg | Fix or remove the file.
"""

from __future__ import annotations

from typing import Any, Self

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "BadAnnotation",
    "BadFile",
    "BadImage",
    "CollateError",
    "CollateTypeError",
    "FileTooLarge",
    "HeadraceError",
    "ImageTooLarge",
    "IterationError",
    "ListFileError",
    "LoaderClosed",
    "MissingDependency",
    "MissingFile",
    "NotNativeWarning",
    "RandomnessWarning",
    "SampleError",
    "StateMismatch",
    "TooManyErrors",
    "UnreadableFile",
    "UnusableArgument",
    "WorkerDied",
    "WorkerTimeout",
]

_HELD_BY_PYTHON = ("errno", "strerror", "filename", "filename2", "name", "path", "msg")
"""Attributes that OSError and ImportError keep outside their ``__dict__``."""


MOST_FOUND = 16
"""Items of a tuple that an error keeps as they are."""


class HeadraceError(Exception):
    """The root of all errors: ``except HeadraceError`` catches every one of ours, and nothing else.

    ``what`` says what happened, with the value; the keywords are the parts of the message, each an attribute:

    - ``path``: the file, as it was given;
    - ``index``: the sample's index in its dataset;
    - ``found``: the value that was found: a plain one as it is, any other as its ``repr``;
    - ``expected``: what was expected in its place;
    - ``cure``: what to do.

    A part that is not known is None. The message is made of the parts: ``path: what; expected …; cure``. A part that
    ``what`` already contains is not repeated. A cure that begins with a capital letter becomes a sentence of its own.
    Pickling keeps all attributes and notes, so that an error arrives whole from a worker process.

    >>> error = HeadraceError("size is 0", found=0, expected="an integer from 1 up", cure="pass size=224")
    >>> print(error)
    size is 0; expected an integer from 1 up; pass size=224
    >>> error.found, error.path
    (0, None)
    """

    def __init__(
        self,
        what: str = "",
        *,
        path: str | None = None,
        index: Any = None,
        found: Any = None,
        expected: str | None = None,
        cure: str | None = None,
    ) -> None:
        self.what = what
        self.index = index
        self.found = found if _is_plain(found) else shown(found)
        self.expected = expected
        self.cure = cure
        super().__init__(_sentence(self._place(path), what, expected, cure))
        self.path = path  # after ImportError.__init__, which has a `path` of its own

    @property
    def place(self) -> str:
        """Where it happened, as the message begins: the path, the line, the sample or the field; empty if unknown."""
        return self._place(self.path)

    @property
    def entry(self) -> str:
        """Where the site of the documentation explains this kind of error, with all its messages and what to do.

        >>> BadFile("the index ends early").entry
        'troubleshooting.html#badfile'
        """
        name = next(kind.__name__ for kind in type(self).__mro__ if kind.__name__ in __all__)
        return f"troubleshooting.html#{name.lower()}"

    def _place(self, path: str | None) -> str:
        return path or ""

    def __reduce__(self) -> tuple[Any, ...]:
        held = {name: getattr(self, name, None) for name in _HELD_BY_PYTHON}
        state = {name: value for name, value in held.items() if value is not None}
        return _rebuilt, (type(self), self.args, {**self.__dict__, **state})


class ArgumentError(HeadraceError, ValueError):
    """An argument has a value that cannot be used.

    Raised where the argument is given: by a constructor or a call, before any data is read. ``found`` is the value.
    """


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument has a type that cannot be used.

    Raised like `ArgumentError`, where a caller would look for a TypeError. ``found`` is the value.
    """


class UnusableArgument(ArgumentError, AssertionError):
    """Arguments do not go together, or a dataset has the wrong kind.

    Raised where torch raises an AssertionError: for programs and tests that catch it.
    """


class MissingDependency(HeadraceError, ImportError):
    """An optional library is not installed.

    Raised where it is first needed; `missing` builds it. ``name`` is the library, ``cure`` how to install it.
    """


class ListFileError(HeadraceError, ValueError):
    """A list file has a line that cannot be read.

    Raised when the dataset is constructed. ``path`` is the list file, ``line`` the line's number from 1 and ``found``
    its text; ``line`` is None where the file as a whole is wrong.

    >>> error = ListFileError("the label is 'x'", path="a.txt", line=3, found="b.jpg x", expected="an integer")
    >>> print(error)
    a.txt, line 3: the label is 'x'; expected an integer
    """

    def __init__(self, what: str = "", line: int | None = None, **parts: Any) -> None:
        self.line = line
        super().__init__(what, **parts)

    def _place(self, path: str | None) -> str:
        return path or "" if self.line is None else f"{path or 'the list'}, line {self.line}"


class BadFile(HeadraceError, ValueError):
    """A data file is cut short, changed or hostile.

    Raised when a dataset or a ledger is opened, and when a file changes while it is read. ``path`` is the file.
    """


class SampleError(HeadraceError):
    """One sample cannot be made.

    Raised by ``dataset[index]``, and by a loader with ``on_error="raise"``; other policies skip or replace the sample.
    ``path`` is the sample's file and ``index`` its place in the dataset, where both are known; ``found`` is ``what``
    unless it is given.

    >>> print(SampleError("the label is -1", index=3, path="a.jpg"))
    sample 3 (a.jpg): the label is -1
    """

    def __init__(self, what: str = "", *, found: Any = None, **parts: Any) -> None:
        super().__init__(what, found=what if found is None else found, **parts)

    def _place(self, path: str | None) -> str:
        if self.index is None:
            return path or ""
        return f"sample {self.index} ({path})" if path else f"sample {self.index}"

    def at(self, index: Any) -> Self:
        """Set the sample's index, where it was not known, and name it in the message.

        >>> print(BadImage("0 bytes", path="a.jpg").at(3))
        sample 3 (a.jpg): 0 bytes
        """
        if self.index is None:
            self.index = index
            self.args = (_sentence(self._place(self.path), self.what, self.expected, self.cure),)
        return self


class MissingFile(SampleError, FileNotFoundError):
    """The sample's file does not exist: ``path``, and the operating system's ``errno``."""


class UnreadableFile(SampleError, OSError):
    """The sample's file exists and cannot be read: ``path``, and the operating system's ``errno`` where it gave one."""


class FileTooLarge(UnreadableFile):
    """The sample's file has more bytes than the limit, and was not read: ``path``; ``errno`` is ``EFBIG``.

    Increase the limit that the message names, or remove the file.
    """


class BadAnnotation(SampleError, ValueError):
    """The annotations of an image cannot be used.

    Raised where a sample is read: boxes of negative size, a mask that does not fit its image, a class without a name,
    or a file of annotations that cannot be parsed. ``path`` is the image, or the file of its annotations.
    Fix the annotation that the message names, or pass ``on_error="skip"`` to leave such samples out.
    """


class BadImage(SampleError, ValueError):
    """The sample's bytes are not a whole image.

    Raised by decoding: the file is empty, truncated, corrupt, of an unknown format, or not an image.
    """


class ImageTooLarge(SampleError, ValueError):
    """The image has more pixels than the limit, or than a file of its size can hold.

    Raised before memory is allocated for the pixels.
    """


class _OfABatch(HeadraceError):
    """Names the part of the samples that has the error, and the rows of the batch."""

    def __init__(
        self, what: str = "", rows: tuple[int, ...] | None = None, field: str | None = None, **parts: Any
    ) -> None:
        self.field = field or None
        super().__init__(what, **parts)
        self.rows = rows

    def _place(self, path: str | None) -> str:  # noqa: ARG002  no batch comes from one file
        return f"at {self.field}" if self.field else ""


class CollateError(_OfABatch, RuntimeError):
    """Samples do not fit together in one batch.

    Raised while collating: shapes, lengths or keys differ. ``rows`` are the two that disagree, or the one that is
    wrong; ``field`` is the part of the samples, such as ``sample['meta'][0]``, and None for whole samples.

    >>> print(CollateError("samples 0 and 2 of the batch differ in length: 3 and 4", (0, 2), "sample['boxes']"))
    at sample['boxes']: samples 0 and 2 of the batch differ in length: 3 and 4
    """


class CollateTypeError(_OfABatch, TypeError):
    """No batch can be made of samples of this type.

    Raised while collating, for what is neither number, string, array nor a container of them. ``rows`` and ``field`` as
    in `CollateError`.
    """


class TooManyErrors(HeadraceError, RuntimeError):
    """More samples of one epoch failed than ``max_errors`` allows.

    Raised by the loop with ``on_error="skip"`` or ``"replace"``. ``found`` is how many failed, ``latest`` the index and
    the error of the latest bad samples, as text.
    """

    def __init__(self, what: str = "", latest: tuple[str, ...] = (), **parts: Any) -> None:
        super().__init__(what, **parts)
        self.latest = latest


class WorkerTimeout(HeadraceError, TimeoutError, RuntimeError):
    """No batch came within ``timeout`` seconds.

    Raised by the loop; a RuntimeError too, as in torch. ``found`` is the timeout in seconds, ``workers`` says what the
    workers were doing, with their stacks. Increase ``timeout``, or fix what the stacks show to be slow.
    """

    def __init__(self, what: str = "", workers: str = "", **parts: Any) -> None:
        super().__init__(what, **parts)
        self.workers = workers


class WorkerDied(HeadraceError, RuntimeError):
    """A worker process exited, was killed, or could not start; or a worker on a Ray cluster died.

    Raised by the loop. ``worker`` is its number, ``pid`` its process, ``exit_code`` how it ended (minus the number of
    the signal that killed it), ``at`` the sample that it was making; each is None if unknown.
    """

    def __init__(
        self,
        what: str = "",
        worker: int | None = None,
        pid: int | None = None,
        exit_code: int | None = None,
        at: str | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(what, **parts)
        self.worker = worker
        self.pid = pid
        self.exit_code = exit_code
        self.at = at


class RemoteTraceback(Exception):
    """The text of a traceback in a worker process: the ``__cause__`` of the error that came from there."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


class StateMismatch(HeadraceError, ValueError):
    """A saved state belongs to another run than the one it is loaded into.

    Raised by ``load_state_dict``: dataset length, batch size, seed or another argument differs, or it is not a state.
    ``settings`` are the names of what differs, ``found`` the saved value, ``expected`` this run's value.
    """

    def __init__(self, what: str = "", settings: tuple[str, ...] = (), **parts: Any) -> None:
        super().__init__(what, **parts)
        self.settings = settings


class LoaderClosed(HeadraceError, RuntimeError):
    """The loader was closed while a loop was still reading from it.

    Raised by the loop's next step.
    """


class IterationError(HeadraceError, RuntimeError):
    """An iterator was used from within itself, in a forked process, or out of order.

    Raised by `ThreadSafeIterator`, `prefetch` and a loader's loop, which would otherwise wait forever, and where an
    executor of your own returns a batch that it was not asked for. Also where code of a dataset raises StopIteration,
    which would end the epoch early.
    """


class RandomnessWarning(UserWarning):
    """A dataset or a transform draws random numbers that no seed can fix; warned once for a loader.

    Draw from `headrace.rng` where the sample is made, let the transform take ``rng`` as its second parameter, or wrap a
    transform of another library in `headrace.transforms.Seeded`.

    >>> import warnings
    >>> import numpy as np
    >>> from headrace import ArrayDataset, DataLoader
    >>> rng = np.random.default_rng(0)
    >>> noisy = ArrayDataset(np.zeros(4)).map(lambda x: x + rng.normal())
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     batches = list(DataLoader(noisy, 2, seed=0))
    >>> print(str(caught[0].message)[:62])
    Mapped.functions[0]: rng: numpy's Generator, held by the data.
    """


class NotNativeWarning(UserWarning):
    """A loader with ``native=True`` makes samples one by one: the message names the transform, or what else, and why.

    `headrace.explain` shows each step of the dataset. Replace the one that is not read natively, or leave
    ``native=True`` out.

    >>> import warnings
    >>> from headrace import DataLoader
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     batches = list(DataLoader([1, 2, 3], native=True))
    >>> print(str(caught[0].message)[:60])
    native=True, but samples are made one by one, as on torch: a
    """


def shown(value: Any) -> str:
    """Return the ``repr`` of a value in at most 80 letters, whatever its ``repr`` does.

    >>> shown([1, 2]), shown(10**5000)
    ('[1, 2]', 'a value of type int')
    """
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  an object of a user's, or a number of too many digits
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:79]}…"


def missing(library: str, *, extra: str, purpose: str) -> MissingDependency:
    """Build the error for an optional library that is not installed.

    >>> print(missing("Pillow", extra="images", purpose="decoding images"))
    decoding images needs Pillow, which is not installed: pip install 'headrace[images]'
    """
    cure = f"pip install 'headrace[{extra}]'"
    error = MissingDependency(f"{purpose} needs {library}, which is not installed: {cure}", cure=cure)
    error.name = library
    return error


def _is_plain(value: Any) -> bool:
    """Say whether an error may keep a value: it is pickled, and must not keep what a user made alive."""
    if type(value) is tuple:
        return len(value) <= MOST_FOUND and all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _sentence(place: str, what: str, expected: str | None, cure: str | None) -> str:
    said = what if what.startswith(place) else f"{place}: {what}"
    if expected and expected not in what:
        said = f"{said.removesuffix('.')}; expected {expected}"
    if cure and cure not in what:
        said = f"{said.rstrip('.')}. {cure}" if cure[0].isupper() else f"{said}; {cure}"
    return said


def _rebuilt(kind: type[HeadraceError], args: tuple[Any, ...], state: dict[str, Any]) -> HeadraceError:
    error = kind.__new__(kind)
    error.args = args
    for name, value in state.items():
        setattr(error, name, value)
    return error
