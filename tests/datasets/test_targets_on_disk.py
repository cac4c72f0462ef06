"""`VOC`, `YOLO`, `SegmentationFolder` and `MultiLabel`: what their files say, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from headrace import CenterCrop, Compose, DataLoader, RandomHorizontalFlip
from headrace.datasets import VOC, YOLO, CopyPaste, MultiLabel, SegmentationFolder
from headrace.errors import ArgumentError, BadAnnotation, BadFile, ListFileError, MissingFile
from headrace.testing import DatasetTests
from headrace.transforms import Pad

if TYPE_CHECKING:
    from pathlib import Path

NAMES = "abcdef"
HEIGHT, WIDTH = 6, 8
OBJECT = (
    "<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
    "<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox><part><name>head</name></part></object>"
)


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def voc_xml(*objects: str, size: str = "<size><width>8</width><height>6</height></size>") -> str:
    return f"<annotation>{size}{''.join(objects)}</annotation>"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOC2012"
    for number, name in enumerate(NAMES):
        write_image(root / "JPEGImages" / f"{name}.jpg", number)
        text(root / "Annotations" / f"{name}.xml", voc_xml())
        mask = Image.fromarray(np.full((HEIGHT, WIDTH), 15, np.uint8), mode=None).convert("P")
        mask.putpixel((0, 0), 255)
        (root / "SegmentationClass").mkdir(exist_ok=True)
        mask.save(root / "SegmentationClass" / f"{name}.png")
    both = OBJECT.format(name="dog", hard=0, box=(1, 1, 4, 6)), OBJECT.format(name="cat", hard=1, box=(8.0, 6, 8, 6))
    text(root / "Annotations" / "b.xml", voc_xml(*both))
    for kind in ("Main", "Segmentation"):
        text(root / "ImageSets" / kind / "train.txt", "".join(f"{name}\n" for name in NAMES))
    return root


class TestVOC(DatasetTests):
    collates = False

    @pytest.fixture(autouse=True)
    def _files(self, voc: Path) -> None:
        self.root = voc

    def label(self, sample: Any) -> Any:
        return sample["image_id"]

    def make(self) -> VOC:
        return VOC(self.root)


def test_voc_boxes_become_edges_counted_from_zero(voc: Path) -> None:
    dataset = VOC(voc)
    sample = dataset[1]
    assert sample["boxes"].tolist() == [[0, 0, 4, 6], [7, 5, 8, 6]]
    assert [dataset.classes[label] for label in sample["labels"]] == ["dog", "cat"]
    assert sample["difficult"].tolist() == [False, True]
    assert VOC(voc, difficult=False)[1]["boxes"].tolist() == [[0, 0, 4, 6]]
    assert VOC(voc, from_one=False)[1]["boxes"][0].tolist() == [1, 1, 4, 6]
    assert dataset[0]["boxes"].shape == (0, 4)
    cut = Compose(CenterCrop(2), kinds=dataset.kinds)(sample)
    assert {len(cut[name]) for name in ("boxes", "labels", "difficult")} == {1}


def test_voc_masks_keep_the_indices_of_their_palette(voc: Path) -> None:
    dataset = VOC(voc, target="segmentation")
    mask = dataset[0]["mask"]
    assert (mask[0, 0], set(mask.ravel().tolist()), mask.dtype) == (255, {15, 255}, np.uint8)
    padded = Compose(Pad(1), kinds=dataset.kinds)(dataset[0])
    assert set(padded["mask"][0].tolist()) == {255}


OBJECTS = np.zeros((HEIGHT, WIDTH), np.uint8)
OBJECTS[1:4, 2:6], OBJECTS[5, 7], OBJECTS[0] = 1, 3, 255
CLASSES_OF_PIXELS = np.array([0, 12, 12, 8], np.uint8)  # by object: dog (12), cat (8)


def write_objects(voc: Path, objects: Any = OBJECTS, classes: Any = None) -> VOC:
    """Write the masks of one image, and return the dataset."""
    if classes is None:
        classes = np.where(objects == 255, 255, CLASSES_OF_PIXELS[np.minimum(objects, 3)]).astype(np.uint8)
    for folder, mask in (("SegmentationObject", objects), ("SegmentationClass", classes)):
        (voc / folder).mkdir(exist_ok=True)
        for name in NAMES:
            image = Image.fromarray(mask).convert("P")
            image.putdata(mask.ravel().tolist())
            image.save(voc / folder / f"{name}.png")
    return VOC(voc, target="instances")


def test_voc_objects_have_masks_boxes_around_them_and_the_classes_of_their_pixels(voc: Path) -> None:
    dataset = write_objects(voc)
    sample = dataset[0]
    assert sample["masks"].dtype == np.uint8
    np.testing.assert_array_equal(sample["masks"], [OBJECTS == 1, OBJECTS == 3])
    assert sample["boxes"].tolist() == [[2, 1, 6, 4], [7, 5, 8, 6]]
    assert [dataset.classes[label] for label in sample["labels"]] == ["dog", "cat"]
    cut = Compose(CenterCrop(2), kinds=dataset.kinds)(sample)
    assert [len(cut[name]) for name in ("boxes", "labels", "masks")] == [1, 1, 1]
    pasted = CopyPaste(dataset, p=1, share=1)[1]
    assert pasted["masks"].sum(axis=0).max() == 1
    empty = write_objects(voc, np.where(OBJECTS == 255, OBJECTS, 0))[0]
    assert (empty["masks"].shape, empty["boxes"].shape, empty["labels"].shape) == ((0, HEIGHT, WIDTH), (0, 4), (0,))


@pytest.mark.parametrize(
    ("objects", "classes", "message"),
    [
        (OBJECTS, np.full((HEIGHT, WIDTH), 255, np.uint8), r"the object 1 has no class: \[255\]"),
        (OBJECTS, np.full((HEIGHT, WIDTH), 21, np.uint8), r"the object 1 has no class: \[21\]"),
        (OBJECTS[:-1], np.zeros((HEIGHT, WIDTH), np.uint8), "a mask of 8 x 5 pixels beside classes of 8 x 6"),
    ],
)
def test_voc_objects_that_do_not_fit_their_classes_are_bad_samples(
    voc: Path, objects: Any, classes: Any, message: str
) -> None:
    dataset = write_objects(voc, objects, classes)
    with pytest.raises(BadAnnotation, match=message):
        dataset[0]
    (voc / "SegmentationObject" / "b.png").unlink()
    with pytest.raises(MissingFile, match=r"b\.png"):
        dataset[1]


BOMB = '<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;">]><a>&y;</a>'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, "document type"),
        ("<a>", "cannot be parsed as XML"),
        ("", "cannot be parsed as XML"),
        ("<a>" * 100 + "</a>" * 100, "nested deeper"),
        (voc_xml(OBJECT.format(name="unicorn", hard=0, box=(1, 1, 2, 2))), "the class 'unicorn'"),
        (voc_xml(OBJECT.format(name="dog", hard=0, box=(5, 1, 2, 2))), "negative size"),
        (voc_xml(OBJECT.format(name="dog", hard=0, box=(1, "x", 2, 2))), "'dog' has the box"),
        (voc_xml(OBJECT.format(name="dog", hard=0, box=(1, "nan", 2, 2))), "'dog' has the box"),
        (voc_xml(OBJECT.format(name="dog", hard=0, box=(1, 1, "2_0", 2))), "'dog' has the box"),
        (voc_xml("<object><name>dog</name></object>"), "'dog' has the box"),
        (voc_xml(size="<size><width>80</width><height>6</height></size>"), "its annotations are for 80 x 6"),
    ],
)
def test_xml_that_cannot_be_used_is_a_bad_sample_that_names_its_file(voc: Path, content: str, message: str) -> None:
    text(voc / "Annotations" / "c.xml", content)
    dataset = VOC(voc)
    with pytest.raises(BadAnnotation, match=message) as caught:
        dataset[2]
    assert caught.value.index == 2
    assert len(list(DataLoader(dataset, None, on_error="skip", collate_fn=lambda sample: sample))) == len(NAMES) - 1


def test_a_folder_that_is_not_vocs_is_named(tmp_path: Path, voc: Path) -> None:
    with pytest.raises(MissingFile, match="no JPEGImages"):
        VOC(tmp_path)
    with pytest.raises(MissingFile, match=r"val\.txt"):
        VOC(voc, "val")
    (voc / "Annotations" / "a.xml").unlink()
    with pytest.raises(MissingFile, match=r"a\.xml"):
        VOC(voc)[0]


YAML = """# a comment
path: .  # here
train: images/train
val:
  - images/val
