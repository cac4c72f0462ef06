"""Transforms that make several images of one: `FiveCrop`, `TenCrop` and `MultiCrop`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag, integer, refused
from headrace.errors import ArgumentError
from headrace.image import geometry
from headrace.transforms import parameters
from headrace.transforms.base import Compose
from headrace.transforms.image_transform import ImageTransform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.image.geometry import Image

Function = Callable[..., Any]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class FiveCrop(ImageTransform):
    """Cut out the four corners and the center: five images of one.

    >>> import numpy as np
    >>> from headrace.transforms import FiveCrop, ToCHW, ToFloat
    >>> FiveCrop(4)(np.zeros((6, 8, 3), np.uint8)).shape
    (5, 4, 4, 3)
    >>> FiveCrop(4, ToFloat(), ToCHW())((np.zeros((6, 8, 3), np.uint8), 7))[0].shape
    (5, 3, 4, 4)

    The image of a sample becomes an array with a new first axis: top left, top right, bottom left, bottom right,
    center. ``size`` is one length or (height, width); ``transforms`` are applied to each part. It refuses samples with
    masks, boxes or keypoints, and images smaller than ``size``.
    """

    draws = True
    geometric = True
    size: tuple[int, int]
    transforms: tuple[Function, ...]
    _chain: Compose = field(repr=False, compare=False)

    def __init__(self, size: int | tuple[int, int], *transforms: Function) -> None:
        object.__setattr__(self, "size", parameters.size_pair(type(self).__name__, size))
        object.__setattr__(self, "transforms", transforms)
        object.__setattr__(self, "_chain", Compose(*transforms))

    def transform_image(self, image: Image, rng: Any) -> Image:
        """Return the parts as one array."""
        return np.stack([self._chain(part, rng) for part in self._parts(image)])

    def _parts(self, image: Image) -> list[Image]:
        (rows, columns), (height, width) = self.size, image.shape[:2]
        if rows > height or columns > width:
            raise ArgumentError(
                f"{type(self).__name__} got an image of {width} x {height} pixels",
                found=(height, width),
                expected=f"{columns} x {rows} pixels or more",
                cure="Put Resize before it, or pass a smaller size.",
            )
        down, across = height - rows, width - columns
        corners = [(0, 0), (0, across), (down, 0), (down, across), (round(down / 2), round(across / 2))]
        return [geometry.crop(image, top, left, rows, columns) for top, left in corners]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class TenCrop(FiveCrop):
    """Cut out the four corners and the center, and mirror each: ten images of one.

    >>> import numpy as np
    >>> from headrace.transforms import TenCrop
    >>> TenCrop(4)(np.zeros((6, 8, 3), np.uint8)).shape
    (10, 4, 4, 3)

    The five parts of `FiveCrop` come first, then those of the image mirrored left to right, or, with
    ``vertical_flip``, top to bottom.
    """

    vertical_flip: bool

    def __init__(self, size: int | tuple[int, int], *transforms: Function, vertical_flip: bool = False) -> None:
        FiveCrop.__init__(self, size, *transforms)
        object.__setattr__(self, "vertical_flip", flag("vertical_flip", vertical_flip))

    def _parts(self, image: Image) -> list[Image]:
        mirrored = np.ascontiguousarray(image[::-1] if self.vertical_flip else image[:, ::-1])
        return [*FiveCrop._parts(self, image), *FiveCrop._parts(self, mirrored)]


@dataclass(frozen=True, slots=True, init=False, repr=False)
class MultiCrop(ImageTransform):
    """Make several random views of one image, by groups: the crops of DINO, SwAV and SimCLR.

    >>> import numpy as np
    >>> from headrace.transforms import MultiCrop, RandomResizedCrop
    >>> crops = MultiCrop((2, [RandomResizedCrop(24, scale=(0.4, 1))]), (6, [RandomResizedCrop(12, scale=(0.05, 0.4))]))
    >>> views, label = crops((np.zeros((30, 40, 3), np.uint8), 7))
    >>> [group.shape for group in views], label
    ([(2, 24, 24, 3), (6, 12, 12, 3)], 7)

    Each group is a number of views and the transforms of each of them; all draw numbers of their own. The image of a
    sample becomes a list with an array for each group, ``(views, H, W, C)``: all images of a group must come out in one
    size. It refuses samples with masks, boxes or keypoints.
    """

    geometric = True
    groups: tuple[tuple[int, tuple[Function, ...]], ...]
    _chains: tuple[Compose, ...] = field(repr=False, compare=False)

    def __init__(self, *groups: tuple[int, Function | Sequence[Function]]) -> None:
        found: list[tuple[int, tuple[Function, ...]]] = []
        for group in groups:
            if not isinstance(group, tuple | list) or len(group) != 2:
                raise refused("MultiCrop: a group", group, "(views, transforms)", "Pass (2, [RandomResizedCrop(224)]).")
            views, transforms = group
            chain = tuple(transforms) if isinstance(transforms, Iterable) else (transforms,)
            found.append((integer("MultiCrop: views", views, least=1), chain))
        if not found:
            raise refused("MultiCrop: groups", groups, "at least one group", "Pass (2, [RandomResizedCrop(224)]).")
        object.__setattr__(self, "groups", tuple(found))
        object.__setattr__(self, "_chains", tuple(Compose(*chain) for _, chain in found))

    def transform_image(self, image: Image, rng: Any) -> Any:
        """Return an array of views for each group."""
        return [
            self._stacked([chain(image, rng) for _ in range(views)])
            for (views, _), chain in zip(self.groups, self._chains, strict=True)
        ]

    def _stacked(self, views: list[Image]) -> Image:
        shapes = sorted({np.shape(view) for view in views})
        if len(shapes) > 1:
            raise ArgumentError(
                f"MultiCrop got views of {', '.join(map(str, shapes))} in one group",
                found=shapes,
                expected="views of one size",
                cure="Put RandomResizedCrop or Resize among the transforms of the group.",
            )
        return np.stack(views)
