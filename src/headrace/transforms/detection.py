"""Transforms of detection recipes: sizes, crops by boxes, letter boxes; and what changes boxes alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from headrace.checks import flag, fraction, integer, number, one_of, refused
from headrace.errors import ArgumentError
from headrace.image import carrying, sample_fields
from headrace.image.kinds import BOX_FORMATS, NONE_DECLARED, declared
from headrace.image.moves import Cut, CutAroundCenters, InTurn, Mirror, ScalePart, Stay, WithoutSmallBoxes
from headrace.image.moves import centers_inside as inside_of
from headrace.image.native_changes import upside_down
from headrace.image.native_steps import ChangePixels
from headrace.transforms import parameters
from headrace.transforms.geometric_transform import GeometricTransform, named_box
from headrace.transforms.image_transform import ImageTransform, size_of

if TYPE_CHECKING:
    from headrace.image.geometry import Box, Fill, Interpolation
    from headrace.image.kinds import BoxFormat, Kinds
    from headrace.image.moves import Move, Points
    from headrace.image.moves import Size as HeightAndWidth
    from headrace.image.native_changes import Change
    from headrace.image.sample_fields import Field, Path
    from headrace.transforms.parameters import Size

OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
"""The overlaps that SSD asks for."""

ROUNDS = 50
"""How often an overlap is drawn, before a sample stays as it is."""


@dataclass(frozen=True, slots=True)
class RandomVerticalFlip(GeometricTransform):
    """Mirror images top to bottom with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import RandomVerticalFlip
    >>> RandomVerticalFlip(p=1)(np.array([[1, 2], [3, 4]]))
    array([[3, 4],
           [1, 2]])
    """

    defers = True

    p: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", fraction("RandomVerticalFlip: p", self.p))

    def move(self, height: int, width: int, rng: Any) -> Mirror | Stay:
        """Draw whether the image is mirrored."""
        return Mirror((height, width), upright=False) if rng.random() < self.p else Stay((height, width))

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """Return whether the image is mirrored."""
        return {"flipped": bool(rng.random() < self.p)}

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""

        def describe(size: tuple[int, int, int]) -> Change:
            return "apply", (self.p,), ((*upside_down(size[0], size[2]), ()),)

        return ChangePixels(describe, colors=False)


@dataclass(frozen=True, slots=True)
class RandomZoomOut(GeometricTransform):
    """Put images somewhere on a larger canvas, with probability ``p``: objects become smaller.

    >>> import numpy as np
    >>> from headrace.transforms import RandomZoomOut
    >>> RandomZoomOut(side_range=(2, 2), p=1)(np.ones((4, 6))).shape
    (8, 12)

    The canvas is larger by a factor that is uniform in ``side_range``; ``fill`` is its value: one number, or one for
    each channel. Source: Liu et al., "SSD: Single shot multibox detector", ECCV 2016.
    """

    defers = True

    _: KW_ONLY
    fill: Fill = 0
    side_range: tuple[float, float] = (1.0, 4.0)
    p: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "fill", parameters.fill_value("RandomZoomOut", self.fill))
        factors = parameters.positive_range("RandomZoomOut", "side_range", self.side_range)
        if factors[0] < 1:
            raise refused("RandomZoomOut: side_range", self.side_range, "factors from 1 up", "Pass (1, 4).")
        object.__setattr__(self, "side_range", factors)
        object.__setattr__(self, "p", fraction("RandomZoomOut: p", self.p))

    def box(self, height: int, width: int, rng: Any) -> Box | None:
        """Draw the canvas (top, left, height, width) around an image; None for none."""
        if rng.random() >= self.p:
            return None
        least, most = self.side_range
        factor, across, down = rng.random(3).tolist()
        factor = least + (most - least) * factor
        rows, columns = int(height * factor), int(width * factor)
        return -int((rows - height) * down), -int((columns - width) * across), rows, columns

    def move(self, height: int, width: int, rng: Any) -> Cut | Stay:
        """Draw the canvas."""
        box = self.box(height, width, rng)
        return Stay((height, width)) if box is None else Cut(box, "constant", self.fill)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the canvas."""
        return named_box(self.box(*size_of(sample), rng))


