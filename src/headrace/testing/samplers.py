"""The suites for planned samplers: an order that can be entered anywhere, and that ranks share without overlap."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

from headrace.context.seeds import key_of
from headrace.loader import DataLoader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.plan.planned import PlannedBatchSampler, PlannedSampler

WORLD_SIZE = 3


class Keys:
    """A dataset whose samples are the keys that it is asked for.

    >>> Keys()["any"]
    'any'
    """

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, key: Any) -> Any:
        return key


class _PlannedTests:
    """What both kinds of planned samplers promise; one item is an index of a sampler, or a batch of a batch sampler."""

    shuffles = True
    """Whether another seed or epoch gives another order."""

    def make(self, seed: int | None) -> Any:
        """Return a new sampler with this seed; without one it takes the loader's."""
        raise NotImplementedError(f"{type(self).__qualname__} must define make(seed), which returns a sampler")

    def loader(self, sampler: Any, **options: Any) -> DataLoader[list[Any]]:
        """Return a loader whose batches are lists of the keys that the sampler chose."""
        raise NotImplementedError

    def planned(self, sampler: Any, seed: int, epoch: int) -> list[Any]:
        """Return all items of an epoch, as the plan gives them."""
        raise NotImplementedError

    def iterated(self, sampler: Any, epoch: int) -> list[Any]:
        """Return all items of an epoch, as iterating gives them."""
        sampler.set_epoch(epoch)
        return list(sampler)

    def test_the_order_is_a_function_of_seed_and_epoch(self) -> None:
        """Give the same items again, from a pickled copy too; and others for another seed or epoch."""
        items = self.iterated(self.make(3), 2)
        assert items
        assert items == self.iterated(pickle.loads(pickle.dumps(self.make(3))), 2)  # noqa: S301  our own pickle
        if self.shuffles:
            assert items != self.iterated(self.make(4), 2)
            assert items != self.iterated(self.make(3), 1)

    def test_iterating_gives_what_the_plan_says(self) -> None:
        """Give the same items by iterating as the loader gets; a sampler's own seed outranks the loader's."""
        for epoch in range(3):
            items = self.iterated(self.make(3), epoch)
            assert self.planned(self.make(None), 3, epoch) == items
            assert self.planned(self.make(3), 7, epoch) == items

    def test_its_length_is_the_number_of_its_items(self) -> None:
        """Say in advance how many items an epoch has."""
        sampler = self.make(3)
        assert len(sampler) == len(list(sampler))

    def test_the_fingerprint_names_what_the_order_is_made_of(self) -> None:
        """Fit less than 1 KB of JSON, equal for equal samplers; another seed has another."""
        fingerprint = self.make(3).fingerprint
        assert json.loads(json.dumps(fingerprint)) == fingerprint == self.make(3).fingerprint
        assert len(json.dumps(fingerprint)) < 1024
        assert fingerprint != self.make(4).fingerprint
        assert type(self.make(3)).__name__ in repr(self.make(3))

    def test_a_loader_goes_from_epoch_to_epoch(self) -> None:
        """Read epochs 0 and 1 in two loops, without a call of set_epoch."""
        loader = self.loader(self.make(None), seed=5)
        for epoch in range(2):
            assert self.flat(loader) == self.flat(self.planned(self.make(None), 5, epoch))

    def test_a_loader_resumes_anywhere(self) -> None:
        """Save after each of the first batches: another loader continues with the batches that were left."""
        whole = list(self.loader(self.make(None), seed=5))
        for steps in range(min(len(whole), 4)):
            begun = self.loader(self.make(None), seed=5)
            batches = iter(begun)
            assert [next(batches) for _ in range(steps)] == whole[:steps]
            resumed = self.loader(self.make(None), seed=5, num_workers=2, backend="threads")
            resumed.load_state_dict(json.loads(json.dumps(begun.state_dict())))
            assert list(resumed) == whole[steps:]
            begun.close()

    def ranks(self) -> list[list[list[Any]]]:
        """Return the batches of each of three ranks, which must be equally many."""
        ranks = [
            list(self.loader(self.make(None), seed=5, rank=rank, world_size=WORLD_SIZE)) for rank in range(WORLD_SIZE)
        ]
        assert len({len(batches) for batches in ranks}) == 1
        return ranks

    @staticmethod
    def flat(batches: Any) -> list[Any]:
        """Return the keys of all batches."""
        return [key for batch in batches for key in (batch if isinstance(batch, list) else [batch])]


