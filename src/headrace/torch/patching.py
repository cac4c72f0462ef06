"""Our loader in torch's place: whoever makes one of torch's loaders gets ours, until it is taken back.

torch's class stays where it is, and its constructor turns each new object into ours. So it does not matter who
imported the class under which name, or made a subclass of it, before or after.
"""

from __future__ import annotations

import functools
import inspect
import pickle
import sys
import threading
import warnings
from multiprocessing import process
from typing import TYPE_CHECKING, Any

import torch.utils.data

from headrace.checks import flag
from headrace.datasets.explain import explain as explained
from headrace.errors import ArgumentTypeError
from headrace.interop.user_line import user_line
from headrace.run.arguments import starts_threads
from headrace.torch import overrides
from headrace.torch.accelerated import kept_arguments
from headrace.torch.tensor_loader import DataLoader

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

THEIRS = torch.utils.data.DataLoader

ENTRIES = ("__init__", "__iter__", "__len__", "__setattr__", "_get_iterator")
"""The methods of torch's loader by which its users, and subclasses that name it, come to ours."""

ARGUMENTS = frozenset(inspect.signature(DataLoader).parameters) - frozenset(inspect.signature(THEIRS).parameters)
"""The arguments of our loader that torch's has not."""

_lock = threading.Lock()
_active: list[Patch] = []
_originals: dict[str, Any] = {}


class Patch:
    """Our loader in torch's place; `undo`, or leaving the ``with`` block, takes it back."""

    def __init__(self, arguments: dict[str, Any], *, explain: bool) -> None:
        self.arguments = arguments
        self.explain = explain
        with _lock:
            _active.append(self)
            if len(_active) == 1:
                _put()

    def undo(self) -> None:
        """Let loaders be torch's again from here on; those that were made stay as they are. May be called again."""
        with _lock:
            if self in _active:
                _active.remove(self)
                _tell_children()
                if not _active:
                    _take_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.arguments, self.explain)


def patch(*, explain: bool = False, **arguments: Any) -> Patch:
    """Put our loader in torch's place, in every module of this process, until it is taken back.

    >>> import torch.utils.data
    >>> with patch(seed=0):
    ...     loader = torch.utils.data.DataLoader(range(4), batch_size=2)
    >>> isinstance(loader, DataLoader), loader.seed
    (True, 0)
    >>> isinstance(torch.utils.data.DataLoader(range(4)), DataLoader)
    False

    Whoever makes a ``torch.utils.data.DataLoader`` while it is there gets a `DataLoader` of headrace: libraries too, by
    whatever name they imported the class, and by subclasses of it. Loaders that were made before stay torch's; those
    that are made under it stay ours when it is taken back. ``arguments`` are those of our loader that torch's has not
    (``seed``, ``backend``, ``on_error`` and others); each loader gets them where its maker gives no other. ``explain``
    prints to stderr how each loader reads its dataset. Child processes have it too: forked ones, and those started in
    another way if they import headrace. A subclass that overrides what ours cannot follow is left to torch, with a
    warning. Raises `ArgumentError` for an argument that our loader has not.
    """
    unknown = sorted(arguments.keys() - ARGUMENTS)
    if unknown:
        raise ArgumentTypeError(
            f"patch got {', '.join(f'{name}=' for name in unknown)}, which no loader takes from it",
            found=unknown[0],
            expected=f"arguments of headrace's loader that torch's has not: {', '.join(sorted(ARGUMENTS))}",
            cure="leave it out, or give it to the loader",
        )
    return Patch(arguments, explain=flag("explain", explain))


def in_place_of(kind: type) -> type:
    """Return our loader's class for one of torch's: our own, or a subclass that runs through ours."""
    if kind is THEIRS:
        return DataLoader
    subclasses: list[type] = type.__subclasses__(kind)
    for known in subclasses:
        if vars(known).get("_in_place_of") is kind:
            return known
    names = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__")}
    own = {"_in_place_of": kind, "__reduce_ex__": _reduced}
    return type(kind)(kind.__name__, (_Unannounced, kind, DataLoader), {**names, **own})


class _Unannounced(torch.utils.data.DataLoader[Any]):
    """Keeps the class that is made here from what a library does with each subclass of its own."""

    def __init_subclass__(cls) -> None:
        pass