class RandomScale(GeometricTransform):
    """Scale images to a size that is drawn: the base class of `RandomShortestSize` and `ScaleJitter`.

    >>> import numpy as np
    >>> from headrace.transforms import ScaleJitter
    >>> ScaleJitter((20, 20), scale_range=(1, 1)).drawn(np.zeros((10, 20)), np.random.default_rng(0))
    {'height': 10, 'width': 20}

    A subclass defines ``sides``.
    """

    __slots__ = ()
    described: ClassVar[tuple[str, ...]] = tuple(name for name in GeometricTransform.described if name != "drawn")
    interpolation: Any
    antialias: Any

    def sides(self, height: int, width: int, rng: Any) -> HeightAndWidth:
        """Draw the new height and width."""
        raise NotImplementedError(f"{type(self).__qualname__} must define sides(self, height, width, rng)")

    def move(self, height: int, width: int, rng: Any) -> ScalePart:
        """Draw the size."""
        size = self.sides(height, width, rng)
        return ScalePart((0, 0, height, width), size, self.interpolation, self.antialias)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the new height and width; none where a subclass may draw otherwise."""
        own = self.carries and type(self).apply is ImageTransform.apply and type(self).move is RandomScale.move
        return dict(zip(("height", "width"), self.sides(*size_of(sample), rng), strict=True)) if own else {}


@dataclass(frozen=True, slots=True)
class RandomShortestSize(RandomScale):
    """Scale the shorter side of images to one of several lengths, and the longer to at most ``max_size``.

    >>> import numpy as np
    >>> from headrace.transforms import RandomShortestSize
    >>> RandomShortestSize([8], max_size=12)(np.zeros((10, 20))).shape
    (6, 12)

    ``min_size`` is one length or several. ``interpolation``, ``antialias``, dtypes and errors are as for `Resize`.
    """

    defers = True
    scales = True

    min_size: int | Sequence[int]
    _: KW_ONLY
    max_size: int | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        given = self.min_size if isinstance(self.min_size, Iterable) else (self.min_size,)
        lengths = tuple(integer("RandomShortestSize: min_size", one, least=1) for one in given)
        if not lengths:
            raise refused("RandomShortestSize: min_size", self.min_size, "one length or several", "Pass (480, 512).")
        object.__setattr__(self, "min_size", lengths)
        if self.max_size is not None:
            object.__setattr__(self, "max_size", integer("RandomShortestSize: max_size", self.max_size, least=1))
        antialias = parameters.check_resizing("RandomShortestSize", self.interpolation, self.antialias)
        object.__setattr__(self, "antialias", antialias)

    def sides(self, height: int, width: int, rng: Any) -> HeightAndWidth:
        """Draw the new height and width."""
        lengths = cast("tuple[int, ...]", self.min_size)
        factor = lengths[int(rng.integers(len(lengths)))] / min(height, width)
        if self.max_size is not None:
            factor = min(factor, self.max_size / max(height, width))
        return max(1, int(height * factor)), max(1, int(width * factor))


@dataclass(frozen=True, slots=True)
class ScaleJitter(RandomScale):
    """Scale images at random around the size that fits ``target_size``: large scale jitter, before `FixedSizeCrop`.

    >>> import numpy as np
    >>> from headrace.transforms import ScaleJitter
    >>> ScaleJitter((20, 20), scale_range=(0.5, 0.5))(np.zeros((10, 20))).shape
    (5, 10)

    ``target_size`` is one length or (height, width); torchvision takes a pair as (width, height). The factor is uniform
    in ``scale_range``. ``interpolation``, ``antialias``, dtypes and errors are as for `Resize`. Source: Ghiasi et
    al., "Simple copy-paste is a strong data augmentation method", CVPR 2021.
    """

    defers = True
    scales = True

    target_size: Size
    _: KW_ONLY
    scale_range: tuple[float, float] = (0.1, 2.0)
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "target_size", parameters.size_pair("ScaleJitter", self.target_size))
        factors = parameters.positive_range("ScaleJitter", "scale_range", self.scale_range)
        object.__setattr__(self, "scale_range", factors)
        antialias = parameters.check_resizing("ScaleJitter", self.interpolation, self.antialias)
        object.__setattr__(self, "antialias", antialias)

    def sides(self, height: int, width: int, rng: Any) -> HeightAndWidth:
        """Draw the new height and width."""
        (rows, columns), (least, most) = cast("tuple[int, int]", self.target_size), self.scale_range
        factor = min(rows / height, columns / width) * (least + (most - least) * float(rng.random()))
        return max(1, int(height * factor)), max(1, int(width * factor))


@dataclass(frozen=True, slots=True)
class FixedSizeCrop(GeometricTransform):
    """Cut a random part of a size out; smaller images are widened at the right and at the bottom.

    >>> import numpy as np
    >>> from headrace.transforms import FixedSizeCrop
    >>> FixedSizeCrop((2, 4), fill=9)(np.array([[1, 2], [1, 2]]), np.random.default_rng(0))
    array([[1, 2, 9, 9],
           [1, 2, 9, 9]])

    ``size`` is one length or (height, width). ``fill`` is one number, or one for each channel.
    """

    defers = True

    size: Size
    _: KW_ONLY
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", parameters.size_pair("FixedSizeCrop", self.size))
        object.__setattr__(self, "fill", parameters.fill_value("FixedSizeCrop", self.fill))

    def box(self, height: int, width: int, rng: Any) -> Box:
        """Draw the part (top, left, height, width); one number says how far both right and down."""
        rows, columns = cast("tuple[int, int]", self.size)
        far = float(rng.random())
        return int(max(height - rows, 0) * far), int(max(width - columns, 0) * far), rows, columns

    def move(self, height: int, width: int, rng: Any) -> Cut:
        """Draw the part."""
        return Cut(self.box(height, width, rng), "constant", self.fill)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the part that is kept."""
        return named_box(self.box(*size_of(sample), rng))


