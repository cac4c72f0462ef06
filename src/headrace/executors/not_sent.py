"""The errors for what pickle cannot carry to a worker elsewhere, or back."""

from __future__ import annotations

from headrace.errors import CollateTypeError


def keys_not_sent(error: Exception, worker: str) -> CollateTypeError:
    """Return the error for keys that cannot be sent; ``worker`` says where to.

    >>> keys_not_sent(TypeError("cannot pickle a lock"), "a worker process").expected
    'what pickle can send: numbers, strings, arrays and containers of them'
    """
    ours = CollateTypeError(
        f"a batch's keys, or the samples that were read for it, cannot be sent to {worker}: {error}",
        expected="what pickle can send: numbers, strings, arrays and containers of them",
        cure="change what the sampler or the iterable dataset yields, or use threads",
    )
    ours.__cause__ = error
    return ours


def batch_not_sent(error: Exception, worker: str) -> Exception:
    """Return the error for a batch that cannot be sent back; ``worker`` says where from.

    >>> batch_not_sent(TypeError("cannot pickle a lock"), "a worker process").cure
    'convert the samples or the batches, or use threads'
    """
    if isinstance(error, MemoryError):
        return error
    ours = CollateTypeError(
        f"the batch cannot be sent from {worker}: {error}",
        expected="what pickle can send: arrays, numbers, strings and containers of them",
        cure="convert the samples or the batches, or use threads",
    )
    ours.__cause__ = error
    return ours
