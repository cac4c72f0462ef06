"""Transforms that move pixels: sizes, crops, margins and mirrors, of the image and of masks, boxes and keypoints.

They are small immutable objects, called with one sample. What comes out may share memory with what went in (a crop is
a view), so copy an image before you change it in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, cast

from headrace.checks import flag, fraction, integer, one_of, refused
from headrace.context import seeds
from headrace.errors import ArgumentError
from headrace.image import geometry, native_steps
from headrace.image.geometry import PAD_MODES, Box, Fill, Interpolation, PadMode
from headrace.image.moves import Cut, Mirror, ScalePart, Stay
from headrace.transforms import parameters
from headrace.transforms.geometric_transform import GeometricTransform, named_box
from headrace.transforms.image_transform import size_of

if TYPE_CHECKING:
    import numpy as np

    from headrace.transforms.image_transform import Scaling
    from headrace.transforms.parameters import Padding, Size


@dataclass(frozen=True, slots=True)
class Resize(GeometricTransform):
    """Scale images to a size: the shorter side to ``size``, or to exactly ``(height, width)``.

    >>> import numpy as np
    >>> from headrace import Resize
    >>> image = np.zeros((300, 400, 3), np.uint8)
    >>> Resize(150)(image).shape, Resize((64, 64), interpolation="bicubic")(image).shape
    ((150, 200, 3), (64, 64, 3))

    With ``antialias`` the pixels are those of Pillow's ``Image.resize`` (extra ``images``). uint8 is exact; uint16 and
    floats go through 32-bit floats and keep their dtype. Without it they are those of OpenCV's ``cv2.resize`` (extra
    ``opencv``): several times faster, but shrunk images alias, and OpenCV may start threads of its own.

    ``interpolation`` is "nearest", "bilinear", "bicubic" or, with antialiasing, "lanczos" or "box". "nearest" with
    antialiasing takes any dtype, for masks. An image that has the size already is returned as it is. The longer side
    is ``int(size * longer / shorter)``, as in torchvision.

    Raises ArgumentError for arguments and dtypes that cannot be used, MissingDependency where the library is not
    installed.
    """

    defers = True
    scales = True
    draws = False
    size: Size
    _: KW_ONLY
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.size, Iterable):
            object.__setattr__(self, "size", parameters.size_pair("Resize", self.size))
        else:
            object.__setattr__(self, "size", integer("Resize: size", self.size, least=1))
        antialias = parameters.check_resizing("Resize", self.interpolation, self.antialias)
        object.__setattr__(self, "antialias", antialias)

    def scaling(self, rows: int, columns: int, rng: np.random.Generator | None = None) -> tuple[Box, int, int]:  # noqa: ARG002
        """Return which part of an image is scaled, all of it, and to which height and width."""
        if isinstance(self.size, int):
            height, width = native_steps.scaled_sides(rows, columns, self.size)
        else:
            height, width = self.size
        return (0, 0, rows, columns), height, width

    def move(self, height: int, width: int, rng: Any) -> ScalePart:  # noqa: ARG002
        """Scale all of the image."""
        box, *size = self.scaling(height, width)
        return ScalePart(box, (size[0], size[1]), self.interpolation, self.antialias)

    def native_step(self) -> native_steps.Scale:
        """Scale the image."""
        return native_steps.Scale(self.size, self.interpolation, self.antialias)

    def scaling_step(self) -> Scaling | None:
        """Return itself, where it weighs all the pixels that each new one covers."""
        return self if self.antialias and self.interpolation != "nearest" else None


@dataclass(frozen=True, slots=True)
class CenterCrop(GeometricTransform):
    """Cut out the middle of images; a smaller image gets a black margin.

    >>> import numpy as np
    >>> from headrace import CenterCrop
    >>> CenterCrop(2)(np.arange(16).reshape(4, 4))
    array([[ 5,  6],
           [ 9, 10]])

    ``size`` is one length or (height, width). Rounding and margin (zeros) as in torchvision. Any dtype; a view
    where the image is large enough.
    """

    defers = True
    draws = False
    size: Size

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", parameters.size_pair("CenterCrop", self.size))

    def box(self, height: int, width: int, rng: np.random.Generator | None = None) -> Box:  # noqa: ARG002
        """Return the part (top, left, height, width) of an image that is kept; outside it where that is smaller."""
        rows, columns = cast("tuple[int, int]", self.size)
        return _middle(height, rows), _middle(width, columns), rows, columns

    def move(self, height: int, width: int, rng: Any) -> Cut:  # noqa: ARG002
        """Keep the middle."""
        return Cut(self.box(height, width))

    def native_step(self) -> native_steps.CropCenter:
        """Cut the middle out."""
        return native_steps.CropCenter(cast("tuple[int, int]", self.size))


@dataclass(frozen=True, slots=True)
class RandomCrop(GeometricTransform):
    """Cut out a part of a given size, anywhere in the image with equal chance.

    >>> import numpy as np
    >>> from headrace import RandomCrop
    >>> thumbnail = np.zeros((32, 32, 3), np.uint8)
    >>> RandomCrop(28)(thumbnail).shape, RandomCrop(32, padding=4)(thumbnail).shape
    ((28, 28, 3), (32, 32, 3))

    ``padding`` widens the image first: pixels on all sides; or (left and right, top and bottom); or (left, top, right,
    bottom). ``pad_if_needed`` widens a smaller image on both sides by what it lacks. ``mode`` and ``fill`` are as for
    `Pad`; where an image is mirrored, both widenings count as one. Any dtype; a view where nothing is added.

    Raises ArgumentError for arguments that cannot be used, and for an image that is too small.
    """

    defers = True

    size: Size
    _: KW_ONLY
    padding: Padding | None = None
    pad_if_needed: bool = False
    fill: Fill = 0
    mode: PadMode = "constant"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", parameters.size_pair("RandomCrop", self.size))
        if self.padding is not None:
            object.__setattr__(self, "padding", parameters.four_sides("RandomCrop", self.padding))
        object.__setattr__(self, "fill", parameters.fill_value("RandomCrop", self.fill))
        object.__setattr__(self, "mode", one_of("RandomCrop: mode", self.mode, PAD_MODES))
        object.__setattr__(self, "pad_if_needed", flag("pad_if_needed", self.pad_if_needed))

    def box(self, height: int, width: int, rng: np.random.Generator | None = None) -> Box:
        """Draw the part (top, left, height, width) of an image that is kept; it may reach into the padding."""
        rows, columns = cast("tuple[int, int]", self.size)
        left, top, right, bottom = cast("tuple[int, int, int, int]", self.padding or (0, 0, 0, 0))
        if self.pad_if_needed:
            lacking = max(0, rows - height - top - bottom)
            top, bottom = top + lacking, bottom + lacking
            lacking = max(0, columns - width - left - right)
            left, right = left + lacking, right + lacking
        free_rows, free_columns = height + top + bottom - rows, width + left + right - columns
        if free_rows < 0 or free_columns < 0:
            raise ArgumentError(
                f"RandomCrop of {rows} x {columns} pixels got an image of {height} x {width}",
                found=(height, width),
                expected="an image as large as the crop, padding included",
                cure="Pass pad_if_needed=True, or Resize first.",
            )
        # Not left to the crop itself: whether an image is refused must not depend on the numbers drawn.
        geometry.check_reach(height, top, bottom, self.mode)
        geometry.check_reach(width, left, right, self.mode)
        down, across = (seeds.rng() if rng is None else rng).random(2).tolist()
        return int(down * (free_rows + 1)) - top, int(across * (free_columns + 1)) - left, rows, columns

    def move(self, height: int, width: int, rng: Any) -> Cut:
        """Draw the part that is kept."""
        return Cut(self.box(height, width, rng), self.mode, self.fill)

    def native_step(self) -> native_steps.CropRandomPart:
        """Cut a part of a size out."""
        size, padding = cast("tuple[int, int]", self.size), cast("native_steps.Sides", self.padding or (0, 0, 0, 0))
        return native_steps.CropRandomPart(size, padding, self.pad_if_needed, self.fill, self.mode)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the part that is kept."""
        return named_box(self.box(*size_of(sample), rng))


