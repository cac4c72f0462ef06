"""A dataset as a worker sees it: sample by sample, or whole batches at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.work import Empty


@runtime_checkable
class SupportsIndex(Protocol):
    """Anything that can be asked for a sample by index, and knows how many it has."""

    def __getitem__(self, index: Any, /) -> Any: ...

    def __len__(self) -> int: ...


@runtime_checkable
class SupportsBatch(Protocol):
    """A dataset that writes a whole batch into lent memory: what collating its samples would give, but faster."""

    def read_batch(self, keys: Sequence[int], *, empty: Empty) -> Any:
        """Return the collated batch of these keys."""
        ...


class Indexed:
    """Reads ``dataset[key]``, or torch's ``dataset.__getitems__(keys)`` where the dataset has it."""

    def __init__(self, dataset: SupportsIndex) -> None:
        self._dataset = dataset
        # None and missing both mean "one by one", as in torch.
        self._many: Any = getattr(dataset, "__getitems__", None)
        self._where = getattr(dataset, "where", None)

    @property
    def reads_many(self) -> bool:
        """Whether a whole list of keys can be read in one call."""
        return self._many is not None

    def read(self, key: Any) -> Any:
        """Make one sample."""
        return self._dataset[key]

    def read_many(self, keys: Sequence[Any]) -> list[Any]:
        """Make the samples of these keys in one call of the dataset's."""
        return list(self._many(list(keys)))

    def where(self, key: Any) -> str | None:
        """Say where a sample comes from, if the dataset can."""
        if not callable(self._where):
            return None
        try:
            place = self._where(key)
        except Exception:  # noqa: BLE001  asked for in the middle of another error, which it must not hide
            return None
        return place if isinstance(place, str) else None


class Batched:
    """Reads whole batches from a dataset that makes them itself: no per-sample Python at all."""

    def __init__(self, dataset: SupportsBatch) -> None:
        self._dataset = dataset

    def read(self, keys: Sequence[int], *, empty: Empty) -> Any:
        """Make the batch of these keys."""
        return self._dataset.read_batch(keys, empty=empty)


Source = Indexed | Batched