names:
  0: cat
  1: "big dog"
nc: 2
kpt_shape: [2, 3]
flip_idx: [1, 0]
download: |
  import os
  os.system("echo no")
"""


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    text(tmp_path / "data.yaml", YAML)
    for number, name in enumerate(NAMES):
        write_image(tmp_path / "images" / "train" / f"{name}.png", number)
    write_image(tmp_path / "images" / "val" / "x.png")
    text(tmp_path / "labels" / "train" / "a.txt", "1 0.5 0.5 0.25 1\n\n0 0 0 0.5 0 0.5 1\n")
    text(tmp_path / "labels" / "val" / "x.txt", "1 0.5 0.5 0.5 0.5 0.25 0.25 2 0 0 0\n")
    return tmp_path


class TestYOLO(DatasetTests):
    collates = False

    @pytest.fixture(autouse=True)
    def _files(self, yolo: Path) -> None:
        self.root = yolo

    def label(self, sample: Any) -> Any:
        return sample["labels"]

    def make(self) -> YOLO:
        return YOLO(self.root, masks=True)


def test_yolo_rows_become_boxes_in_pixels_and_masks(yolo: Path) -> None:
    dataset = YOLO(yolo / "data.yaml", masks=True)
    assert dataset.classes == ["cat", "big dog"]
    sample = dataset[0]
    assert sample["boxes"].tolist() == [[3, 0, 5, 6], [0, 0, 4, 6]]
    assert sample["labels"].tolist() == [1, 0]
    assert sample["masks"][0].sum() == 12
    assert 8 <= sample["masks"][1].sum() <= 14
    assert dataset[1]["masks"].shape == (0, HEIGHT, WIDTH)


def test_yolo_keypoints_flip_by_the_order_in_the_file(yolo: Path) -> None:
    dataset = YOLO(yolo, "val", keypoints=True)
    assert dataset[0]["keypoints"].tolist() == [[[1.5, 1, 2], [0, 0, 0]]]
    flipped = Compose(RandomHorizontalFlip(1), kinds=dataset.kinds)(dataset[0])
    assert flipped["keypoints"].tolist() == [[[0, 0, 0], [5.5, 1, 2]]]


@pytest.mark.parametrize("seen", ["nan", "inf"])
def test_a_visibility_that_is_no_number_is_a_bad_sample(yolo: Path, seen: str) -> None:
    text(yolo / "labels" / "val" / "x.txt", f"1 0.5 0.5 0.5 0.5 0.25 0.25 {seen} 0 0 0\n")
    with pytest.raises(BadAnnotation, match="line 1: a keypoint that is no number"):
        YOLO(yolo, "val", keypoints=True)[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 -0.1 0.1", "line 2: the coordinate -0.1"),
        ("0 0.5 0.5 -0.005 0.1", "line 2: a box of negative size"),
        ("0 0.5 0.5 0.1", "line 2: 4 numbers"),
        ("0 0.5 0.5 0.1 0.2 0.3", "line 2: 6 numbers"),
        ("2 0.5 0.5 0.1 0.1", "line 2: the class 2"),
        ("0.5 0.5 0.5 0.1 0.1", "line 2: the class 0.5"),
        ("nan 0.5 0.5 0.1 0.1", "line 2: the class nan"),
        ("0 nan 0.5 0.1 0.1", "line 2: the coordinate nan"),
        ("0 40 50 100 100", "line 2: the coordinate 40"),
        ("cat 0 0 0 0", "line 2: 'cat 0 0 0 0'"),
        ("0 0.5 0.5 0_1 0.1", "line 2: '0 0.5 0.5 0_1 0.1'"),
        ("0 0.5 0.5 0.1 \u0661", "line 2: '0 0.5 0.5 0.1 \u0661'"),
    ],
)
def test_lines_that_are_no_objects_are_bad_samples(yolo: Path, line: str, message: str) -> None:
    text(yolo / "labels" / "train" / "b.txt", f"0 0.5 0.5 0.5 0.5\n{line}\n")
    with pytest.raises(BadAnnotation, match=message) as caught:
        YOLO(yolo)[1]
    assert str(caught.value.path).endswith("b.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("train: images/train\n", "no 'names'"),
        ("names: [a]\n", "no 'train'"),
        ("names: [a]\nnc: 2\ntrain: images/train\n", "nc is 2"),
        ("names: {0: a, 2: b}\ntrain: images/train\n", "without gaps"),
        ("names: !!python/object/apply:os.system [echo]\n", "line 1"),
        ("a: &x [1]\nnames: *x\n", "line 1"),
        ("names: [a, [b]]\n", "brackets in brackets"),
        ("names: [a\n", "not closed"),
        ("no yaml at all\n", "line 1"),
    ],
)
def test_a_yaml_file_that_cannot_be_used_is_a_bad_file(yolo: Path, content: str, message: str) -> None:
    text(yolo / "data.yaml", content)
    with pytest.raises(BadFile, match=message):
        YOLO(yolo)


def test_yolo_reads_lists_of_paths_and_what_roboflow_writes(yolo: Path) -> None:
    text(yolo / "list.txt", "./images/train/a.png\nimages/val/x.png\n")
    text(yolo / "data.yaml", "names: ['a', 'b']\ntrain: list.txt\nval: ../images/val\n")
    assert list(YOLO(yolo).paths) == ["images/train/a.png", "images/val/x.png"]
    assert list(YOLO(yolo, "val").paths) == ["images/val/x.png"]
    text(yolo / "data.yaml", "names: ['a']\ntrain: nowhere\n")
    with pytest.raises(MissingFile, match="nowhere"):
        YOLO(yolo)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        write_image(tmp_path / "leftImg8bit" / "train" / "ulm" / f"{name}_leftImg8bit.png", number)
        mask = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
        (tmp_path / "gtFine" / "train" / "ulm").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(tmp_path / "gtFine" / "train" / "ulm" / f"{name}_gtFine_labelIds.png")
        Image.fromarray(mask).save(tmp_path / "gtFine" / "train" / "ulm" / f"{name}_gtFine_color.png")
    return tmp_path


class TestSegmentationFolder(DatasetTests):
    @pytest.fixture(autouse=True)
    def _files(self, pairs: Path) -> None:
        self.root = pairs

    def label(self, sample: Any) -> Any:
        return sample["mask"]

    def make(self) -> SegmentationFolder:
        return SegmentationFolder.cityscapes(self.root)


def test_ids_become_classes_and_others_are_ignored(pairs: Path) -> None:
    dataset = SegmentationFolder.cityscapes(pairs)
    mask = dataset[0]["mask"].ravel().tolist()
    assert (mask[7], mask[8], mask[33], mask[34], mask[0]) == (0, 1, 18, 255, 255)
    assert dataset.classes[0] == "road"
    assert "_labelIds" in dataset.mask_path(0)
    plain = SegmentationFolder(
        pairs / "leftImg8bit", pairs / "gtFine", image_suffix="_leftImg8bit", mask_suffix="_gtFine_labelIds"
    )
    assert plain[0]["mask"].ravel().tolist() == list(range(HEIGHT * WIDTH))


def test_pairs_that_do_not_fit_are_refused(pairs: Path) -> None:
    folder = pairs / "gtFine" / "train" / "ulm"
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "a_gtFine_labelIds.png")
    Image.new("L", (WIDTH, 3)).save(folder / "b_gtFine_labelIds.png")
    dataset = SegmentationFolder.cityscapes(pairs)
    with pytest.raises(BadAnnotation, match="a mask of shape"):
        dataset[0]
    with pytest.raises(BadAnnotation, match="its annotations are for 8 x 3"):
        dataset[1]
    (folder / "c_gtFine_labelIds.png").unlink()
    with pytest.raises(MissingFile, match="1 of 6 files have none of the same name"):
        SegmentationFolder.cityscapes(pairs)
    with pytest.raises(ArgumentError, match="mapping"):
        SegmentationFolder(folder, folder, mapping={-1: 3})


class TestMultiLabel(DatasetTests):
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path: Path) -> None:
        self.root = tmp_path
        for number, name in enumerate(NAMES):
            write_image(tmp_path / f"{name}.jpg", number)
        text(tmp_path / "a.csv", "name,cat,dog\n" + "".join(f"{name}.jpg,{name in 'abc':d},1\n" for name in NAMES))

    def make(self) -> MultiLabel:
        return MultiLabel(self.root / "a.csv")

    def test_a_loader_gives_vectors_for_a_loss(self) -> None:
        _, labels = next(iter(DataLoader(self.make(), 2)))
        assert (labels.tolist(), labels.dtype) == ([[1, 1], [1, 1]], np.float32)


def test_lists_of_labels_become_vectors_in_the_order_of_the_classes(tmp_path: Path) -> None:
    text(tmp_path / "a.csv", 'file;tags\na.jpg;"dog, cat"\nb.jpg;\n')
    options: dict[str, Any] = {"sep": ";", "labels": "tags", "split": ","}
    assert MultiLabel(tmp_path / "a.csv", **options).labels.tolist() == [[1, 1], [0, 0]]
    fixed = MultiLabel(tmp_path / "a.csv", classes=["dog", "bird", "cat"], **options)
    assert (fixed.classes, fixed.labels.tolist()) == (["dog", "bird", "cat"], [[1, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("image,cat\na.jpg,2\n", {}, "line 2: '2' in the column 'cat'"),
        ("image,cat\na.jpg\n", {}, "line 2: 1 fields"),
        ("image,cat\n,1\n", {}, "line 2: an empty path"),
        ("image,tags\na.jpg,dog\n", {"labels": "tags", "classes": ["cat"]}, "line 2: the class 'dog'"),
        ("image,tags\na.jpg,dog\n", {"labels": "labels"}, "no column 'labels'"),
        ("image\na.jpg\n", {}, "a header"),
        ("", {}, "a header"),
        ('image,cat\n"a.jpg,1\n', {}, "as CSV"),
        ("image,cat,cat\na.jpg,1,0\n", {}, "several columns 'cat'"),
        ("image,cat,cat\na.jpg,1,0\n", {"labels": ["cat"]}, "several columns 'cat'"),
    ],
)
def test_lines_that_cannot_be_read_are_named(
    tmp_path: Path, content: str, options: dict[str, Any], message: str
) -> None:
    text(tmp_path / "a.csv", content)
    with pytest.raises(ListFileError, match=message):
        MultiLabel(tmp_path / "a.csv", **options)


@pytest.mark.parametrize(
    "options", [{"labels": "tags", "classes": ["x", "x"]}, {"labels": "tags", "classes": "x"}, {"labels": []}]
)
def test_names_of_classes_must_differ(tmp_path: Path, options: dict[str, Any]) -> None:
    text(tmp_path / "a.csv", "image,tags\na.jpg,x\n")
    with pytest.raises(ArgumentError, match="must be different names"):
        MultiLabel(tmp_path / "a.csv", **options)


def test_a_mapping_that_is_none_and_classes_in_one_text_are_refused(pairs: Path) -> None:
    wrong: tuple[dict[str, Any], ...] = ({"mapping": 5}, {"mapping": "01"}, {"classes": "road"})
    folders = pairs / "leftImg8bit", pairs / "gtFine"
    for options in wrong:
        with pytest.raises(ArgumentError, match=r"(mapping|classes) must be"):
            SegmentationFolder(*folders, image_suffix="_leftImg8bit", mask_suffix="_gtFine_labelIds", **options)
