"""Samples whose pixels are made at once have the bytes that the transforms give one by one, whatever they hold."""

from __future__ import annotations

import copy
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import (
    CenterCrop,
    DataLoader,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToDtype,
    ToFloat,
)
from headrace.datasets import Dataset, Mapped
from headrace.errors import ArgumentError, CollateError
from headrace.image import pending
from headrace.image.moves import Cut, Mirror, ScalePart
from headrace.image.pending import Pending
from headrace.image.warp import matrix_move
from headrace.transforms import (
    AutoAugment,
    ColorJitter,
    Compose,
    Cutout,
    FixedSizeCrop,
    GaussianBlur,
    GaussianNoise,
    GeometricTransform,
    LetterBox,
    Mask,
    OneOf,
    RandAugment,
    RandomAdjustSharpness,
    RandomAffine,
    RandomApply,
    RandomAutocontrast,
    RandomChannelPermutation,
    RandomChoice,
    RandomEqualize,
    RandomErasing,
    RandomGrayscale,
    RandomInvert,
    RandomIoUCrop,
    RandomPerspective,
    RandomPhotometricDistort,
    RandomPosterize,
    RandomRotation,
    RandomShortestSize,
    RandomSolarize,
    RandomVerticalFlip,
    RandomZoomOut,
    SanitizeBoundingBoxes,
    ScaleJitter,
    ThreeAugment,
    TrivialAugmentWide,
)
from headrace.transforms.base import Transform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not pending.ABLE, reason="the extension makes no pixels at once")

SIDES, SMALL, YES = st.integers(1, 60), st.integers(0, 5), st.booleans().map(lambda _: True)
PAIRS = st.tuples(SIDES, SIDES)
FILLS = st.sampled_from([0, 7, 255])
FILTERS = st.sampled_from(["bilinear", "bicubic", "nearest", "lanczos", "box"])
SAMPLINGS = st.sampled_from(["nearest", "bilinear"])
GEOMETRY: list[st.SearchStrategy[Any]] = [
    st.builds(
        RandomAffine, st.just(10), translate=st.just((0.1, 0.1)), scale=st.just((0.8, 1.2)), shear=st.just(5),
        interpolation=SAMPLINGS, fill=FILLS,
    ),
    st.builds(RandomRotation, st.just(40), expand=st.booleans(), interpolation=SAMPLINGS, fill=FILLS),
    st.builds(RandomPerspective, p=st.just(1), interpolation=SAMPLINGS),
    st.builds(RandomCrop, PAIRS, pad_if_needed=YES, fill=FILLS),
    st.builds(RandomCrop, st.just(8), pad_if_needed=YES, mode=st.sampled_from(["edge", "reflect"])),
    st.builds(RandomHorizontalFlip, st.just(0.7)),
    st.builds(RandomVerticalFlip),
    st.builds(CenterCrop, SIDES),
    st.builds(Pad, SMALL, fill=FILLS),
    st.builds(Resize, SIDES, interpolation=FILTERS),
    st.builds(Resize, PAIRS, interpolation=FILTERS),
    st.builds(RandomResizedCrop, SIDES),
    st.builds(ScaleJitter, SIDES),
    st.builds(FixedSizeCrop, SIDES, fill=FILLS),
    st.builds(LetterBox, SIDES),
    st.builds(RandomZoomOut, fill=FILLS),
    st.builds(RandomShortestSize, st.just((8, 16)), max_size=st.just(30)),
    st.builds(SanitizeBoundingBoxes),
    st.builds(RandomIoUCrop),
]  # fmt: skip
COLORS: list[st.SearchStrategy[Any]] = [
    st.just(ColorJitter(0.4, 0.4, 0.4, 0.1)),
    st.just(ColorJitter(saturation=(70, 70))),
    st.builds(GaussianBlur, st.sampled_from([3, (5, 1)])),
    st.builds(RandomPosterize, st.integers(1, 8)),
    st.builds(RandomSolarize, st.just(100)),
    st.builds(RandomAdjustSharpness, st.just(2)),
    st.builds(RandomErasing, st.just(0.8), value=st.sampled_from([0, 7, (1, 2, 3), "random"])),
    st.builds(Cutout, SIDES, holes=st.integers(1, 3), fill=FILLS),
    *(
        st.builds(kind)
        for kind in (
            RandomPhotometricDistort, RandomGrayscale, RandomEqualize, RandomAutocontrast, RandomChannelPermutation,
            RandomInvert, ThreeAugment, GaussianNoise,
        )
    ),
]  # fmt: skip
POLICIES: list[st.SearchStrategy[Any]] = [
    st.builds(RandAugment, st.integers(1, 4), st.just(20), interpolation=SAMPLINGS, fill=FILLS),
    st.builds(TrivialAugmentWide, interpolation=SAMPLINGS),
    st.builds(AutoAugment, st.sampled_from(["imagenet", "cifar10", "svhn"])),
]
SINGLE = st.one_of(*GEOMETRY, *COLORS, *POLICIES)
SEVERAL = st.lists(SINGLE, min_size=1, max_size=2)
PICKING: list[st.SearchStrategy[Any]] = [
    st.builds(RandomApply, SEVERAL),
    st.builds(RandomChoice, st.lists(SEVERAL, min_size=1, max_size=3)),
    st.builds(OneOf, st.lists(SINGLE, min_size=1, max_size=3)),
]
TAILS: list[list[Any]] = [
    [],
    [ToCHW()],
    [ToFloat()],
    [ToFloat(), Normalize(0.5, 0.25), ToCHW()],
    [ToFloat(), Normalize(0.5, 0.25)],
    [ToFloat(), Normalize(0.5, 0.25), ToCHW(), ToDtype("float16")],
]
CHAINS = st.builds(
    lambda places, colors, late, tail: [*places, *colors, *late, *tail],
    st.lists(st.one_of(GEOMETRY), min_size=1, max_size=4),
    st.lists(st.one_of(*COLORS, *POLICIES, *PICKING), max_size=3),
    st.lists(st.one_of(GEOMETRY), max_size=1),
    st.sampled_from(TAILS),
)
VALUES = [ToFloat(), Normalize(0.5, 0.25), ToDtype("float16"), ToCHW()]
MIXED = st.lists(st.one_of(SINGLE, *PICKING, st.sampled_from(VALUES)), min_size=2, max_size=7)


