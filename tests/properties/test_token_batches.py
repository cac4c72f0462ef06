"""Token batches of every kind against a brute-force oracle: any sampler, any workers, any number of ranks, resumed.

HEADRACE_EXAMPLES sets how many combinations are drawn; the default is for CI.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import ConcatDataset, DataLoader, Ledger, verify_epoch
from headrace.collate import PackedCollate, PaddedCollate
from headrace.context.seeds import key_of
from headrace.datasets import GroupedDataset, TokenDataset
from headrace.plan.order import Shuffled
from headrace.plan.permutation import Permutations
from headrace.samplers import (
    MixtureSampler,
    PackingBatchSampler,
    Piece,
    ReplacementSampler,
    ShardSampler,
    TokenBatchSampler,
)

EXAMPLES = int(os.environ.get("HEADRACE_EXAMPLES", "25"))
ROOM = 16
WINDOW = 4
SEED = 5
EXECUTORS: list[dict[str, Any]] = [
    {},
    {"num_workers": 2, "backend": "threads"},
    {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
]


@dataclass
class Case:
    """What is read, and how it is put in batches."""

    documents: list[Any]
    """All of them: those of the first dataset, and then those of the second."""
    first: int
    """How many the first dataset has."""
    order: str
    batches: str
    longer: Any
    from_files: bool

    def dataset(self) -> Any:
        parts = [part for part in (self.documents[: self.first], self.documents[self.first :]) if part]
        both: Any = [TokenDataset(part, documents=True) for part in parts] if self.from_files else parts
        return ConcatDataset(both)

    @property
    def lengths(self) -> list[int]:
        return [len(document) for document in self.documents]

    def sampler(self) -> Any:
        sizes = [self.first, len(self.documents) - self.first]
        if self.order == "all":
            return None
        if self.order == "replacement":
            return ReplacementSampler(len(self.documents), 2 * len(self.documents))
        if self.order == "shards":
            return ShardSampler(sizes, window=1)
        mixture = MixtureSampler(sizes, [1, 2], num_samples=2 * len(self.documents))
        return mixture.changed(3 * len(self.documents), [4, 1]) if self.order == "changed" else mixture

    def loader(self, how: dict[str, Any]) -> DataLoader[Any]:
        how = {**how, "seed": SEED}
        if self.batches == "plain":
            order = {"shuffle": True} if self.order == "all" else {"sampler": self.sampler()}
            return DataLoader(self.dataset(), 3, collate_fn=PaddedCollate(fields=["values", "lengths"]), **order, **how)
        rule: dict[str, Any] = {"sampler": self.sampler(), "longer": self.longer, "window": WINDOW}
        if self.batches == "packed":
            rows = PackingBatchSampler(self.lengths, ROOM, 2, **rule)
            collate = PackedCollate(ROOM, fields=["values", "segment_ids"])
            return DataLoader(GroupedDataset(self.dataset()), batch_sampler=rows, collate_fn=collate, **how)
        budget = TokenBatchSampler(self.lengths, ROOM, **rule)
        collate_padded = PaddedCollate(fields=["values", "lengths"])
        return DataLoader(self.dataset(), batch_sampler=budget, collate_fn=collate_padded, **how)

    def indices(self, epoch: int) -> list[int]:
        sampler = self.sampler()
        if sampler is None:
            return list(Shuffled(len(self.documents), key_of(SEED)).keys(epoch, 0, len(self.documents)))
        order = sampler.order(key_of(SEED))
        return list(order.keys(epoch, 0, len(order)))

    def parts(self, indices: list[int]) -> list[Any]:
        """Return the keys of these documents: each whole, cut, or in parts."""
        keys: list[Any] = []
        for index in indices:
            length = len(self.documents[index])
            if length <= ROOM:
                keys.append(index)
            elif self.longer == "truncate":
                keys.append(Piece(index, 0, ROOM))
            elif self.longer == "split":
                keys += [Piece(index, start, min(start + ROOM, length)) for start in range(0, length, ROOM)]
        return keys

    def tokens(self, key: Any) -> list[int]:
        if isinstance(key, Piece):
            return list(self.documents[key.index][key.start : key.stop])
        return list(self.documents[key])

    def groups(self, epoch: int) -> list[list[Any]]:
        """Return the rows, or the batches of a budget, of an epoch: by looking at every row for each document."""
        indices = self.indices(epoch)
        groups: list[list[Any]] = []
        for number, start in enumerate(range(0, len(indices), WINDOW)):
            keys = self.parts(indices[start : start + WINDOW])
            found = self.packed(keys) if self.batches == "packed" else self.within_budget(keys)
            order = Permutations(key_of(SEED), epoch, stream=1).at(np.arange(len(found)), len(found), number)
            groups += [found[place] for place in order.tolist()]
        return groups

    def packed(self, keys: list[Any]) -> list[list[Any]]:
        rows: list[list[Any]] = []
        latest: list[int] = []
        for key in sorted(keys, key=lambda key: -len(self.tokens(key))):
            left = [ROOM - sum(len(self.tokens(other)) for other in row) for row in rows]
            fitting = [row for row, space in enumerate(left) if space >= len(self.tokens(key))]
            row = min(fitting, key=lambda row: (left[row], latest.index(row)), default=len(rows))
            if row == len(rows):
                rows.append([])
            rows[row].append(key)
            latest = [row, *(other for other in latest if other != row)]
        return rows

    def within_budget(self, keys: list[Any]) -> list[list[Any]]:
        found: list[list[Any]] = []
        for key in sorted(keys, key=lambda key: len(self.tokens(key))):
            cost = max(len(self.tokens(key)), 1)
            if found and cost * (len(found[-1]) + 1) <= ROOM:
                found[-1].append(key)
            else:
                found.append([key])
        return found

    def expected(self, epoch: int) -> list[list[Any]]:
        """Return what the batches of one rank hold: the documents of each batch, or the rows of documents."""
        if self.batches == "plain":
            indices = self.indices(epoch)
            return [[self.tokens(index) for index in indices[start : start + 3]] for start in range(0, len(indices), 3)]
        groups = self.groups(epoch)
        if self.batches == "budget":
            return [[self.tokens(key) for key in group] for group in groups]
        rows = [[self.tokens(key) for key in row if len(self.tokens(key))] for row in groups]
        return [rows[start : start + 2] for start in range(0, len(rows), 2)]


def held(batch: dict[str, Any]) -> list[Any]:
    """Return the documents in a batch, or in each of its rows."""
    values = batch["values"]
    assert values.dtype == np.int64
    if "lengths" in batch:
        return [row[:length].tolist() for row, length in zip(values, batch["lengths"], strict=True)]
    rows = []
    for row, segments in zip(values, batch["segment_ids"], strict=True):
        rows.append([row[segments == number].tolist() for number in range(1, segments.max() + 1)])
        rows[-1] = [document for document in rows[-1] if document]
    return rows


@st.composite
def cases(draw: st.DrawFn) -> Case:
    lengths = draw(st.lists(st.integers(0, 45), min_size=2, max_size=24))
    batches = draw(st.sampled_from(["plain", "budget", "packed"]))
    longer = draw(st.sampled_from(["split", "truncate", "drop"]))
    if min(lengths) > ROOM and longer == "drop":
        lengths[0] = ROOM
    from_files = draw(st.booleans())
    if from_files:
        lengths = [max(length, 1) for length in lengths]
    documents = [np.arange(length, dtype=np.uint16) + 100 * number for number, length in enumerate(lengths)]
    first = draw(st.integers(1, len(lengths) - 1))
    order = draw(st.sampled_from(["all", "mixture", "changed", "shards", "replacement"]))
    return Case(documents, first, order, batches, longer, from_files)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    case=cases(),
    epoch=st.integers(0, 2),
    stop=st.integers(0, 20),
    worlds=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    executors=st.tuples(st.sampled_from(EXECUTORS), st.sampled_from(EXECUTORS)),
)
def test_every_combination_gives_what_the_oracle_says(
    case: Case, epoch: int, stop: int, worlds: tuple[int, int], executors: tuple[Any, Any]
) -> None:
    """Deliver all batches of an epoch, in order over all ranks, through a stop and a resume by other ones; prove it."""
    ledgers: list[Ledger] = []
    received: list[Any] = []
    state: dict[str, Any] | None = None
    for world, executor, steps in zip(worlds, executors, (stop, None), strict=True):
        states, ranks = [], []
        for rank in range(world):
            ledgers.append(Ledger())
            loader = case.loader({"rank": rank, "world_size": world, "ledger": ledgers[-1], **executor})
            loader.set_epoch(epoch)
            if state is not None:
                loader.load_state_dict(state)
            batches = iter(loader)
            ranks.append([held(batch) for batch in islice(batches, steps)])
            states.append(json.loads(json.dumps(loader.state_dict())))
            assert len(json.dumps(states[-1])) < 1100
            loader.close()
        assert all(other == states[0] for other in states)
        received += [batch for step in zip(*ranks, strict=True) for batch in step]
        state = states[0]
        if state["epoch"] != epoch:
            break
    whole = case.expected(epoch)
    if case.batches == "plain":  # ranks share the rows of a batch, in order
        received = [[row] for batch in received for row in batch]
        whole = [[row] for batch in whole for row in batch]
    assert received[: len(whole)] == whole
    assert len(received) - len(whole) < max(worlds)
    proof = verify_epoch(*ledgers, epoch=epoch)
    assert proof.exact, str(proof)
    if case.batches == "plain":
        assert proof.delivered == len(case.indices(epoch))


@settings(max_examples=EXAMPLES, deadline=None)
@given(case=cases(), step=st.integers(0, 30), executor=st.sampled_from(EXECUTORS[:2]))
def test_every_document_comes_once_and_any_batch_is_made_again(case: Case, step: int, executor: Any) -> None:
    """Give each document, or each of its parts, as often as the sampler does; replay a batch and its keys."""
    loader = case.loader(executor)
    batches = [held(batch) for batch in loader]
    rows = [row if packs(case) else [row] for batch in batches for row in batch]
    documents = [tuple(document) for row in rows for document in row]
    keys = case.indices(0) if case.batches == "plain" else case.parts(case.indices(0))
    expected = [tuple(case.tokens(key)) for key in keys]
    assert Counter(filter(None, documents)) == Counter(filter(None, expected))
    assert len(loader) == len(case.expected(1))
    if not batches:  # a mixture may draw only documents that are dropped
        return
    step %= len(batches)
    assert held(loader.replay(epoch=0, step=step)) == batches[step]
    lineage = loader.lineage(epoch=0, step=step, index=0)
    here = [case.tokens(part) for part in (lineage.key if packs(case) else [lineage.key])]
    assert list(filter(None, here)) == list(filter(None, batches[step][0] if packs(case) else batches[step][:1]))


def packs(case: Case) -> bool:
    return case.batches == "packed"
