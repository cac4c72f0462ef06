"""Batches of tensors, and a model that learns from them."""

from __future__ import annotations

import pickle
import warnings
from multiprocessing import forkserver
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tests.adapters.data import HALVES, BrokenImages, Images, halves

import headrace
from headrace.collate import Packed, PackedCollate, PaddedCollate
from headrace.datasets import GroupedDataset, TokenDataset
from headrace.errors import CollateError, CollateTypeError
from headrace.ledger.fingerprint import of_batch
from headrace.run.lineage import image_of
from headrace.run.tuning.worker_setting import WorkerSetting
from headrace.samplers import PackingBatchSampler

torch = pytest.importorskip("torch")
lib = pytest.importorskip("headrace.torch")
DataLoader = lib.DataLoader

WORKERS: list[dict[str, Any]] = [
    {},
    {"num_workers": 2, "backend": "threads"},
    {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
    {"num_workers": 2, "backend": "processes", "multiprocessing_context": "forkserver", "persistent_workers": True},
]
NAMES = ["inline", "threads", "forked", "processes"]


@pytest.fixture(scope="module", autouse=True)
def helpers() -> None:
    """Start what multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_batches_are_those_of_headrace(how: dict[str, Any], patches: Any) -> None:
    """Deliver the same values in the same order, as tensors."""
    ours = DataLoader(patches, 64, shuffle=True, seed=3, **how)
    plain = headrace.DataLoader(patches, 64, shuffle=True, seed=3)
    for _ in range(2):
        seen = list(ours)
        assert len(seen) == len(ours) == 10
        for (images, labels), (expected, names) in zip(seen, plain, strict=True):
            assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
            np.testing.assert_array_equal(images, expected)
            np.testing.assert_array_equal(labels, names)


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_packed_and_padded_tokens_are_tensors(how: dict[str, Any]) -> None:
    """Deliver what collate functions of ours make as tensors: labels of cross entropy, named tuples, a plain int."""
    documents = TokenDataset([np.arange(length, dtype=np.uint16) for length in (5, 30, 9, 14)], documents=True)
    rows = PackingBatchSampler(documents.lengths, 16, 2, longer="split")
    grouped = GroupedDataset(documents)
    fields = ["values", "labels", "cu_seqlens", "max_seqlen"]
    for batch in DataLoader(grouped, batch_sampler=rows, collate_fn=PackedCollate(16, fields=fields), **how):
        logits = torch.nn.Embedding(30, 30)(batch["values"])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
        assert loss.isfinite()
        assert batch["cu_seqlens"].dtype == torch.int32
        assert isinstance(batch["max_seqlen"], int)
    for packed in DataLoader(grouped, batch_sampler=rows, collate_fn=PackedCollate(16), **how):
        assert isinstance(packed, Packed)
        assert isinstance(packed.positions, torch.Tensor)
    padded = next(iter(DataLoader([[1, 2], [3]], 2, collate_fn=PaddedCollate(lengths=True), **how)))
    assert padded.values.tolist() == [[1, 2], [3, 0]]
    assert padded.mask.dtype == torch.bool


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_tokens_are_what_an_embedding_takes(how: dict[str, Any]) -> None:
    """Deliver contiguous int64 tensors of tokens that are stored as uint16."""
    dataset = TokenDataset([np.arange(200, dtype=np.uint16)], 8)
    embedding = torch.nn.Embedding(200, 3)
    for inputs, targets in DataLoader(dataset, 4, shuffle=True, seed=0, **how):
        assert inputs.dtype == targets.dtype == torch.int64
        assert inputs.is_contiguous()
        assert embedding(inputs).shape == (len(inputs), 8, 3)
        assert bool((targets - inputs == 1).all())


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
@pytest.mark.parametrize("dtype", HALVES)
def test_halves_are_torchs_halves(dtype: str, how: dict[str, Any]) -> None:
    """Deliver float16 and bfloat16 as torch has them, bit for bit, made at once or sample by sample."""
    plain = [images.tobytes() for images, _ in headrace.DataLoader(halves(dtype), 8, shuffle=True, seed=3)]
    for dataset in (halves(dtype), halves(dtype).map(lambda sample: sample)):
        seen = [images for images, _ in DataLoader(dataset, 8, shuffle=True, seed=3, **how)]
        assert {images.dtype for images in seen} == {getattr(torch, dtype)}
        assert [images.view(torch.int16).numpy().tobytes() for images in seen] == plain


def test_bfloat16_becomes_a_tensor_wherever_it_stands() -> None:
    """Share an array's memory; take arrays and numbers of it in samples, beside other dtypes too."""
    array = np.ones((2, 3), ml_dtypes.bfloat16)
    tensor = lib.as_tensors([array])[0]
    array[1, 2] = 5
    assert (tensor.dtype, tensor[1, 2].item()) == (torch.bfloat16, 5)
    number = array[0, 0]
    for convert in (lib.default_convert, lambda sample: lib.default_collate([sample, sample])):
        for found in convert({"a": (array, number), "b": [np.array(number)]}).values():
            assert {tensor.dtype for tensor in found} == {torch.bfloat16}
    assert lib.default_collate([array, np.ones((2, 3), np.float32)]).dtype == torch.float32
    assert lib.default_collate([array, np.ones((2, 3), np.float16)]).dtype == torch.float32
    (sample,) = DataLoader(headrace.ArrayDataset(array[:1]), None)
    assert sample.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", HALVES)
def test_tensors_of_halves_are_looked_into(dtype: str) -> None:
    """Tell batches of them apart in a ledger, and show one as an image."""
    tensors = [torch.full((4, 5), value, dtype=getattr(torch, dtype)) for value in (0.5, 1)]
    assert len({of_batch([tensor]) for tensor in (*tensors, tensors[0].clone())}) == 2
    assert set(image_of(tensors[0].requires_grad_()).ravel().tolist()) == {0.5}


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_a_model_learns_photographs(how: dict[str, Any], patches: Any) -> None:
    """Train a small network on patches of photographs to less than half of its first loss."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(768, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    with DataLoader(patches, 50, shuffle=True, **how) as loader:
        for _ in range(8):
            values = []
            for images, labels in loader:
                loss = torch.nn.functional.cross_entropy(model(images.flatten(1) / 128 - 1), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                values.append(loss.item())
            losses.append(np.mean(values))
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_kept_batches_stay_as_they_were(how: dict[str, Any]) -> None:
    """Keep every batch, or a view of it: the memory of neither is reused."""
    kept = [batch[1] if number % 2 else batch for number, batch in enumerate(DataLoader(Images(), 2, **how))]
    for number, tensor in enumerate(kept):
        assert tensor.unique().tolist() == [2 * number + 1] if number % 2 else [2 * number, 2 * number + 1]


@pytest.mark.parametrize("how", WORKERS[1:3], ids=NAMES[1:3])
def test_memory_is_reused_once_a_batch_is_dropped(how: dict[str, Any]) -> None:
    """Write later batches where earlier ones were: tensors share the memory that the workers fill."""
    places = [batch.data_ptr() for batch in DataLoader(Images(200), 2, **how)]
    assert len(places) == 100
    assert len(set(places)) < 20


@pytest.mark.parametrize("how", WORKERS[:3], ids=NAMES[:3])
def test_a_batch_may_be_changed_in_place(how: dict[str, Any]) -> None:
    """Give tensors that can be written to, as torch does; nothing else sees it."""
    loader = DataLoader(Images(8), 2, **how)
    for _ in range(2):
        for number, batch in enumerate(loader):
            assert batch[0].unique().tolist() == [2 * number]
            batch.zero_()


@pytest.mark.parametrize("how", WORKERS, ids=NAMES)
def test_an_error_has_its_type_and_place(how: dict[str, Any]) -> None:
    """Raise the dataset's own error at its step, continue after it, and leave no worker."""
    iterator = iter(DataLoader(BrokenImages(8), 2, **how))
    assert [int(next(iterator)[0, 0, 0]) for _ in range(2)] == [0, 2]
    with pytest.raises(KeyError, match="five") as caught:
        next(iterator)
    assert "sample 5" in "".join(caught.value.__notes__)
    assert [int(batch[0, 0, 0]) for batch in iterator] == [6]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator to pin for")
@pytest.mark.parametrize("how", WORKERS[:3], ids=NAMES[:3])
def test_pinning_without_an_accelerator_warns_and_continues(how: dict[str, Any]) -> None:
    """Say it in torch's words, once for each loop, and give the same batches."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        batches = list(DataLoader(Images(4), 2, pin_memory=True, **how))
    assert len(batches) == 2
    assert len([each for each in said if "'pin_memory' argument is set as true but no acc" in str(each.message)]) == 1


@pytest.mark.parametrize(
    "fields",
    [
        [np.zeros(3, ">f4")] * 2,
        [np.array(["a"])] * 2,
        [torch.zeros(2), torch.zeros(3)],
        [torch.zeros(2), np.zeros(2)],
        [torch.tensor([2**53 + 1]), torch.tensor([0.5])],
        [np.array([2**24 + 1], "i4"), np.array([0.5], "f4")],
        [np.ma.array([1, 2], mask=[0, 1])] * 2,
        [2**24 + 1, 2**70],
        [0.5, 2**53 + 1],
        [1, None],
        [1.5, "a"],
        [-1, 2**63],
    ],
    ids=lambda fields: str(fields)[:50],
)
def test_what_no_tensor_keeps_is_refused_with_the_path_of_its_field(fields: list[Any]) -> None:
    """Name the place in the sample, whoever refuses: torch or we."""
    with pytest.raises((CollateError, CollateTypeError), match=r"at sample\['meta'\]\['v'\]: "):
        next(iter(DataLoader([{"id": 1, "meta": {"v": field}} for field in fields], 2)))


def test_numbers_of_several_kinds_keep_their_digits_as_tensors() -> None:
    """Give uint64 for 64-bit hashes and float64 for ints beside floats, whichever comes first."""
    hashes = lib.default_collate([2**63 + 1, 4])
    assert (hashes.dtype, hashes.tolist()) == (torch.uint64, [2**63 + 1, 4])
    for batch in ([1, 0.1], [0.1, 1], [True, 0.1]):
        assert (lib.default_collate(batch).dtype, lib.default_collate(batch).tolist()) == (
            torch.float64,
            batch,
        )
    with pytest.raises(CollateTypeError, match=r"at sample\['v'\]: "):
        next(iter(DataLoader([{"v": np.zeros(3, ">f4")}], None)))


def test_a_loader_goes_on_with_the_workers_that_were_found_for_it() -> None:
    """Show the number of workers that it was made with, in copies too, and begin each loop with the best one."""
    loader = DataLoader(range(12), 4, num_workers="auto")
    shown = loader.num_workers
    loader._session._auto._chosen = WorkerSetting("threads", shown + 1, 3)
    again = pickle.loads(pickle.dumps(loader))
    for each in (loader, again, pickle.loads(pickle.dumps(loader))):
        for _ in range(2):
            assert [batch.tolist() for batch in each] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        assert each._session.settings.num_workers == shown + 1
        assert each.num_workers == shown
