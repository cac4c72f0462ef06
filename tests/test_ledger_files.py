"""Files of ledgers that are cut, changed or forged: damage is reported, with its place, and costs nothing."""

from __future__ import annotations

import io
import json
import os
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace import DataLoader, Ledger, SampleError, verify_epoch
from headrace.errors import BadFile
from headrace.ledger.format import MAGIC, Entry, Keys, Session, framed, of_entry, of_session, records
from headrace.ledger.intervals import Intervals
from headrace.samplers import ShardSampler

SESSION = Session(1, "name", None, 0, 0, (), 0, 0, 1, 1, 10, 10, {"order": "sequential"})


def written(tmp_path: Path) -> Path:
    path = tmp_path / "run.ledger"
    ledger = Ledger(path)
    list(DataLoader(range(9), 2, shuffle=True, seed=0, ledger=ledger))
    ledger.close()
    return path


def test_any_changed_bit_is_damage_and_never_an_end(tmp_path: Path) -> None:
    """Name the file and the byte at which the damaged record begins, for every bit of a file."""
    path = written(tmp_path)
    data = path.read_bytes()
    begins = [end for end, _ in records(io.BytesIO(data), "")][:-1]
    for bit in range(8 * len(data)):
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        path.write_bytes(spoiled)
        with pytest.raises(BadFile) as told:
            Ledger(path).sessions()
        assert str(path) in str(told.value)
        at = re.search(r"damaged at byte (\d+)", str(told.value))
        if bit // 8 >= len(MAGIC):
            assert at is not None
            assert int(at[1]) == max(begin for begin in begins if begin <= bit // 8)


def test_a_damaged_file_is_not_appended_to(tmp_path: Path) -> None:
    """Leave it as it is: what stands behind the damage may be wanted."""
    path = written(tmp_path)
    spoiled = bytearray(path.read_bytes())
    spoiled[len(MAGIC)] ^= 0x80
    path.write_bytes(spoiled)
    with pytest.raises(BadFile, match="damaged at byte 8: the length of a record"):
        list(DataLoader(range(9), 2, ledger=Ledger(path)))
    assert path.read_bytes() == spoiled


def test_a_file_cut_at_any_place_has_what_stands_before(tmp_path: Path) -> None:
    """Take a record cut short for the end: it is what a kill leaves."""
    path = written(tmp_path)
    data = path.read_bytes()
    ends = [end for end, _ in records(io.BytesIO(data), "")]
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        sessions, entries = Ledger(path).sessions()
        whole = sum(end <= length for end in ends[1:])
        assert len(sessions) + len(entries) == whole
        assert path.stat().st_size == length


def forged(path: Path, *payloads: bytes) -> Path:
    path.write_bytes(MAGIC + b"".join(map(framed, payloads)))
    return path


def entry(**facts: Any) -> bytes:
    return of_entry(replace(Entry(1, 0, None, 0, 2, Keys(2, range(2)), Keys(), 0, 0), **facts))


@pytest.mark.parametrize("order", ["sequential", "shuffled", "sampler"])
@pytest.mark.parametrize(
    "facts",
    [
        {"world": 10**9},
        {"world": 2**62},
        {"samples": 2**62, "ends": 2**62},
        {"samples": 2**33, "ends": 2**33, "world": 10**9},
        {"facts": {"samples": 2**62}},
    ],
    ids=str,
)
def test_a_forged_session_costs_nothing(facts: dict[str, Any], order: str, tmp_path: Path) -> None:
    """Allocate for what a file has, not for what it says that it has."""
    session = replace(SESSION, **facts)
    session = replace(session, facts={**session.facts, "order": order})
    keys = Keys(2**32 - 1, range(2**32 - 1))
    path = forged(tmp_path / "a.ledger", of_session(session), entry(), entry(at=1, keys=keys, stop=2**62))
    tracemalloc.start()
    try:
        proof = verify_epoch(path)
        text = str(proof)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not proof.exact
    assert peak < 4_000_000
    assert len(text) < 100_000


def test_ranks_without_a_ledger_are_counted_behind_the_first(tmp_path: Path) -> None:
    """Name a thousand of them."""
    proof = verify_epoch(forged(tmp_path / "a.ledger", of_session(replace(SESSION, world=10**9)), entry()))
    assert proof.absent[0] == "rank 1 of 1000000000"
    assert proof.absent[-1] == "999,998,999 more ranks of 1000000000"


@pytest.mark.parametrize(
    "facts",
    [
        {"world": 0},
        {"rank": 1},
        {"epoch": -1},
        {"epoch": True},
        {"first": 2**63},
        {"samples": 1.5, "ends": 1},
        {"samples": 3, "ends": 4},
        {"samples": 3, "ends": None},
        {"beyond": ["a"]},
        {"name": 3},
        {"facts": []},
        {"other": 1},
    ],
    ids=str,
)
def test_a_session_that_makes_no_sense_is_damage(facts: dict[str, Any], tmp_path: Path) -> None:
    """Check every number before it is used."""
    told = {**{name: getattr(SESSION, name) for name in Session.__slots__}, **facts}
    path = forged(tmp_path / "a.ledger", b"S" + json.dumps(told).encode())
    with pytest.raises(BadFile, match="damaged at byte 8: record 0 is invalid"):
        verify_epoch(path)


def test_a_ledger_stays_where_it_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a relative folder or file from the folder of the moment, whatever the program does later."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    loader = DataLoader(range(6), 2, ledger="run")
    ledger = Ledger("one.ledger")
    os.chdir(tmp_path / "elsewhere")
    list(loader)
    list(DataLoader(range(6), 2, ledger=ledger))
    loader.close()
    ledger.close()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert verify_epoch(tmp_path / "run").exact
    assert verify_epoch(tmp_path / "one.ledger").exact


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """Refuse a device without an end, and a pipe that waits for a writer."""
    os.mkfifo(tmp_path / "pipe.ledger")
    for path in (tmp_path / "pipe.ledger", Path("/dev/zero")):
        with pytest.raises(BadFile, match="a device, a pipe or a folder"):
            verify_epoch(path)


def test_a_hole_behind_the_records_is_damage(tmp_path: Path) -> None:
    """Read no further than the first record that is none."""
    path = written(tmp_path)
    size = path.stat().st_size
    os.truncate(path, 2**40)
    with pytest.raises(BadFile, match=f"damaged at byte {size}"):
        verify_epoch(path)


def test_a_file_of_an_older_version_is_reported(tmp_path: Path) -> None:
    """Say which version it is, and what to do."""
    path = tmp_path / "old.ledger"
    path.write_bytes(b"hrledgr1" + bytes(20))
    with pytest.raises(BadFile, match=r"older version.*move it away"):
        verify_epoch(path)


class Last:
    """Five samples, of which the last cannot be made."""

    suits_threads = True

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> int:
        if index == 4:
            raise SampleError("bad")
        return index


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("uneven", ["pad", "drop", "repeat"])
def test_a_bad_sample_at_the_end_of_a_planned_order_is_not_missing(
    batch_size: int, drop_last: bool, uneven: Any
) -> None:
    """Count it as bad, and the samples before it that make no whole batch as left out."""
    ledger = Ledger()
    sampler = ShardSampler([2, 3], window=1)
    how: dict[str, Any] = {"on_error": "skip", "drop_last": drop_last, "uneven": uneven, "seed": 1, "ledger": ledger}
    received = [key for batch in DataLoader(Last(), batch_size, sampler=sampler, **how) for key in batch.tolist()]
    proof = verify_epoch(ledger)
    assert proof.exact, str(proof)
    assert (proof.bad, proof.repeats, proof.not_asked_for) == (1, 0, 0)
    assert proof.delivered + proof.left_out == 4
    assert proof.delivered == len(set(received))


def test_intervals_are_those_of_a_set() -> None:
    """Hold what overlaps and what is left to sets of numbers."""
    some = Intervals.of([range(5, 9), range(5, 6), range(2), range(6, 12), range(7, 8)])
    union, double = some.merged()
    assert union.first(9) == [range(2), range(5, 12)]
    assert union.gaps(14).first(9) == [range(2, 5), range(12, 14)]
    assert double.counts(9) == {5: 2, 6: 2, 7: 3, 8: 2}
    assert double.total == 5
    assert Intervals.of([]).merged()[0].gaps(3).first(9) == [range(3)]
