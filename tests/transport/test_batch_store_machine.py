"""The store of shared batches under any sequence of what processes do, with a cap of a few batches."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headrace.storage.file_locks import unlock
from headrace.transport.batch_store import HEAD, BatchStore, BatchWriter, Peer

if TYPE_CHECKING:
    from headrace.transport.batch_claims import Claim

STEPS, ROWS, FACTS = 6, 1 << 16, {"seed": 0}
MOST = 3 * (2 * ROWS + HEAD)
PEERS = 4


def name_of(step: int) -> str:
    """Return the name of a batch."""
    return f"{0:016x}-{step:016x}-{0:016x}"


def contents(step: int) -> Any:
    """Return the batch of a step: sizes differ by less than half."""
    return np.full(ROWS + 1000 * step, step, "u1")


@dataclass
class Process:
    """What one process has open."""

    store: BatchStore
    peer: Peer
    claims: dict[int, Claim] = field(default_factory=dict)
    writers: list[BatchWriter] = field(default_factory=list)
    held: list[tuple[int, Any]] = field(default_factory=list)
    needs: int = 0

    def die(self) -> None:
        """Do what the operating system does when a process is killed: close its files, and no more."""
        self.peer.leave.cancel()
        unlock(self.peer._file)
        for claim in self.claims.values():
            unlock(claim._file)
        for writer in self.writers:
            for memory in writer._memories:
                unlock(memory.file)


class Sharing(RuleBasedStateMachine):
    """Processes join, claim, write, publish, take, move on, leave and die."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.folder = self.root / "user" / "name"
        self.processes: list[Process] = []
        self.kept: list[tuple[int, Any]] = []
        """Arrays of processes that have left: they live on."""

    def any_of(self, data: st.DataObject) -> Process:
        """Draw a process."""
        return data.draw(st.sampled_from(self.processes))

    @precondition(lambda self: len(self.processes) < PEERS)
    @rule()
    def join(self) -> None:
        """Take part, with a store of its own."""
        store = BatchStore(self.folder, MOST)
        self.processes.append(Process(store, store.join(FACTS)))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), step=st.integers(0, STEPS - 1))
    def claim(self, data: st.DataObject, step: int) -> None:
        """Claim what nobody has claimed, and nothing else."""
        process = self.any_of(data)
        others = [each for each in self.processes if step in each.claims]
        claim = process.store.claim(name_of(step))
        assert (claim is None) == bool(others)
        if claim is not None:
            process.claims[step] = claim
            return
        watched = process.store.watch(name_of(step))
        assert watched is not None
        os.close(watched)

    @precondition(lambda self: any(each.claims for each in self.processes))
    @rule(data=st.data(), whole=st.booleans())
    def publish(self, data: st.DataObject, whole: bool) -> None:
        """Make a claimed batch, in lent memory where there is some; publish it and release the claim, or stop there."""
        process = data.draw(st.sampled_from([each for each in self.processes if each.claims]))
        step = data.draw(st.sampled_from(sorted(process.claims)))
        expected = contents(step)
        writer = process.store.write(name_of(step)).__enter__()
        array = writer.empty(expected.shape, expected.dtype)
        array[:] = expected
        if not whole:
            process.writers.append(writer)
            return
        published = writer.publish([array, step], step)
        writer.__exit__()
        assert not published or process.store.take(name_of(step)) is not None
        process.claims.pop(step).release()

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), step=st.integers(0, STEPS - 1))
    def take(self, data: st.DataObject, step: int) -> None:
        """Get the batch of that name or none, and hold it."""
        process = self.any_of(data)
        taken = process.store.take(name_of(step))
        if taken is not None:
            assert taken.said == taken.batch[1] == step
            assert np.array_equal(taken.batch[0], contents(step))
            process.held.append((step, taken.batch[0]))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), step=st.integers(0, STEPS))
    def move_on(self, data: st.DataObject, step: int) -> None:
        """Need nothing before a step, and drop some of what is held."""
        process = self.any_of(data)
        process.needs = step
        process.peer.needs((0, step))
        del process.held[: step // 2]

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), killed=st.booleans())
    def end(self, data: st.DataObject, killed: bool) -> None:
        """Leave, or die with all that is open; arrays that were taken stay."""
        process = self.any_of(data)
        self.processes.remove(process)
        self.kept += process.held[:2]
        if killed:
            process.die()
            return
        for writer in process.writers:
            writer.__exit__()
        for claim in process.claims.values():
            claim.release()
        process.peer.leave()
        if not self.processes:
            assert not list(self.root.iterdir())

    @invariant()
    def arrays_never_change(self) -> None:
        """Compare all that is held."""
        for step, array in [*self.kept, *(each for process in self.processes for each in process.held)]:
            assert np.array_equal(array, contents(step))

    @invariant()
    def the_cap_holds(self) -> None:
        """Add up the files."""
        files = [path for path in self.folder.glob("*") if path.name.startswith(("batch-", "memory-"))]
        assert sum(path.stat().st_size for path in files) <= MOST

    @invariant()
    def who_needs_a_batch_is_counted(self) -> None:
        """Count the living."""
        for process in self.processes[:1]:
            for step in range(STEPS):
                needing = sum(each.needs <= step for each in self.processes)
                assert process.store.wanted(name_of(step)) == needing - 1

    def teardown(self) -> None:
        """Die, come back, and leave nothing."""
        for process in self.processes:
            process.die()
        self.processes.clear()
        BatchStore(self.folder, MOST).join({"other": 1}).leave()
        assert not list(self.root.iterdir())
        shutil.rmtree(self.root)


Sharing.TestCase.settings = settings(max_examples=12, stateful_step_count=30, deadline=None)
TestSharing = Sharing.TestCase
