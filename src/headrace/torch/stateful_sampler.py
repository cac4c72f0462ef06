"""torch's distributed sampler, with a state."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from torch.utils.data import DistributedSampler

from headrace.interop.sampler_states import check_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class StatefulDistributedSampler(DistributedSampler[Any]):
    """torch's ``DistributedSampler`` with a state, under torchdata's name and with its attributes.

    >>> sampler = StatefulDistributedSampler(range(10), num_replicas=2, rank=0, shuffle=False)
    >>> indices = iter(sampler)
    >>> next(indices), next(indices), sampler.state_dict()
    (0, 2, {'yielded': 2})
    >>> other = StatefulDistributedSampler(range(10), num_replicas=2, rank=0, shuffle=False)
    >>> other.load_state_dict(sampler.state_dict())
    >>> list(other), list(other)
    ([4, 6, 8], [0, 2, 4, 6, 8])

    After the end of a pass the state is that of the next one's beginning, where torchdata's gives an empty pass first.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.yielded = 0
        self.next_yielded: int | None = None

    def __iter__(self) -> Iterator[Any]:
        """Begin a pass, or continue the one of a loaded state."""
        self.yielded, self.next_yielded = self.next_yielded or 0, None
        for index in islice(super().__iter__(), self.yielded, None):
            self.yielded += 1
            yield index
        self.yielded = 0

    def state_dict(self) -> dict[str, int]:
        """Return how many indices the newest pass has given."""
        return {"yielded": self.yielded if self.next_yielded is None else self.next_yielded}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next pass continue where a state was saved; raises `StateMismatch` for what is no such state."""
        check_count("yielded", state)
        self.next_yielded = int(state["yielded"])