def _put() -> None:
    """Replace the methods of torch's class."""
    for name in ENTRIES:
        original = vars(THEIRS)[name]
        if hasattr(original, "_of_headrace"):  # an earlier one's, brought back by somebody's wrapper
            original = original.__wrapped__
        _originals[name] = original
        setattr(THEIRS, name, _init(original) if name == "__init__" else _entry(name, original))
    _tell_children()


def _take_back() -> None:
    for name, original in _originals.items():
        # Somebody else may have replaced it since; that one's own undoing brings back ours, which passes all on.
        if hasattr(vars(THEIRS)[name], "_of_headrace"):
            setattr(THEIRS, name, original)
    _originals.clear()


def _init(theirs: Callable[..., None]) -> Any:
    @functools.wraps(theirs)
    def init(self: Any, *given: Any, **named: Any) -> None:
        latest = _active[-1] if _active else None
        kind = type(self)
        if issubclass(kind, DataLoader):
            DataLoader.__init__(self, *given, **named)
        elif latest is None or not _becomes_ours(self, kind, named.get("multiprocessing_context")):
            theirs(self, *given, **named)
        else:
            kept = kept_arguments()
            # Accelerate passes on the number of workers that a loader with "auto" begins with.
            measured: dict[str, Any] = {n: kept[n] for n in ("num_workers", "prefetch_factor") if n in kept}
            DataLoader.__init__(self, *given, **{**latest.arguments, **kept, **named, **measured})
            if not named.keys() & ARGUMENTS:  # what it has of ours, a loader that Accelerate makes of it has too
                self._is_accelerate_prepared = False
            if latest.explain:
                _say(self)

    init._of_headrace = True  # type: ignore[attr-defined]
    return init


def _entry(name: str, theirs: Callable[..., Any]) -> Any:
    ours = getattr(DataLoader, name)

    @functools.wraps(theirs)
    def entry(self: Any, *given: Any, **named: Any) -> Any:
        return (ours if issubclass(type(self), DataLoader) else theirs)(self, *given, **named)

    entry._of_headrace = True  # type: ignore[attr-defined]
    return entry


def _becomes_ours(loader: Any, kind: type, context: Any) -> bool:
    """Turn an object into ours, or warn that it stays torch's."""
    names = overrides.unreadable(kind)
    reason = f"it overrides {', '.join(names)}, which headrace's loader does not read" if names else ""
    if starts_threads(context):
        reason = "its multiprocessing_context starts threads in the place of processes"
    if not reason:
        try:
            object.__setattr__(loader, "__class__", in_place_of(kind))
        except TypeError as error:  # of a metaclass, or of __slots__
            reason = f"no subclass of it can be made ({error})"
    if reason:
        where = f"{kind.__module__}.{kind.__qualname__}"
        warnings.warn(f"{where} is left to torch: {reason}", UserWarning, stacklevel=user_line())
    return not reason


def _say(loader: Any) -> None:
    own = getattr(loader, "explain", None)
    text = own() if callable(own) else explained(loader.dataset)
    print(f"headrace: {loader!r}\n{text}", file=sys.stderr, flush=True)  # noqa: T201


def _reduced(self: Any, protocol: Any) -> Any:
    """Pickle by the class that the loader was made of, which has a name."""
    reduced: tuple[Any, ...] = object.__reduce_ex__(self, protocol)  # type: ignore[assignment]
    made, arguments = reduced[:2]
    return _remade, (type(self)._in_place_of, made, arguments[1:]), *reduced[2:]


def _remade(kind: type, made: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return made(in_place_of(kind), *arguments)


def _tell_children() -> None:
    """Let processes that are not forked do the same as they begin: their first object unpickled does it."""
    config = getattr(process.current_process(), "_config", None)
    if isinstance(config, dict):
        config.pop("headrace.torch", None)
        if _active and _can_be_pickled(_active[-1].arguments):
            config["headrace.torch"] = _active[-1]


def _can_be_pickled(arguments: dict[str, Any]) -> bool:
    try:
        pickle.dumps(arguments)
    except Exception:  # noqa: BLE001  whatever a user's object does when it is pickled
        return False
    return True


def _again(arguments: dict[str, Any], explain: bool) -> Patch:
    """Do in a child process what its parent had done; once, however often it is unpickled."""
    for known in _active:
        if (known.arguments, known.explain) == (arguments, explain):
            return known
    return Patch(arguments, explain=explain)
