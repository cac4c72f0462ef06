"""torch's datasets over tensors, read by whole batches: what torch's own loader gives, value for value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import ConcatDataset, Subset, TensorDataset, default_collate  # noqa: E402
from torch.utils.data._utils.collate import default_collate_fn_map  # noqa: E402

import headrace.torch  # noqa: E402
from headrace.collate.default import reader as default_reader  # noqa: E402
from headrace.interop import torch_rows  # noqa: E402

COUNT = 23


def rows(count: int = COUNT, dtype: Any = torch.float32) -> Any:
    numbers = torch.arange(count * 6).reshape(count, 2, 3)
    return TensorDataset(numbers.to(dtype), torch.arange(count), torch.arange(count) % 2 == 0)


DATASETS = {
    "rows": rows,
    "bfloat16": lambda: rows(dtype=torch.bfloat16),
    "not contiguous": lambda: TensorDataset(torch.arange(COUNT * 8).reshape(COUNT, 2, 4).transpose(1, 2)[:, :3]),
    "no columns": lambda: TensorDataset(torch.zeros(COUNT, 0)),
    "subset": lambda: Subset(rows(50), list(range(40, 40 - COUNT, -1))),
    "subset of tensors": lambda: Subset(rows(50), torch.randperm(50)[:COUNT]),
    "subset from the end": lambda: Subset(rows(50), [-1, 3, -50, *range(20)]),
    "subset of subset": lambda: Subset(Subset(rows(60), np.arange(0, 60, 2)), range(29, 29 - COUNT, -1)),
    "concat": lambda: ConcatDataset([rows(5), rows(7), Subset(rows(30), range(3, 14))]),
    "subset of concat": lambda: Subset(ConcatDataset([rows(5), rows(50)]), [4, 5, 0, 20, *range(COUNT - 4)]),
}


@pytest.mark.parametrize("how", [{}, {"num_workers": 2, "backend": "threads"}, {"num_workers": 1}], ids=str)
@pytest.mark.parametrize("name", DATASETS)
def test_batches_are_those_of_torchs_loader(name: str, how: dict[str, Any]) -> None:
    """Give the same tensors in the same lists, shuffled too."""
    dataset = DATASETS[name]()
    assert torch_rows.reader(dataset, default_collate) is not None
    for shuffle in (False, True):
        torch.manual_seed(0)
        expected = list(torch.utils.data.DataLoader(dataset, 4, shuffle=shuffle, sampler=None))
        torch.manual_seed(0)
        order = torch.utils.data.RandomSampler(dataset) if shuffle else None
        found = list(headrace.torch.DataLoader(dataset, 4, sampler=order, **how))
        assert len(found) == len(expected)
        for batch, other in zip(found, expected, strict=True):
            assert type(batch) is type(other) is list
            assert [one.dtype for one in batch] == [one.dtype for one in other]
            assert all(torch.equal(one, two) for one, two in zip(batch, other, strict=True))


@pytest.mark.parametrize("how", [{}, {"num_workers": 1}], ids=str)
@pytest.mark.parametrize("name", [name for name in DATASETS if name != "bfloat16"])
def test_the_numpy_loader_gives_the_same_in_arrays(name: str, how: dict[str, Any]) -> None:
    """Read whole batches for NumPy too, in arrays that may be written to."""
    dataset = DATASETS[name]()
    expected = list(torch.utils.data.DataLoader(dataset, 4))
    found = list(headrace.DataLoader(dataset, 4, **how))
    assert len(found) == len(expected)
    for batch, other in zip(found, expected, strict=True):
        assert all(type(one) is np.ndarray and one.flags.writeable for one in batch)
        assert [one.dtype for one in batch] == [two.numpy().dtype for two in other]
        assert all(np.array_equal(one, two) for one, two in zip(batch, other, strict=True))


def test_numpy_has_no_bfloat16_to_read_by_whole_batches() -> None:
    """Leave such a dataset to collate, which says what cannot be in a batch."""
    assert default_reader(DATASETS["bfloat16"]()) is None


SAMPLES: dict[str, list[Any]] = {
    "one shape": [torch.full((2, 3), number) for number in range(4)],
    "numbers": [torch.tensor(float(number)) for number in range(4)],
    "not contiguous": [torch.arange(6).reshape(2, 3).t() for _ in range(4)],
    "large": [torch.full((300, 300), number) for number in range(4)],
    "empty": [torch.zeros(0, 2) for _ in range(4)],
    "with arrays": [torch.zeros(2), np.ones(2, np.float32)],
    "of two dtypes": [torch.zeros(2), torch.ones(2, dtype=torch.float64)],
    "of two shapes": [torch.zeros(2), torch.ones(3)],
    "with gradients": [torch.zeros(2), torch.zeros(2).requires_grad_()],
    "sparse": [torch.eye(2).to_sparse() for _ in range(2)],
    "bfloat16": [torch.zeros(2, dtype=torch.bfloat16) for _ in range(2)],
    "conjugated": [torch.ones(2, dtype=torch.complex64).conj() for _ in range(2)],
    "parameters": [torch.nn.Parameter(torch.ones(2), requires_grad=False) for _ in range(2)],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_tensors_in_samples_become_the_arrays_that_each_alone_would(name: str) -> None:
    """Stack them in one call only where that gives what `numpy.asarray` of each gives."""
    samples = SAMPLES[name]
    try:
        expected = np.stack([np.asarray(sample) for sample in samples])
    except (TypeError, ValueError, RuntimeError):
        with pytest.raises(headrace.errors.CollateError.__bases__[0]):
            headrace.default_collate(samples)
        return
    for _ in range(2):  # the first batch says what its types are
        found = headrace.default_collate(samples)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    found[...] = 5
    assert all(np.array_equal(sample, row) for sample, row in zip(samples, expected, strict=True))


def test_a_batch_is_a_copy() -> None:
    """Leave the dataset's tensors as they are when a batch is changed."""
    dataset = rows()
    for batch in headrace.torch.DataLoader(dataset, 4):
        batch[0].zero_()
    assert torch.equal(dataset.tensors[0], rows().tensors[0])