@pytest.fixture(autouse=True)
def small_images_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images of any size be made at once."""
    monkeypatch.setattr(pending, "LEAST_BYTES", 0)


def sample_of(data: st.DataObject) -> Any:
    """Draw a sample: an image, alone, with a label, or with masks, boxes and keypoints."""
    (height, width), channels = data.draw(PAIRS), data.draw(st.sampled_from([1, 3, 4]))
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    image = rng.integers(0, 256, (height, width, channels), np.uint8)
    form = data.draw(st.sampled_from(["image", "label", "targets", "targets", "targets"]))
    if form != "targets":
        return image if form == "image" else (image, 3)
    dtype = data.draw(st.sampled_from(["u1", "u2", "i4", "f4", "?"]))
    last = data.draw(st.sampled_from([(), (2,)]))
    sample: dict[str, Any] = {
        "image": image,
        "mask": rng.integers(0, 1 << 15, (height, width, *last)).astype(dtype),
        "boxes": np.sort(rng.random((3, 2, 2)), axis=1).reshape(3, 4) * (width, height, width, height),
        "labels": [1, 2, 3],
        "keypoints": rng.uniform(0, 30, (3, 2, 3)),
    }
    if data.draw(st.booleans()):
        sample["masks"] = rng.integers(0, 2, (3, height, width)).astype(bool)
    return sample


def one_by_one(chain: Compose, sample: Any, rng: np.random.Generator) -> Any:
    """Return what the transforms give, each called by itself."""
    for transform in chain._joined:
        sample = transform(sample, rng) if isinstance(transform, Transform) else transform(sample)
    return sample


def given_or_said(call: Any, sample: Any, rng: np.random.Generator) -> Any:
    """Return what a chain gives, or what its error says."""
    try:
        return call(sample, rng)
    except ArgumentError as error:
        return f"refused: {error}"


def assert_same(found: Any, expected: Any) -> None:
    """Compare two samples to the bit, with their types."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
    if isinstance(found, dict | tuple | list):
        for key in found if isinstance(found, dict) else range(len(found)):
            assert_same(found[key], expected[key])
    elif isinstance(found, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
    else:
        assert found == expected


@settings(max_examples=250, deadline=None)
@given(
    chain=st.one_of(CHAINS, MIXED),
    data=st.data(),
    seed=st.integers(0, 999),
    kinds=st.sampled_from([None, {"mask": Mask(fill=3)}]),
)
def test_pixels_made_at_once_are_those_made_one_by_one(
    chain: list[Any], data: st.DataObject, seed: int, kinds: Any
) -> None:
    """Give the same bytes or the same error, and draw the same numbers."""
    sample = sample_of(data)
    try:
        both = Compose(chain, kinds=kinds)
    except ArgumentError:  # a transform cannot follow another
        return
    generators = [np.random.default_rng(seed) for _ in range(2)]
    found, expected = (
        given_or_said(call, copy.deepcopy(sample), generator)
        for call, generator in zip((both, partial(one_by_one, both)), generators, strict=True)
    )
    assert_same(found, expected)
    assert generators[0].random() == generators[1].random()


SEGMENTATION = (
    RandomAffine(10, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=5, interpolation="bilinear"),
    RandomCrop(48, pad_if_needed=True, fill=9),
    RandomHorizontalFlip(),
    ColorJitter(0.4, 0.4, 0.4, 0.1),
    ToFloat(),
    Normalize(0.5, 0.25),
    ToCHW(),
)


POLICY = (
    RandomResizedCrop(48),
    RandomVerticalFlip(),
    RandAugment(),
    RandomApply([ColorJitter(0.4, 0.4, 0.4, 0.1), GaussianBlur(3)]),
    ToFloat(),
    Normalize(0.5, 0.25),
    RandomErasing(1, value="random"),
    ToCHW(),
)


class Scenes(Dataset[dict[str, Any]]):
    """Images with masks, of other sizes."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng(index)
        size = 60 + index, 100 - index
        return {"image": rng.integers(0, 256, (*size, 3), np.uint8), "mask": rng.integers(0, 9, size, np.uint8)}


class Instances(Scenes):
    """The same with a stack of three masks each."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        return {**sample, "masks": np.stack([sample["mask"] == value for value in range(3)])}


@pytest.mark.parametrize("backend", ["inline", "threads", "processes"])
@pytest.mark.parametrize(("scenes", "chain"), [(Scenes, SEGMENTATION), (Instances, POLICY)])
def test_loaders_of_any_kind_give_the_same_batches(backend: str, scenes: Any, chain: Any) -> None:
    """Give, on each kind of worker, the batches of the transforms one by one."""

    def batches(dataset: Any, **how: Any) -> Iterator[Any]:
        yield from DataLoader(dataset, 4, shuffle=True, seed=5, **how)

    workers = {} if backend == "inline" else {"num_workers": 2, "backend": backend}
    found = batches(scenes().map(*chain), **workers)
    for batch, expected in zip(found, batches(scenes().map(apart(chain))), strict=True):
        assert_same(batch, expected)


def apart(transforms: Any) -> Any:
    """Return a function that applies transforms one by one: nothing is together in it."""
    chain = Compose(*transforms)
    return lambda sample, rng: one_by_one(chain, sample, rng)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the memory that pixels were made in, one for each image and mask: None for memory of their own."""
    made: list[Any] = []
    pixels = Pending.pixels

    def noticed(image: Pending, out: Any = None) -> Any:
        made.append(out)
        return pixels(image, out)

    monkeypatch.setattr(Pending, "pixels", noticed)
    return made


def test_stacks_and_erased_parts_are_made_in_the_rows_of_the_batch(rows: list[Any]) -> None:
    for batch in DataLoader(Instances().map(*POLICY), 4):
        mine = [out for out in rows if out is not None]  # without those that are made on the way
        rows.clear()
        assert len(mine) == 12
        for out in mine:
            key = {np.dtype("float32"): "image", np.dtype("uint8"): "mask", np.dtype("bool"): "masks"}[out.dtype]
            assert np.shares_memory(batch[key], out)


@pytest.mark.parametrize("workers", [0, 1])
def test_pixels_are_made_in_the_rows_of_the_batch(workers: int, rows: list[Any]) -> None:
    for batch in DataLoader(Scenes().map(*SEGMENTATION), 4, num_workers=workers, backend="threads"):
        mine, rows[:] = rows[:8], rows[8:]
        assert [np.shares_memory(batch[key], out) for key, out in zip(("image", "mask") * 4, mine, strict=True)] == [
            True
        ] * 8
        assert batch["image"].strides[0] == batch["image"][0].nbytes


@dataclass
class Scene:
    image: Any
    mask: Any


FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "an image": lambda image, mask: image,
    "a tuple": lambda image, mask: (image, {"mask": mask, "label": 3}),
    "a dict in a dict": lambda image, mask: {"image": image, "targets": {"mask": mask}},
    "a list": lambda image, mask: [image, 7, {"more": {"mask": mask}}],
    "an ordered dict": lambda image, mask: OrderedDict(image=image, mask=mask),
    "a record": Scene,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("collate", [None, list])
def test_samples_of_any_form_give_arrays_with_pixels(form: str, collate: Any) -> None:
    def formed(sample: Any) -> Any:
        return FORMS[form](sample["image"], sample["mask"])

    def leaves(part: Any) -> Iterator[Any]:
        if isinstance(part, np.ndarray | int):
            yield part
        elif isinstance(part, Scene):
            yield from (part.image, part.mask)
        else:
            for one in part.values() if isinstance(part, dict) else part:
                yield from leaves(one)

    if form == "a record" and collate is None:
        collate = tuple
    how: dict[str, Any] = {"batch_size": 4, "seed": 3, "collate_fn": collate}
    base = Scenes().map(formed)
    for batch, expected in zip(
        DataLoader(Mapped(base, *SEGMENTATION), **how),
        DataLoader(Mapped(base, apart(SEGMENTATION)), **how),
        strict=True,
    ):
        found, wanted = list(leaves(batch)), list(leaves(expected))
        assert not any(isinstance(one, Pending) for one in found)
        assert all(map(np.array_equal, found, wanted))
        assert len(found) == len(wanted)


def test_images_of_other_sizes_are_refused_as_ever() -> None:
    """Let collate say what does not fit, also where the first image decided the size of the rows."""
    with pytest.raises(CollateError, match="shape"):
        next(iter(DataLoader(Scenes().map(RandomHorizontalFlip(), ToFloat()), 4)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrapper_that_lends_attributes_keeps_its_own_samples(workers: int, rows: list[Any]) -> None:
    class Wrapper:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            if name in ("inner", "__getitems__"):
                raise AttributeError(name)
            return getattr(self.inner, name)

        def __len__(self) -> int:
            return len(self.inner)

        def __getitem__(self, index: int) -> Any:
            return {**self.inner[index], "index": index}

    wrapped = Wrapper(Scenes().map(*SEGMENTATION))
    batches = list(DataLoader(wrapped, 4, num_workers=workers, backend="threads"))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert set(map(type, rows)) == {type(None)}


def test_what_a_dataset_keeps_is_no_part_of_a_batch(rows: list[Any]) -> None:
    """Make pixels in the rows only where nobody but the loader gets the sample."""
    kept: list[Any] = []

    class Cached(Scenes):
        def __getitem__(self, index: int) -> dict[str, Any]:
            kept.append(Compose(*SEGMENTATION)(super().__getitem__(index), np.random.default_rng(0)))
            return kept[-1]  # type: ignore[no-any-return]

    batch = next(iter(DataLoader(Cached(), 4)))
    assert set(map(type, rows)) == {type(None)}
    assert not any(np.shares_memory(one["image"], batch["image"]) for one in kept)


def test_a_declared_mask_has_its_own_fill_and_kind() -> None:
    """Fill outside of a mask with its fill, and find fields by their kinds."""
    kinds = {"photo": "image", "classes": Mask(fill=255)}
    chain = Compose(Pad(2, fill=1), RandomHorizontalFlip(1), Resize((9, 9)), CenterCrop(11), kinds=kinds)
    sample = {"photo": np.full((5, 6, 3), 8, np.uint8), "classes": np.full((5, 6), 3, np.int32)}
    made = chain(sample, np.random.default_rng(0))
    assert_same(made, one_by_one(chain, sample, np.random.default_rng(0)))
    assert made["classes"][0, 0] == 255


def test_masks_of_dropped_boxes_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the rows of a stack whose boxes are kept, each once, and none where none is kept."""
    made: list[Any] = []
    make = Pending._make

    def noticed(image: Pending, base: Any, out: Any) -> Any:
        made.append(image.mask_fill)
        return make(image, base, out)

    monkeypatch.setattr(Pending, "_make", noticed)
    chain, rng = Compose(Resize((40, 60)), RandomVerticalFlip(1), CenterCrop((20, 30))), np.random.default_rng(0)
    masks = rng.integers(0, 2, (3, 20, 30)).astype(bool)
    for boxes, kept in (([[26, 12, 29, 18], [12, 8, 18, 14], [0, 0, 4, 3]], [4]), ([[0, 0, 2, 2]] * 3, [])):
        made.clear()
        sample = {"image": np.zeros((20, 30, 3), np.uint8), "boxes": boxes, "masks": masks, "labels": [3, 4, 5]}
        out = chain(sample, rng)
        assert made == [None, *[0] * len(kept)]
        assert_same(out, one_by_one(chain, sample, rng))
        assert out["labels"] == kept


def test_pixels_that_were_cut_off_do_not_come_back() -> None:
    """Fill where a crop is widened again, mirrored or not."""
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    for moves in (
        [Cut((1, 1, 2, 2)), Cut((-1, -1, 4, 4), fill=9)],
        [Mirror((4, 5)), Cut((0, 0, 4, 2)), Cut((0, -2, 4, 6), fill=9)],
        [Cut((-1, -1, 6, 7), fill=1), Cut((-1, -1, 8, 9), fill=2)],
        [ScalePart((0, 0, 4, 5), (8, 10)), Cut((2, 2, 3, 3)), ScalePart((0, 0, 3, 3), (5, 5))],
        [Mirror((4, 5), upright=False), Cut((0, 0, 2, 5)), Cut((-2, 0, 6, 5), fill=9), Mirror((6, 5))],
        [Cut((-1, -1, 6, 7), fill=1), Mirror((6, 7), upright=False), Mirror((6, 7)), Cut((-1, 3, 8, 9), fill=1)],
        [matrix_move([[1, 0, 1], [0, 1, 0]], (4, 5)), matrix_move([[1, 0, -1], [0, 1, 0]], (4, 5))],
    ):
        made: Any = pending.begun(image)
        expected = image
        for move in moves:
            made, expected = pending.move_pixels(move, made), move.image(expected)
        np.testing.assert_array_equal(pending.done(made), expected)


def test_a_transform_of_the_users_sees_pixels() -> None:
    """Make the pixels before a function, and before a subclass that looks at them."""

    class Brightest(GeometricTransform):
        draws = False

        def check_image(self, image: Any) -> None:
            assert image.max() == 200

        def move(self, height: int, width: int, rng: Any) -> Any:
            return Mirror((height, width))

    class Darker(Resize):
        def transform_image(self, image: Any, rng: Any) -> Any:
            assert image.max() == 200
            return image

    image = np.full((9, 9, 3), 200, np.uint8)
    seen: list[int] = []
    chain = Compose(Pad(1), Brightest(), Darker(3), CenterCrop(4), lambda one: (seen.append(int(one.max())), one)[1])
    assert chain(image).shape == (4, 4, 3)
    assert seen == [200]
