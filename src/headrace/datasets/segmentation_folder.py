"""Pairs of images and masks in two folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import as_integer, different_names, integer, refused
from headrace.datasets.annotated import AnnotatedImages, wrong
from headrace.datasets.images import DEFAULT_EXTENSIONS, ImageFiles, as_folder
from headrace.datasets.object_images import UNKNOWN
from headrace.datasets.packed_list import PackedList
from headrace.errors import MissingFile
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.image.kinds import Mask
from headrace.storage.objects import absolute, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

IDS = 1 << 16
"""Values that a mask may have where they are mapped."""

CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The ids in Cityscapes' files of the classes that are trained and evaluated."""


class SegmentationFolder(AnnotatedImages):
    """Pairs of images and masks: files of the same name in two folders.

    >>> import numpy as np, tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> from headrace.datasets import SegmentationFolder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("images", "masks"):
    ...         Path(folder, name).mkdir()
    ...     Image.new("RGB", (3, 2)).save(f"{folder}/images/a.jpg")
    ...     Image.fromarray(np.array([[7, 8, 0], [7, 7, 9]], np.uint8)).save(f"{folder}/masks/a.png")
    ...     dataset = SegmentationFolder(f"{folder}/images", f"{folder}/masks", mapping={7: 0, 8: 1})
    ...     sample = dataset[0]
    >>> sample["image"].shape, sample["mask"].tolist()
    ((2, 3, 3), [[0, 1, 255], [0, 0, 255]])

    A sample is a dict of ``image`` (H, W, 3) uint8 and ``mask`` (H, W) of the file's own dtype: indices of a palette
    stay indices. Both folders are walked, and pairs have the same path below them without their endings and suffixes:
    ``image_suffix="_leftImg8bit"`` and ``mask_suffix="_gtFine_labelIds"`` are Cityscapes'. Files without the suffix are
    passed over. ``mapping``, a dict or a sequence, gives the class of each id in the files; all other ids become
    ``ignore_index``, and the mask is uint8 (or uint16, where a class is above 255). `kinds`, passed to `Compose`, lets
    geometry fill what it uncovers with ``ignore_index``. The folders may be URLs, of a store that lists its objects.

    Raises `MissingFile` for an image without a mask or a mask without an image, and `ArgumentError`. Reading a sample
    raises `BadAnnotation` for a mask with colors, and for one of another size than its image.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        masks: str | os.PathLike[str],
        *,
        image_suffix: str = "",
        mask_suffix: str = "",
        mapping: Mapping[int, int] | Sequence[int] | None = None,
        ignore_index: int = 255,
        classes: Iterable[str] = (),
        extensions: Iterable[str] = DEFAULT_EXTENSIONS,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
    ) -> None:
        self._ignored = integer("ignore_index", ignore_index, least=0, most=IDS - 1)
        self._table = None if mapping is None else _table(mapping, self._ignored)
        endings = tuple(extensions)
        images, masks = as_folder(images), as_folder(masks)
        found, found_masks = (ImageFiles.under(folder, extensions=endings) for folder in (images, masks))
        named = _named(images, found.paths, image_suffix)
        rows = list(named.values()), _pairs(images, named, masks, _named(masks, found_masks.paths, mask_suffix))
        self._masks_base = absolute(masks)
        self._mask_paths = PackedList(found_masks.paths[row] for row in rows[1])
        super().__init__(
            images,
            PackedList(found.paths[row] for row in rows[0]),
            different_names("classes", classes) if classes else (),
            Decoding("RGB", max_pixels, allow_truncated),
            facts=_facts((found, found_masks), rows),
        )

    @classmethod
    def cityscapes(cls, root: str | os.PathLike[str], split: str = "train", **options: Any) -> SegmentationFolder:
        """Return the images of Cityscapes with the 19 classes that are trained; other ids are ignored.

        ``root`` is the folder of ``leftImg8bit`` and ``gtFine``.
        """
        folder = as_folder(root)
        return cls(
            joined(folder, f"leftImg8bit/{split}"),
            joined(folder, f"gtFine/{split}"),
            image_suffix="_leftImg8bit",
            mask_suffix="_gtFine_labelIds",
            mapping={number: label for label, number in enumerate(CITYSCAPES_IDS)},
            classes=CITYSCAPES,
            **options,
        )

    @property
    def ignore_index(self) -> int:
        """The value of pixels that a loss ignores."""
        return self._ignored

    @property
    def kinds(self) -> dict[str, Any]:
        """The kinds of the fields, for ``Compose(..., kinds=dataset.kinds)``."""
        return {"image": "image", "mask": Mask(fill=self._ignored)}

    def mask_path(self, index: int) -> str:
        """Return the path of a mask, ready to be opened."""
        return self._path(range(len(self))[index], 1)

    def _files(self, place: int) -> tuple[str, ...]:
        return self._paths[place], joined(self._masks_base, self._mask_paths[place])

    def _sample(self, place: int) -> dict[str, Any]:
        path, mask = self._path(place, 1), self._mask(place, 1)
        image = self._image(place, mask.shape)
        if self._table is not None:
            if mask.size and not 0 <= int(mask.min()) <= int(mask.max()) < IDS:
                wrong(path, f"ids from {mask.min()} to {mask.max()}", f"ids from 0 to {IDS - 1}")
            mask = self._table[mask]
        return {"image": image, "mask": mask}


def _table(mapping: Any, ignored: int) -> NDArray[Any]:
    """Return the class of each id that a file may have."""
    if not isinstance(mapping, Iterable) or isinstance(mapping, str):
        raise refused("mapping", mapping, "a dict of ids to classes, or a class for each id", "Pass {7: 0, 8: 1}.")
    pairs: Any = mapping.items() if isinstance(mapping, Mapping) else enumerate(mapping)
    pairs = [(as_integer(number), as_integer(label)) for number, label in pairs]
    if any(one is None or not 0 <= one < IDS for pair in pairs for one in pair):
        raise refused("mapping", mapping, f"classes and ids from 0 to {IDS - 1}", "Leave out ids that are ignored.")
    table = np.full(IDS, ignored, np.uint16)
    for number, label in pairs:
        table[number] = label
    return table.astype(np.uint8) if table.max() < 256 else table


def _named(root: str, paths: Sequence[str], suffix: str) -> dict[str, int]:
    """Return the rows of the images in a folder, by their paths without suffix and ending."""
    named: dict[str, int] = {}
    for row, path in enumerate(paths):
        name = os.path.splitext(path)[0]  # noqa: PTH122  a Path costs several times as much
        if not name.endswith(suffix):
            continue
        key = name[: len(name) - len(suffix)]
        if key in named:
            both = paths[named[key]], path
            raise refused("extensions", both, "one file of each name", f"Remove one of them from {root}.")
        named[key] = row
    return named


def _pairs(images: str, named: dict[str, int], masks: str, masks_named: dict[str, int]) -> list[int]:
    """Return the rows of the masks in the order of the images."""
    for one, here, other, there in ((named, images, masks_named, masks), (masks_named, masks, named, images)):
        lonely = [name for name in one if name not in other]
        if lonely:
            cure = "Pass image_suffix= and mask_suffix= for names that differ, or remove the files."
            what = f"{len(lonely)} of {len(one)} files have none of the same name in {there}, {lonely[0]!r} first"
            raise MissingFile(what, path=here, expected="a mask for each image", cure=cure)
    return [masks_named[name] for name in named]


def _facts(folders: Sequence[ImageFiles], rows: Sequence[list[int]]) -> NDArray[np.int64] | None:
    """Return size and version of each image and its mask; None where no folder is behind a URL."""
    known = [files._facts for files in folders]
    if all(facts is None for facts in known):
        return None
    pairs = [
        np.full((len(mine), 2), UNKNOWN) if facts is None else facts[mine]
        for facts, mine in zip(known, rows, strict=True)
    ]
    return np.stack(pairs, axis=1).reshape(-1, 2)