@dataclass(frozen=True, slots=True)
class RandomResizedCrop(GeometricTransform):
    """Cut out a part of random area and shape, and scale it to a size.

    >>> import numpy as np
    >>> from headrace import RandomResizedCrop
    >>> RandomResizedCrop(224)(np.zeros((375, 500, 3), np.uint8)).shape
    (224, 224, 3)

    The area is uniform in ``scale`` (fractions of the image's area), the ratio of width to height is log-uniform in
    ``ratio``, the place is uniform. If ten draws do not fit, the largest central part of an allowed shape is taken:
    torchvision's distribution. Pixels outside the crop do not influence the result. ``size`` is one length for both
    sides, or (height, width). ``interpolation``, ``antialias``, dtypes and errors are as for `Resize`.

    Source: Szegedy et al., "Going deeper with convolutions", CVPR 2015, section 6.
    """

    defers = True
    scales = True

    size: Size
    _: KW_ONLY
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    antialias: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", parameters.size_pair("RandomResizedCrop", self.size))
        object.__setattr__(self, "scale", parameters.positive_range("RandomResizedCrop", "scale", self.scale))
        object.__setattr__(self, "ratio", parameters.positive_range("RandomResizedCrop", "ratio", self.ratio))
        if self.scale[1] > 1:
            expected = "fractions of the image's area, at most 1"
            raise refused("RandomResizedCrop: scale", self.scale, expected, "Pass (0.08, 1.0).")
        antialias = parameters.check_resizing("RandomResizedCrop", self.interpolation, self.antialias)
        object.__setattr__(self, "antialias", antialias)

    def box(self, height: int, width: int, rng: np.random.Generator | None = None) -> Box:
        """Draw the part (top, left, height, width) of an image that is kept; always inside it."""
        rng = seeds.rng() if rng is None else rng
        (smallest, largest), (tallest, widest) = self.scale, self.ratio
        lowest, highest = math.log(tallest), math.log(widest)
        for _ in range(10):
            # One draw for the four numbers of a try: the generator's own call costs more than they do.
            how_large, how_wide, down, across = rng.random(4).tolist()
            area = height * width * (smallest + (largest - smallest) * how_large)
            shape = math.exp(lowest + (highest - lowest) * how_wide)
            rows, columns = round(math.sqrt(area / shape)), round(math.sqrt(area * shape))
            if 0 < rows <= height and 0 < columns <= width:
                return int(down * (height - rows + 1)), int(across * (width - columns + 1)), rows, columns
        rows = max(1, min(height, round(width / tallest)))
        columns = max(1, min(width, round(height * widest)))
        return (height - rows) // 2, (width - columns) // 2, rows, columns

    def scaling(self, rows: int, columns: int, rng: np.random.Generator | None = None) -> tuple[Box, int, int]:
        """Draw which part of an image is scaled; and to which height and width."""
        return self.box(rows, columns, rng), *cast("tuple[int, int]", self.size)

    def move(self, height: int, width: int, rng: Any) -> ScalePart:
        """Draw the part that is scaled."""
        box, *size = self.scaling(height, width, rng)
        return ScalePart(box, (size[0], size[1]), self.interpolation, self.antialias)

    def native_step(self) -> native_steps.ScaleRandomPart:
        """Scale a random part."""
        size, logarithms = cast("tuple[int, int]", self.size), (math.log(self.ratio[0]), math.log(self.ratio[1]))
        return native_steps.ScaleRandomPart(
            size, self.scale, self.ratio, logarithms, self.interpolation, self.antialias
        )

    def scaling_step(self) -> Scaling | None:
        """Return itself, where it weighs all the pixels that each new one covers."""
        return self if self.antialias and self.interpolation != "nearest" else None

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the part that is kept."""
        return named_box(self.box(*size_of(sample), rng))


@dataclass(frozen=True, slots=True)
class RandomHorizontalFlip(GeometricTransform):
    """Mirror images left to right with probability ``p``.

    >>> import numpy as np
    >>> from headrace import RandomHorizontalFlip
    >>> RandomHorizontalFlip(p=1)(np.array([[1, 2, 3]]))
    array([[3, 2, 1]])

    Any dtype. A mirrored image is a new contiguous array.
    """

    defers = True

    p: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", fraction("RandomHorizontalFlip: p", self.p))

    def flips(self, rng: np.random.Generator | None = None) -> bool:
        """Draw whether an image is mirrored."""
        return (seeds.rng() if rng is None else rng).random() < self.p

    def move(self, height: int, width: int, rng: Any) -> Mirror | Stay:
        """Draw whether the image is mirrored."""
        return Mirror((height, width)) if self.flips(rng) else Stay((height, width))

    def native_step(self) -> native_steps.Flip:
        """Mirror with a probability."""
        return native_steps.Flip(float(self.p))

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """Return whether the image is mirrored."""
        return {"flipped": self.flips(rng)}


@dataclass(frozen=True, slots=True)
class Pad(GeometricTransform):
    """Widen images on all four sides.

    >>> import numpy as np
    >>> from headrace import Pad
    >>> Pad((2, 0), mode="reflect")(np.array([[1, 2, 3]]))
    array([[3, 2, 1, 2, 3, 2, 1]])

    ``padding`` is pixels on all sides; or (left and right, top and bottom); or (left, top, right, bottom). ``mode`` has
    NumPy's and torchvision's names: "constant" (``fill``: one value, or one for each channel), "edge" (repeats the
    outermost pixel), "reflect" (mirrors at the outermost pixel, as TensorFlow's mirror-pad with REFLECT), "symmetric"
    (mirrors beside it, as SYMMETRIC). Any dtype.

    Raises ArgumentError for arguments that cannot be used, for a ``fill`` that is not a value of the image's dtype,
    and where mirroring would need more pixels than the image has.
    """

    defers = True
    draws = False
    padding: Padding
    _: KW_ONLY
    mode: PadMode = "constant"
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", parameters.four_sides("Pad", self.padding))
        object.__setattr__(self, "fill", parameters.fill_value("Pad", self.fill))
        object.__setattr__(self, "mode", one_of("Pad: mode", self.mode, PAD_MODES))

    def move(self, height: int, width: int, rng: Any) -> Cut:  # noqa: ARG002
        """Keep the image and its margin."""
        left, top, right, bottom = cast("tuple[int, int, int, int]", self.padding)
        return Cut((-top, -left, height + top + bottom, width + left + right), self.mode, self.fill)

    def native_step(self) -> native_steps.Widen:
        """Widen the image."""
        return native_steps.Widen(cast("native_steps.Sides", self.padding), self.fill, self.mode)


def _middle(length: int, wanted: int) -> int:
    """Return where the middle part begins; before 0 where more is wanted than there is."""
    return round((length - wanted) / 2) if length >= wanted else -((wanted - length) // 2)