class Doubled(TensorDataset):
    """Changes what a sample is."""

    def __getitem__(self, index: int) -> Any:
        return tuple(2 * tensor[index] for tensor in self.tensors)


def test_what_may_be_another_sample_is_read_one_by_one() -> None:
    """Ask a subclass for its samples, and everything that torch.stack treats in its own way."""
    plain = torch.arange(6.0)
    odd = [
        Doubled(plain),
        Subset(Doubled(plain), [0, 1]),
        ConcatDataset([TensorDataset(plain), TensorDataset(plain, plain)]),
        ConcatDataset([TensorDataset(plain), TensorDataset(plain.long())]),
        TensorDataset(plain.clone().requires_grad_()),
        TensorDataset(torch.eye(6).to_sparse()),
        [plain],
    ]
    assert [torch_rows.reader(dataset, default_collate) for dataset in odd] == [None] * len(odd)
    loader = headrace.torch.DataLoader(Doubled(plain, torch.arange(6)), 3)
    assert next(iter(loader))[0].tolist() == [0.0, 2.0, 4.0]


def test_ones_own_collate_functions_get_samples() -> None:
    """Read samples where torch's registry or a collate_fn says how they are put together."""
    dataset = TensorDataset(torch.arange(4))
    assert next(iter(headrace.torch.DataLoader(dataset, 2, collate_fn=len))) == 2
    default_collate_fn_map[tuple] = lambda samples, collate_fn_map: ("mine", len(samples))
    try:
        assert next(iter(headrace.torch.DataLoader(dataset, 2))) == ("mine", 2)
    finally:
        del default_collate_fn_map[tuple]


@pytest.mark.parametrize("how", [{}, {"num_workers": 1}], ids=str)
def test_keys_that_are_no_rows_mean_what_they_mean_to_torch(how: dict[str, Any]) -> None:
    """Index the tensors with whatever a sampler gives."""
    dataset = TensorDataset(torch.arange(12).reshape(6, 2))
    batches = [[-1, 0], [[0, 1], [2, 3]], [torch.tensor(2), np.int64(4)], [slice(0, 2), slice(2, 4)]]
    expected = [default_collate([dataset[key] for key in keys]) for keys in batches]
    found = headrace.torch.DataLoader(dataset, batch_sampler=batches, **how)
    assert [batch[0].tolist() for batch in found] == [batch[0].tolist() for batch in expected]


def test_an_error_names_the_sample() -> None:
    """Raise torch's own error for an index out of range, with a note that says which it was."""
    loader = headrace.torch.DataLoader(TensorDataset(torch.arange(6)), batch_sampler=[[0, 1], [2, 9]])
    batches = iter(loader)
    next(batches)
    with pytest.raises(IndexError, match="out of bounds") as caught:
        next(batches)
    assert any("sample 9" in note for note in caught.value.__notes__)