@dataclass(frozen=True, slots=True)
class LetterBox(GeometricTransform):
    """Scale images to fit a size, keep their shape, and fill the margins: as YOLO does.

    >>> import numpy as np
    >>> from headrace.transforms import LetterBox
    >>> LetterBox(4, fill=9)(np.zeros((2, 4), np.uint8))
    array([[9, 9, 9, 9],
           [0, 0, 0, 0],
           [0, 0, 0, 0],
           [9, 9, 9, 9]], dtype=uint8)

    ``size`` is one length or (height, width). The image lies in the middle, or with ``center=False`` at the top left.
    With ``scale_up=False``, smaller images are not scaled. ``interpolation``, ``antialias``, dtypes and errors are as
    for `Resize`.
    """

    defers = True
    scales = True
    draws = False
    size: Size
    _: KW_ONLY
    fill: Fill = 114
    center: bool = True
    scale_up: bool = True
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", parameters.size_pair("LetterBox", self.size))
        object.__setattr__(self, "fill", parameters.fill_value("LetterBox", self.fill))
        object.__setattr__(self, "center", flag("center", self.center))
        object.__setattr__(self, "scale_up", flag("scale_up", self.scale_up))
        antialias = parameters.check_resizing("LetterBox", self.interpolation, self.antialias)
        object.__setattr__(self, "antialias", antialias)

    def move(self, height: int, width: int, rng: Any) -> InTurn:  # noqa: ARG002
        """Scale, then widen."""
        rows, columns = cast("tuple[int, int]", self.size)
        factor = min(rows / height, columns / width)
        factor = factor if self.scale_up else min(factor, 1.0)
        inner = max(1, min(rows, round(height * factor))), max(1, min(columns, round(width * factor)))
        top, left = ((rows - inner[0]) // 2, (columns - inner[1]) // 2) if self.center else (0, 0)
        scaled = ScalePart((0, 0, height, width), inner, self.interpolation, self.antialias)
        return InTurn((scaled, Cut((-top, -left, rows, columns), "constant", self.fill)))


@dataclass(frozen=True, slots=True)
class RandomIoUCrop(GeometricTransform):
    """Cut out a part that overlaps at least one box by a random share: the crop of SSD.

    >>> import numpy as np
    >>> from headrace.transforms import RandomIoUCrop
    >>> sample = {"image": np.zeros((40, 60, 3)), "boxes": [[10, 10, 30, 30]], "labels": [7]}
    >>> RandomIoUCrop()(sample, np.random.default_rng(1))["boxes"].shape
    (1, 4)

    Of ``sampler_options``, the least overlaps (intersection over union), one is drawn; 1 leaves the sample as it is.
    Then up to ``trials`` parts are drawn: both sides in (``min_scale``, ``max_scale``) of the image's, their ratio in
    (``min_aspect_ratio``, ``max_aspect_ratio``). Boxes whose center lies outside the part are dropped.

    Raises ArgumentError for arguments that cannot be used, and for a sample without boxes. Source: Liu et al., "SSD:
    Single shot multibox detector", ECCV 2016.
    """

    defers = True

    _: KW_ONLY
    min_scale: float = 0.3
    max_scale: float = 1.0
    min_aspect_ratio: float = 0.5
    max_aspect_ratio: float = 2.0
    sampler_options: Sequence[float] = OVERLAPS
    trials: int = 40

    def __post_init__(self) -> None:
        owner = "RandomIoUCrop"
        least, most = parameters.positive_range(owner, "min_scale, max_scale", (self.min_scale, self.max_scale))
        if most > 1:
            raise refused("RandomIoUCrop: max_scale", most, "a fraction of the image's side", "Pass 1.0.")
        object.__setattr__(self, "min_scale", least)
        object.__setattr__(self, "max_scale", most)
        ratios = parameters.positive_range(owner, "aspect_ratio", (self.min_aspect_ratio, self.max_aspect_ratio))
        object.__setattr__(self, "min_aspect_ratio", ratios[0])
        object.__setattr__(self, "max_aspect_ratio", ratios[1])
        given = self.sampler_options if isinstance(self.sampler_options, Iterable) else ()
        options = tuple(number(f"{owner}: sampler_options", one, least=0) for one in given)
        if not options:
            raise refused(f"{owner}: sampler_options", self.sampler_options, "at least one overlap", "Leave it out.")
        object.__setattr__(self, "sampler_options", options)
        object.__setattr__(self, "trials", integer(f"{owner}: trials", self.trials, least=1))

    def move(self, height: int, width: int, rng: Any) -> Move:  # noqa: ARG002
        """Refuse an image without boxes."""
        raise self._boxless()

    def move_for(self, fields: Sequence[Field], size: HeightAndWidth, rng: Any) -> Move:
        """Draw the part by the sample's boxes."""
        box = self._box(fields, size, rng)
        return Stay(size) if box is None else CutAroundCenters(box)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the part that is kept."""
        return self.drawn_for(sample, rng, NONE_DECLARED)

    def drawn_for(self, sample: Any, rng: np.random.Generator, kinds: Kinds) -> dict[str, Any]:
        """Return the part that is kept, of a sample whose fields have these kinds."""
        fields = sample_fields.found(sample, kinds)
        return named_box(self._box(fields, fields[0].value.shape[:2], rng))

    def _box(self, fields: Sequence[Field], size: HeightAndWidth, rng: Any) -> Box | None:
        field = carrying.boxes_field(self._name, fields)
        if field is None:
            raise self._boxless()
        rows, kind = carrying.box_rows(self._name, field)
        boxes = carrying.corners(rows, kind.format, size if kind.normalized else None)
        for _ in range(ROUNDS):
            overlap = self.sampler_options[int(rng.integers(len(self.sampler_options)))]
            if overlap >= 1:
                return None
            for _ in range(self.trials):
                box = self._tried(size, rng)
                if box is not None and _overlaps(boxes, box, overlap):
                    return box
        return None

    def _tried(self, size: HeightAndWidth, rng: Any) -> Box | None:
        (height, width), scales = size, (self.min_scale, self.max_scale)
        wide, high, across, down = rng.random(4).tolist()
        columns = int(width * (scales[0] + (scales[1] - scales[0]) * wide))
        rows = int(height * (scales[0] + (scales[1] - scales[0]) * high))
        if not rows or not columns or not self.min_aspect_ratio <= columns / rows <= self.max_aspect_ratio:
            return None
        return int((height - rows) * down), int((width - columns) * across), rows, columns

    def _boxless(self) -> ArgumentError:
        return ArgumentError(
            "RandomIoUCrop got a sample without boxes",
            found="no boxes",
            expected='a sample with boxes, as {"image": image, "boxes": boxes}',
            cure='Name the field "boxes", or declare it: Compose(..., kinds={...}).',
        )


@dataclass(frozen=True, slots=True)
class SanitizeBoundingBoxes(GeometricTransform):
    """Clip boxes to the image, and drop those with a side below ``min_size`` or an area below ``min_area`` pixels.

    >>> import numpy as np
    >>> from headrace.transforms import SanitizeBoundingBoxes
    >>> sample = {"image": np.zeros((8, 8)), "boxes": [[-2, 0, 3, 4], [5, 5, 5, 5]], "labels": ["a", "b"]}
    >>> out = SanitizeBoundingBoxes()(sample)
    >>> out["boxes"], out["labels"]
    (array([[0., 0., 3., 4.]], dtype=float32), ['a'])

    Rows of labels, masks and keypoints are dropped with their boxes. The image stays as it is.
    """

    defers = True
    draws = False
    min_size: float = 1.0
    min_area: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "min_size", number("SanitizeBoundingBoxes: min_size", self.min_size, least=0))
        object.__setattr__(self, "min_area", number("SanitizeBoundingBoxes: min_area", self.min_area, least=0))

    def move(self, height: int, width: int, rng: Any) -> WithoutSmallBoxes:  # noqa: ARG002
        """Move nothing, and drop boxes."""
        return WithoutSmallBoxes((height, width), self.min_size, self.min_area)


@dataclass(frozen=True, slots=True)
class ConvertBoundingBoxFormat(ImageTransform):
    """Write boxes in another format: "xyxy", "xywh" or "cxcywh", in pixels or ``normalized``.

    >>> import numpy as np
    >>> from headrace.transforms import ConvertBoundingBoxFormat
    >>> sample = {"image": np.zeros((10, 20, 3)), "boxes": np.array([[0, 0, 10, 5]])}
    >>> ConvertBoundingBoxFormat("cxcywh", normalized=True)(sample)["boxes"]
    array([[0.25, 0.25, 0.5 , 0.5 ]], dtype=float32)

    The transforms after it in one `Compose` take its format.
    """

    defers = True
    draws = False
    format: BoxFormat
    _: KW_ONLY
    normalized: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", one_of("ConvertBoundingBoxFormat: format", self.format, BOX_FORMATS))
        object.__setattr__(self, "normalized", flag("normalized", self.normalized))

    def apply_to(self, sample: Any, rng: Any, kinds: Kinds) -> Any:
        """Return the sample with its boxes in the format."""
        values = self.values_for(sample, self.fields_of(sample, kinds), rng)
        return sample_fields.replaced(sample, values) if values else sample

    def values_for(self, sample: Any, fields: list[Field], rng: Any, *, known: bool = False) -> dict[Path, Any]:  # noqa: ARG002
        """Return the boxes in the format, by their path."""
        size: tuple[int, int] = self._checked(fields[0].value).shape[:2]
        return carrying.converted(self._name, fields, self.format, normalized=self.normalized, size=size)

    def kinds_after(self, kinds: Any) -> Kinds:
        """Return the kinds with boxes of this format."""
        before = NONE_DECLARED if kinds is None else declared(kinds)
        return before.with_format(self.format, normalized=self.normalized)


def _overlaps(boxes: Points, part: Box, least: float) -> bool:
    """Say whether a box with its center in a part of the image overlaps the part enough."""
    boxes = boxes[inside_of(boxes, part)]
    if not len(boxes):
        return False
    top, left, rows, columns = part
    low = np.maximum(boxes[:, :2], (left, top))
    high = np.minimum(boxes[:, 2:], (left + columns, top + rows))
    common = np.maximum(high - low, 0).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + rows * columns - common
    return bool((common >= least * union).any())