class SamplerTests(_PlannedTests):
    """What every `PlannedSampler` must do: inherit it and define ``make``.

    >>> from headrace.samplers import ShardSampler
    >>> class TestShards(SamplerTests):
    ...     def make(self, seed):
    ...         return ShardSampler([5, 7, 3], window=2, seed=seed)
    >>> TestShards().test_every_place_can_be_entered()

    A sampler that never shuffles sets ``shuffles = False``.
    """

    def make(self, seed: int | None) -> PlannedSampler[Any]:
        """Return a new sampler with this seed; without one it takes the loader's."""
        raise NotImplementedError(f"{type(self).__qualname__} must define make(seed), which returns a sampler")

    def loader(self, sampler: Any, **options: Any) -> DataLoader[list[Any]]:
        """Return a loader whose batches are lists of two keys."""
        return DataLoader(Keys(), 2, sampler=sampler, collate_fn=list, **options)

    def planned(self, sampler: Any, seed: int, epoch: int) -> list[Any]:
        """Return all keys of an epoch, as the plan gives them."""
        order = sampler.order(key_of(seed))
        return list(order.keys(epoch, 0, len(order)))

    def test_every_place_can_be_entered(self) -> None:
        """Ask a new order for a range in the middle: it gives what a pass over the whole epoch gives there."""
        for epoch in (0, 2):
            whole = self.planned(self.make(None), 3, epoch)
            for start in range(0, len(whole), max(len(whole) // 7, 1)):
                stop = min(start + 3, len(whole))
                found: Sequence[Any] = self.make(None).order(key_of(3)).keys(epoch, start, stop)
                assert list(found) == whole[start:stop]

    def test_ranks_share_the_epoch(self) -> None:
        """Give each index to one rank; only what fills up the last batch comes again, from the beginning."""
        steps = zip(*self.ranks(), strict=True)
        together = [key for step in steps for batch in step for key in batch]
        whole = self.planned(self.make(None), 5, 0)
        filled = len(together) - len(whole)
        assert 0 <= filled < WORLD_SIZE
        assert together == whole + whole[:filled]


class BatchSamplerTests(_PlannedTests):
    """What every `PlannedBatchSampler` must do: inherit it and define ``make``.

    >>> from headrace.samplers import BucketBatchSampler
    >>> class TestBuckets(BatchSamplerTests):
    ...     def make(self, seed):
    ...         return BucketBatchSampler(range(30), 4, bucket_size=9, seed=seed)
    >>> TestBuckets().test_every_batch_can_be_entered()

    A sampler that never shuffles sets ``shuffles = False``.
    """

    def make(self, seed: int | None) -> PlannedBatchSampler[Any]:
        """Return a new batch sampler with this seed; without one it takes the loader's."""
        raise NotImplementedError(f"{type(self).__qualname__} must define make(seed), which returns a batch sampler")

    def loader(self, sampler: Any, **options: Any) -> DataLoader[list[Any]]:
        """Return a loader whose batches are the lists of keys that the sampler chose."""
        return DataLoader(Keys(), batch_sampler=sampler, collate_fn=list, **options)

    def planned(self, sampler: Any, seed: int, epoch: int) -> list[Any]:
        """Return all batches of an epoch, as the plan gives them."""
        order = sampler.batch_order(key_of(seed))
        return [order.keys(epoch, step) for step in range(order.count(epoch))]

    def test_every_batch_can_be_entered(self) -> None:
        """Ask a new order for a batch in the middle: it gives what a pass over the whole epoch gives there."""
        for epoch in (0, 2):
            whole = self.planned(self.make(None), 3, epoch)
            for step, batch in enumerate(whole):
                order = self.make(None).batch_order(key_of(3))
                assert order.keys(epoch, step) == batch
                assert order.start(epoch, step) == sum(map(len, whole[:step]))
                assert order.count(epoch) == len(whole)

    def test_ranks_share_the_epoch(self) -> None:
        """Give each batch to one rank; only what fills up the last step comes again, from the beginning."""
        together = [batch for step in zip(*self.ranks(), strict=True) for batch in step]
        whole = self.planned(self.make(None), 5, 0)
        filled = len(together) - len(whole)
        assert 0 <= filled < WORLD_SIZE
        assert together == whole + whole[:filled]
