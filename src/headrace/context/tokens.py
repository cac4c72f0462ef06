"""How many tokens a batch has, and how much of it is padding: counted by whoever makes the batch."""

from __future__ import annotations

from headrace.context.seeds import inside


def count_tokens(tokens: int, padding: int = 0) -> None:
    """Count tokens, and positions of padding, for ``loader.statistics()``: call it in your own collate function.

    >>> import numpy as np
    >>> from headrace import DataLoader
    >>> from headrace.collate import count_tokens
    >>> def stacked(texts, width=4):
    ...     batch = np.zeros((len(texts), width), np.int64)
    ...     for row, text in zip(batch, texts):
    ...         row[: len(text)] = text
    ...     count_tokens(sum(map(len, texts)), batch.size - sum(map(len, texts)))
    ...     return batch
    >>> loader = DataLoader([[5, 6, 7], [8, 9]], 2, collate_fn=stacked)
    >>> for batch in loader:
    ...     pass
    >>> loader.statistics().tokens, loader.statistics().padding
    (5, 3)

    `PaddedCollate`, `PackedCollate` and `TokenDataset` count theirs. What is counted while a batch is collated replaces
    what was counted while its samples were read. Outside a loader nothing is counted.
    """
    here = inside()
    if here is None:
        return
    if here.collating and not here.tokens_collated:  # it knows what becomes of the tokens that were read
        here.tokens, here.tokens_collated = None, True
    before = here.tokens or (0, 0)
    here.tokens = before[0] + tokens, before[1] + padding
