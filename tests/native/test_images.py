"""Images by the native extension are those of the step-by-step route."""

from __future__ import annotations

import io
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import headrace
from headrace import (
    CenterCrop,
    ConcatDataset,
    ImageFiles,
    ImageFolder,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    Subset,
    ToCHW,
    ToDtype,
    ToFloat,
)
from headrace._native import extension
from headrace.context.seeds import Here, Purpose, generator, key_of
from headrace.datasets import PairedDataset, StackDataset
from headrace.image import Decoding, fused
from headrace.image.decoder import decode_as
from tests.image_files import encoded, photo
from tests.native.stepwise import MISSING, WHY, Stepwise, assert_equal, batches, both, far_off

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

pytestmark = [
    pytest.mark.skipif(MISSING, reason=WHY),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

DEMO = Path(headrace.__file__).parent / "demo"
TRAIN = (
    RandomResizedCrop(48),
    RandomHorizontalFlip(),
    ToFloat(),
    Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ToCHW(),
)


@pytest.fixture(scope="module", autouse=True)
def the_resource_tracker_is_there_already() -> None:
    """Start the process that multiprocessing keeps for good, which would look like a leak."""
    resource_tracker.ensure_running()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Images of all kinds that JPEG has, some of no JPEG, each of its own size."""
    folder = tmp_path_factory.mktemp("images")
    forms: list[dict[str, Any]] = [
        {"subsampling": "4:4:4"},
        {"subsampling": "4:2:2", "quality": 95},
        {"subsampling": "4:2:0"},
        {"progressive": True},
        {"restart_marker_blocks": 3},
        {"restart_marker_rows": 1, "subsampling": "4:2:0", "progressive": True},
        {"quality": 20, "optimize": True},
        {"form": "PNG"},
        {"form": "BMP"},
    ]
    paths = []
    for number in range(40):
        options = dict(forms[number % len(forms)])
        image = Image.fromarray(photo(number, 40 + 13 * number % 200, 30 + 29 * number % 260))
        if number % 5 == 1:
            image = image.convert("L")
        elif number % 9 == 2 and "form" not in options:
            image = image.convert("CMYK")
        if number % 3 == 0 and "form" not in options:
            exif = Image.Exif()
            exif[0x0112] = number % 8 + 1
            options["exif"] = exif
        path = folder / f"{number}.{options.get('form', 'jpg').lower()}"
        path.write_bytes(encoded(image, **options))
        paths.append(str(path))
    return paths + sorted(map(str, DEMO.glob("*.jpg")))


CHAINS: dict[str, tuple[Any, ...]] = {
    "train": TRAIN,
    "eval": (Resize(40), CenterCrop(36), ToFloat(), ToCHW()),
    "bytes": (RandomResizedCrop((20, 30)), RandomHorizontalFlip()),
    "bicubic": (Resize((33, 50), interpolation="bicubic"), RandomHorizontalFlip(0.3), ToCHW()),
    "lanczos": (RandomResizedCrop(40, interpolation="lanczos", scale=(0.5, 1)),),
    "nearest": (Resize((70, 41), interpolation="nearest"),),
    "crop alone": (CenterCrop(44), RandomHorizontalFlip()),
    "crop larger than some": (RandomCrop(64, padding=2, pad_if_needed=True, fill=(1, 2, 255)),),
    "padded": (Resize((50, 50)), Pad((3, 1, 0, 2), fill=9), RandomCrop(48)),
    "crop of a crop": (RandomCrop(64, pad_if_needed=True), CenterCrop(20), ToFloat()),
    "floats mixed": (RandomResizedCrop(31), ToFloat(), Normalize(0.5, 0.25)),
    "twice": (RandomResizedCrop(24), ToFloat(), Normalize(0.5, 0.25), Normalize((0.1, 0.2, 0.3), 2)),
    "float16": (*TRAIN, ToDtype("float16")),
    "bfloat16": (Resize((41, 40)), ToFloat(), ToDtype("bfloat16")),
    "normalised last": (Resize((9, 24)), ToCHW(), ToFloat(), Normalize((0.1, 0.2, 0.3), 0.5, channels_first=True)),
}  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS)
def test_batches_are_those_of_the_steps(images: list[str], chain: str) -> None:
    """Give the same batches, random crops and all, to the last bit."""
    quick, slow = both(ImageFiles(images, range(len(images))), *CHAINS[chain])
    assert headrace.explain(quick).startswith("Mapped: all fused")
    assert_equal(batches(quick), batches(slow))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_plain_resizing_is_within_a_gray_level(images: list[str], interpolation: Any) -> None:
    """Come within one gray level of OpenCV's, for 999 values of a thousand."""
    pytest.importorskip("cv2")
    quick, slow = both(
        ImageFiles(images),
        RandomResizedCrop(60, antialias=False, interpolation=interpolation),
        RandomHorizontalFlip(),
    )
    for ours, theirs in zip(batches(quick), batches(slow), strict=True):
        assert far_off(ours[0], theirs[0]) <= 0.001


@pytest.mark.parametrize(
    "how",
    [
        {"num_workers": 3},
        {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
        {"num_workers": 1, "backend": "processes", "multiprocessing_context": "spawn"},
        {"on_error": "skip"},
        {"on_error": "replace", "num_workers": 2},
    ],
    ids=str,
)
def test_batches_do_not_depend_on_who_makes_them(images: list[str], how: dict[str, Any]) -> None:
    """Give the same bytes inline, on threads, in processes, and under each policy for errors."""
    quick, slow = both(ImageFiles(images, range(len(images))), *TRAIN)
    assert_equal(batches(quick, **how), batches(slow))


def test_a_users_function_sees_the_same_random_numbers(images: list[str]) -> None:
    """Continue, after the fused steps, where the sample's own generator stands."""

    def noisy(sample: Any, rng: np.random.Generator) -> Any:
        return sample[0] ^ rng.integers(0, 256, sample[0].shape, np.uint8), sample[1], headrace.rng().random()

    functions = (RandomResizedCrop(32), RandomHorizontalFlip(), noisy, ToFloat())
    quick, slow = both(ImageFiles(images, range(len(images))), *functions)
    expected = batches(slow)
    assert_equal(batches(quick), expected)
    assert_equal(batches(quick, num_workers=2, on_error="skip"), expected)


def test_views_of_views_are_seen_through(images: list[str]) -> None:
    """Read parts, and parts of parts, as the steps do."""
    base = ImageFiles(images, range(len(images)))
    part = Subset(Subset(base, range(30)), range(29, -1, -1))
    quick, slow = both(part, *TRAIN)
    assert headrace.explain(quick).startswith("Mapped: all fused")
    assert_equal(batches(quick), batches(slow))
    assert_equal(batches(Subset(quick, [3, 1, -2])), batches(Subset(slow, [3, 1, -2])))


def noisy(sample: Any, rng: np.random.Generator) -> Any:
    return sample[0] + rng.normal(), sample[1]


@pytest.mark.parametrize("behind", [(), (noisy,)], ids=["all fused", "a function behind"])
@pytest.mark.parametrize("how", [{}, {"num_workers": 2}, {"on_error": "skip"}], ids=str)
def test_datasets_put_together_are_those_of_the_steps(
    images: list[str], how: dict[str, Any], behind: tuple[Any, ...]
) -> None:
    """Draw each sample's own numbers wherever a dataset stands: behind another, beside it, or joined to it."""
    base = ImageFiles(images, range(len(images)))
    quick, slow = both(base, *TRAIN, *behind)
    other, _ = both(base, Resize((48, 48)), *TRAIN[2:])
    short, _ = both(Subset(base, range(7)), *TRAIN, *behind)
    ends = [ConcatDataset([each, short, each]) for each in (quick, slow)]
    assert_equal(batches(ends[0], **how), batches(ends[1], **how))
    nested = [ConcatDataset([each, ConcatDataset([each, other])]) for each in (quick, slow)]
    assert_equal(batches(nested[0], **how), batches(nested[1], **how))
    for one, two in ((quick, other), (quick, quick), (other, quick)):
        assert_equal(flat(StackDataset(one, two), **how), flat(StackDataset(*map(stepwise, (one, two))), **how))


def stepwise(dataset: Any) -> Any:
    return Stepwise(dataset.base, *dataset.functions)


def flat(dataset: Any, **how: Any) -> list[Any]:
    loader = headrace.DataLoader(dataset, 8, **{"seed": 1, "shuffle": True, **how})
    return [[np.array(part) for one in batch for part in leaves(one)] for batch in loader]


def leaves(tree: Any) -> list[Any]:
    return [leaf for one in tree for leaf in leaves(one)] if isinstance(tree, tuple | list) else [tree]


@pytest.mark.parametrize("how", [{}, {"num_workers": 2}, {"on_error": "skip"}], ids=str)
def test_pairs_are_those_of_the_steps(images: list[str], how: dict[str, Any]) -> None:
    """Draw the rows first, then what the image draws, then what the rows do, from one generator."""
    labels = [number % 4 for number in range(len(images))]
    base = ImageFiles(images, labels)
    plain = headrace.ArrayDataset(np.arange(20.0)[:, None], np.arange(20) % 4)
    jitter = plain.map(lambda row, rng: (row[0] + rng.random(), row[1]))
    cropped = ImageFiles(images, labels).map(RandomResizedCrop(20), RandomHorizontalFlip())
    for functions in (TRAIN, (*TRAIN, noisy), (Resize((30, 20)),)):
        quick, slow = both(base, *functions)
        for others in (plain, jitter, cropped):
            ours, theirs = (PairedDataset(one, others, k=2, labels=labels) for one in (quick, slow))
            theirs.others = stepwise(others) if others is not plain else plain
            assert_equal(flat(ours, **how), flat(theirs, **how))
            assert_equal(flat(ConcatDataset([ours, ours]), **how), flat(ConcatDataset([theirs, theirs]), **how))


def test_a_dataset_with_a_way_of_its_own_is_left_alone(images: list[str]) -> None:
    """Read no files behind the back of a subclass that says what a sample is."""

    class Inverted(ImageFiles):
        def __getitem__(self, index: int) -> Any:
            image, label = super().__getitem__(index)
            return 255 - image, label

    quick, slow = both(Inverted(images), *TRAIN)
    assert "a way of its own" in headrace.explain(quick)
    assert_equal(batches(quick), batches(slow))


def test_keys_mean_what_indices_mean(images: list[str]) -> None:
    """Count negative keys from the end, and refuse what lies outside."""
    quick, slow = both(ImageFiles(images, range(len(images))), *TRAIN)
    keys = [-1, 0, -len(images)]
    options: dict[str, Any] = {"shuffle": False, "sampler": keys}
    assert_equal(batches(quick, 3, **options), batches(slow, 3, **options))
    with pytest.raises(IndexError, match="out of range"):
        batches(quick, shuffle=False, sampler=[0, len(images)])


def test_folders_and_odd_names_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open what the dataset means: below a root, by relative paths, with names of bytes that are no letters."""
    for name in ("a/1.jpg", "a/ü \udcff.jpg", "b/z.jpg"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(photo(len(name))))
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path / "photos", "photos", "photos/"):
        quick, slow = both(ImageFolder(root), *TRAIN)
        assert_equal(batches(quick), batches(slow))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    out=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    mode=st.sampled_from(["RGB", "L", "CMYK"]),
    options=st.fixed_dictionaries(
        {
            "quality": st.sampled_from([5, 75, 100]),
            "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
            "progressive": st.booleans(),
            "restart_marker_blocks": st.sampled_from([0, 1, 7]),
        }
    ),
    orientation=st.integers(1, 8),
    oriented=st.booleans(),
    scale=st.sampled_from([(0.01, 0.05), (0.08, 1.0), (1.0, 1.0)]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos", "box"]),
    seed=st.integers(0, 10**6),
)
def test_any_image_any_crop(
    height: int, width: int, out: tuple[int, int], mode: str, options: Any, orientation: int, oriented: bool,
    scale: Any, interpolation: Any, seed: int,
) -> None:  # fmt: skip
    """Agree with the steps on images of any size and kind, however little of them is wanted."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(photo(seed % 7, height, width)).convert(mode), exif=exif, **options)
    chain = [RandomResizedCrop(out, scale=scale, interpolation=interpolation), RandomHorizontalFlip()]
    row = by_extension(data, chain, seed, oriented=oriented)
    if row is None:
        assert mode == "CMYK"
        return
    expected = decode_as(data, None, Decoding(oriented=oriented), set())
    rng = generator(key_of(seed), Purpose.SAMPLE, 2, 5)
    for step in chain:
        expected = step(expected, rng)
    assert far_off(row, expected) <= 0.001


def native_source(contents: list[bytes]) -> Any:
    return extension.Source.bytes(contents)  # type: ignore[union-attr]


def by_extension(
    data: bytes, chain: list[Any], seed: int = 0, level: str = "", **options: Any
) -> NDArray[np.uint8] | None:
    """Make a row of the batch of an image in memory; None where the native extension gives it up."""
    plan = fused.plan(chain, level=level, **options)
    native = fused.pipeline_of(plan.recipe)  # type: ignore[arg-type]
    out = np.zeros((1, *plan.shape), plan.dtype)
    source = native_source([data])
    job = native.rows(source, np.zeros(1, np.int64), fused.place_of(Here(key_of(seed), 2, 5)), out)
    job.run()
    return None if job.missing else out[0]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
def test_all_levels_of_instructions_agree(interpolation: Any) -> None:
    """Give the same floats to the last bit, whatever the processor has."""
    chain = [RandomResizedCrop((37, 50), interpolation=interpolation), *TRAIN[1:]]
    for file in sorted(DEMO.glob("*.jpg")):
        rows = [by_extension(file.read_bytes(), chain, level=level) for level in extension.levels()]  # type: ignore[union-attr]
        assert rows[0] is not None
        assert all(np.array_equal(rows[0], row) for row in rows)  # type: ignore[arg-type]


@settings(max_examples=50)
@given(seed=st.integers(0, 2**64), epoch=st.integers(0, 2**64 - 1), position=st.integers(0, 2**64 - 1))
def test_random_numbers_are_numpys(seed: int, epoch: int, position: int) -> None:
    """Draw what the sample's own generator draws."""
    here = Here(key_of(seed), epoch, position)
    expected = generator(here.key, Purpose.SAMPLE, epoch, position).random(23)
    assert extension.draws(fused.place_of(here), 23) == expected.tolist()  # type: ignore[union-attr]


def film_behind(data: bytes) -> bytes:
    return data + b"some camera's film" * 100


def other_notes(data: bytes) -> bytes:
    return data[:2] + b"\xff\xe1\x00\x0aunknown" + data[2:]


def xmp_that_turns(data: bytes) -> bytes:
    text = b'http://ns.adobe.com/xap/1.0/\x00<x tiff:Orientation="6"/>'
    return data[:2] + b"\xff\xe1" + (len(text) + 2).to_bytes(2, "big") + text + data[2:]


@pytest.mark.parametrize("oddity", [film_behind, other_notes, xmp_that_turns])
def test_odd_files_are_read_as_the_steps_read_them(oddity: Callable[[bytes], bytes], tmp_path: Path) -> None:
    """Read what cameras and programs put around an image, or leave it to the steps."""
    file = tmp_path / "odd.jpg"
    file.write_bytes(oddity(encoded(photo(5, 60, 100))))
    quick, slow = both(ImageFiles([file] * 4), *TRAIN)
    assert_equal(batches(quick), batches(slow))


def test_an_image_in_memory_is_not_written_past(images: list[str]) -> None:
    """Leave the neighbours of a row of the batch alone."""
    chain = fused.plan([RandomResizedCrop((31, 17))])
    native = fused.pipeline_of(chain.recipe)  # type: ignore[arg-type]
    one = np.zeros(1, np.int64)
    around = np.full((3, *chain.shape), 77, np.uint8)
    for path in images:
        source = native_source([Path(path).read_bytes()])
        native.rows(source, one, fused.place_of(Here()), around[1:2]).run()
        assert (around[[0, 2]] == 77).all()
    for out, more, what in ((around, (), "another size"), (around[1:2], ([0, 1],), "another length")):
        with pytest.raises(ValueError, match=what):
            native.rows(native_source([b""]), one, fused.place_of(Here()), out, *more)
    with pytest.raises(ValueError, match="another length"):
        native.rows(native_source([b""]), one, fused.place_of(Here()), around[1:2], None, [0, 1])
    with pytest.raises(IndexError, match="not in the source"):
        native.rows(native_source([b""]), one + 1, fused.place_of(Here()), around[1:2])


def test_an_empty_batch_and_no_bytes_at_all() -> None:
    """Give an empty batch of the right shape; and give up bytes that are nothing."""
    quick, _ = both(ImageFiles(["a"]), *TRAIN)
    images, labels = quick.read_batch([])
    assert images.shape == (0, 3, 48, 48)
    assert labels.shape == (0,)
    assert all(
        by_extension(data, list(TRAIN)) is None for data in (b"", b"\xff\xd8", io.BytesIO().getvalue(), b"x" * 99)
    )
