"""Checks that read samples on one thread: errors, length, structure, collating, repetition and global randomness."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from headrace.checks import kind_of
from headrace.context import seeds
from headrace.formatting import count
from headrace.run.detector import held
from headrace.testing.sample_bytes import digest, nbytes, structure
from headrace.testing.source_lines import assigned, defined, frames_of_error, is_users, place_of, shown_file
from headrace.testing.subject import Report, Subject, descriptors, seed, walked

if TYPE_CHECKING:
    from types import FrameType

_NAMES = {"random": "random", "numpy": "np.random", "torch": "torch's global generator"}
_MOST_STREAMED = 2000


def reads(subject: Subject) -> Report:
    """Read the first samples of all: they come without an error, keep their bytes, and have one structure."""
    report = Report()
    kept: list[tuple[Any, Any, str]] = []
    if not subject.streams:
        report.kept["keys"] = subject.keys = subject.choose()
        if not subject.keys:
            report.unchecked["reads"] = "the dataset is empty"
            return report
    for key in [None] if subject.streams else list(subject.keys):
        try:
            read = subject.samples(None if subject.streams else [key])
            kept += [(at, sample, digest(sample)) for at, sample in read]
        except Exception as error:  # noqa: BLE001  a user's own
            if isinstance(error, IndexError) and subject.indexed and _ends_early(subject):
                report.kept["keys"] = subject.keys = _within(subject, report)
            else:
                _raised(subject, report, key, error)
            break
    if report.findings and report.findings[-1].check == "reads":
        return report
    report.facts["sample_bytes"] = max((nbytes(sample) for _, sample, _ in kept), default=0)
    for at, sample, before in kept:
        if digest(sample) != before:
            report.find(
                "aliasing",
                "samples share memory that later reads overwrite",
                f"sample {at} had other bytes once sample {kept[-1][0]} was read",
                "Return a copy of the buffer, or a new array for each sample.",
                subject.place(),
            )
            break
    _structures(subject, report, [(at, sample) for at, sample, _ in kept])
    if subject.indexed and not report.findings:
        _beyond(subject, report)
    if subject.streams and hasattr(type(subject.dataset), "__len__"):
        _counted(subject, report)
    return report


def _ends_early(subject: Subject) -> bool:
    """Say whether the last index is not there either."""
    try:
        subject.read(len(subject.dataset) - 1)
    except IndexError:
        return True
    except Exception:  # noqa: BLE001  another error: the length may be true
        return False
    return False


def _raised(subject: Subject, report: Report, key: Any, error: Exception) -> None:
    what = "the stream cannot be read" if subject.streams else f"sample {key!r} cannot be read"
    said = f"{type(error).__name__}: {error}"
    place = place_of(frames_of_error(error)) or subject.place()
    report.find("reads", what, said, "Fix the sample, or leave it out: headrace check lists all such.", place)


def _within(subject: Subject, report: Report) -> list[Any]:
    """Find by halving how many samples there are, where the last one is not there; return keys that are."""
    low, high = -1, len(subject.dataset) - 1
    while high - low > 1:
        middle = (low + high) // 2
        try:
            subject.read(middle)
            low = middle
        except IndexError:
            high = middle
    report.find(
        "length",
        "the dataset has fewer samples than len() says",
        f"len() is {len(subject.dataset):,}, and index {high:,} raises IndexError",
        "Return the number of samples that __getitem__ can give.",
        defined(getattr(type(subject.dataset), "__len__", None)),
    )
    return list(range(min(high, 8)))


def _beyond(subject: Subject, report: Report) -> None:
    """Read one beyond the last sample, which has to be an IndexError: plain iteration ends by it."""
    size, own = len(subject.dataset), getattr(type(subject.dataset), "__iter__", None)
    place = subject.place()
    try:
        subject.read(size)
    except IndexError:
        return
    except Exception as error:  # noqa: BLE001  a user's own
        if own is None:
            found = f"index {size:,} raises {type(error).__name__}"
            cure = "Raise IndexError for an index from len() on: a for loop over the dataset ends by it."
            report.find("length", "an index beyond the end is no IndexError", found, cure, place)
        return
    if own is None:
        report.find(
            "length",
            "the dataset gives samples beyond its length",
            f"len() is {size:,}, and index {size:,} gives a sample",
            "Raise IndexError for an index from len() on, or return the true number: a for loop would never end.",
            place,
        )


def _counted(subject: Subject, report: Report) -> None:
    try:
        said = len(subject.dataset)
    except (TypeError, NotImplementedError):  # a stream need not know
        return
    if said > _MOST_STREAMED:
        report.unchecked["length"] = f"the stream says {said:,} samples: more than {_MOST_STREAMED:,} to count"
        return
    found = sum(1 for _ in subject.stream(said + 1))
    if found != said:
        report.find(
            "length",
            "the stream gives another number of samples than len() says",
            f"len() is {said:,}, and iterating gives {'more' if found > said else f'{found:,}'}",
            "Return the number of samples that iterating gives, or define no __len__.",
            defined(getattr(type(subject.dataset), "__len__", None)),
        )


def _structures(subject: Subject, report: Report, samples: list[tuple[Any, Any]]) -> None:
    if subject.collate is None or not samples:
        return
    if not subject.own_collate:
        (first, sample), *others = samples
        for at, other in others:
            if (differs := _difference(structure(sample), structure(other))) is not None:
                place, one, two = differs
                report.find(
                    "structure",
                    "samples differ in their structure",
                    f"sample{place} is {one} at index {first}, and {two} at index {at}",
                    "Give all samples the same fields, dtypes and shapes, or pass a collate_fn that joins them.",
                    subject.place(),
                )
                return
    if any(found.check == "aliasing" for found in report.findings):
        return
    _collated(subject, report, [sample for _, sample in samples])


def _difference(one: tuple[tuple[str, str], ...], two: tuple[tuple[str, str], ...]) -> tuple[str, str, str] | None:
    here, there = dict(one), dict(two)
    for place in [*here, *there]:
        if here.get(place) != there.get(place):
            return place, here.get(place, "missing"), there.get(place, "missing")
    return None


def _collated(subject: Subject, report: Report, samples: list[Any]) -> None:
    """Collate the same samples twice."""
    found = []
    place = defined(subject.collate)
    try:
        for _ in range(2):
            subject.pulse.beat(0)
            with seeds.at(seeds.Here(seeds.key_of(0), 0, 0, collating=True)):
                found.append(digest(subject.collate(list(samples))))
    except Exception as error:  # noqa: BLE001  a user's own
        place = place_of(frames_of_error(error)) or place or subject.place()
        said = f"{type(error).__name__}: {error}"
        report.find("collate", "samples cannot be collated", said, "Fix collate_fn, or the samples.", place)
        return
    finally:
        subject.pulse.beat(0, reading=False)
    if found[0] != found[1]:
        said = f"collating the same {count(len(samples), 'sample')} twice gave other bytes"
        cure = "Draw from headrace.batch_rng(), and leave the samples as they are."
        report.find("collate", "collate_fn gives another batch each time", said, cure, place)


def repeats(subject: Subject) -> Report:
    """Read samples twice, and in another order: the same index gives the same bytes, and no global generator moves."""
    report = Report()
    opened = descriptors()
    _repeated(subject, report)
    _drawn(subject, report)
    now, reads = descriptors(), 2 * len(subject.keys)
    if reads and opened is not None and now is not None and now - opened >= reads - 2:
        said = f"{now - opened} more files are open after the samples were read a few times"
        cure = "Close them: with open(path) as file."
        report.find("descriptors", "reading leaves files open", said, cure, subject.place())
    return report


def _repeated(subject: Subject, report: Report) -> None:
    before = {name: id(value) for name, value in _own(subject.dataset).items()}
    if subject.streams:
        first = [digest(sample) for sample in subject.stream()]
        second = [digest(sample) for sample in subject.stream()]
        if first != second:
            at = next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(second))
            _unequal(
                subject, report, "repeat", f"sample {at} differs from one pass over the stream to the next", before
            )
        return
    once: dict[Any, str] = {}
    for key in subject.keys:
        once[key], again = digest(subject.read(key)), digest(subject.read(key))
        if once[key] != again:
            _unequal(subject, report, "repeat", f"index {key!r}, read twice, gave other bytes", before)
            return
    for order, keys in (("backwards", subject.keys[::-1]), ("forwards again", subject.keys)):
        for key in keys:
            if digest(subject.read(key)) != once[key]:
                _unequal(subject, report, "order", f"index {key!r}, read {order}, gave other bytes", before)
                return
    report.kept["digests"] = once


def _own(dataset: Any) -> dict[str, Any]:
    return getattr(dataset, "__dict__", None) or {}


def _unequal(subject: Subject, report: Report, check: str, evidence: str, before: dict[str, int]) -> None:
    """Say what a sample depends on: a generator that is held, an attribute that reads change, or something else."""
    place, cure = subject.place(), "Let a sample depend on its index and on headrace.rng() alone."
    generators = [path for path, _ in held(subject.dataset, "dataset")]
    changed = [name for name, value in _own(subject.dataset).items() if before.get(name) != id(value)]
    if generators:
        evidence += f"; {generators[0]} is a generator that all samples share"
        cure = "Draw from headrace.rng(), which belongs to the sample."
        name = generators[0].rpartition(".")[2]
        place = next((assigned(o, name) for _, _, o in walked(subject.dataset, "") if assigned(o, name)), place)
    elif changed:
        evidence += f"; reads set dataset.{changed[0]}"
        place = assigned(subject.dataset, changed[0], after_init=True) or place
    report.find(check, "a sample depends on what was read before", evidence, cure, place)


def _drawn(subject: Subject, report: Report) -> None:
    """Look whether reading moves the global generators, and on which line of the user's."""
    key = 0 if subject.streams else subject.keys[0]
    names, tracer = set(), _Moves()
    for at in [key] if subject.streams else subject.keys[:4]:
        with suppress(Exception):  # errors are another check's
            seeding = seeds.global_states()
            sys.settrace(tracer)
            try:
                _ = list(subject.stream(4)) if subject.streams else subject.read(at, seeded=False)
            finally:
                sys.settrace(None)
            after = seeds.global_states()
            if subject.streams:  # whose first sample is read with the generators seeded
                seed(0)
                seeding = seeds.global_states()
            names |= seeds.moved(seeding, after)
    if names:
        said = " and ".join(_NAMES[name] for name in sorted(names))
        report.find(
            "randomness",
            "samples draw from a global generator",
            f"reading moves {said}",
            "Draw from headrace.rng(): the global generators are shared by threads, and alike in forked workers.",
            tracer.place or subject.place(),
        )
        report.kept["random"] = True


class _Moves:
    """Traces the user's own lines, and finds the first one after which a global generator has moved."""

    def __init__(self) -> None:
        self.place: str | None = None
        self._before = seeds.global_states()
        self._line = ""

    def __call__(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if self.place is not None or not is_users(frame.f_code.co_filename):
            return None
        if event == "call":
            self._before = seeds.global_states() if not self._line else self._before
            return self
        now = seeds.global_states()
        if self._line and seeds.moved(self._before, now):
            self.place = self._line
        self._before, self._line = now, f"{shown_file(frame.f_code.co_filename)}:{frame.f_lineno}"
        return self


def kinds(dataset: Any) -> str:
    """Return what a dataset is, in a few words.

    >>> kinds([1, 2])
    'list, 2 samples'
    """
    with suppress(Exception):  # the user's len may raise anything
        return f"{type(dataset).__qualname__}, {count(len(dataset), 'sample')}"
    return kind_of(dataset)
