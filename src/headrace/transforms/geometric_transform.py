"""Transforms of the places in a sample: `GeometricTransform`, which draws a `Move` for image and targets alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.image.geometry import fill_of
from headrace.image.pending import move_pixels
from headrace.transforms.image_transform import ImageTransform

if TYPE_CHECKING:
    from headrace.image.geometry import Box, Image
    from headrace.image.moves import Move


class GeometricTransform(ImageTransform):
    """Move the pixels of an image, and with them masks, boxes and keypoints: the base class of our geometry, and yours.

    >>> from dataclasses import dataclass
    >>> import numpy as np
    >>> from headrace.transforms import GeometricTransform, matrix_move
    >>> @dataclass(frozen=True)
    ... class RandomShift(GeometricTransform):
    ...     most: int
    ...     def move(self, height, width, rng):
    ...         right = rng.integers(-self.most, self.most, endpoint=True)
    ...         return matrix_move([[1, 0, right], [0, 1, 0]], (height, width))
    >>> out = RandomShift(3)({"image": np.zeros((8, 8)), "boxes": [[3, 3, 5, 5]]}, np.random.default_rng(0))
    >>> out["boxes"]
    array([[5., 3., 7., 5.]], dtype=float32)

    A subclass defines ``move(height, width, rng)``. It draws all numbers for a sample whose image has this size, and
    returns a `Move`: what `matrix_move` makes of a matrix, or a `Cut`, `ScalePart`, `Mirror`, `Stay`, several of these
    `InTurn`, or an object of your own. That is done to every part of the sample by its kind, which `Compose` knows.

    Settings and ``draws`` are as for `Transform`. A subclass that overrides ``transform_image`` alone moves the image
    and no other parts: it refuses samples that have such parts.
    """

    __slots__ = ()
    geometric = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = [name for kind in cls.__mro__ for name in ("move", "transform_image") if name in vars(kind)]
        # The one that is defined first, seen from the class, says what happens to the image.
        cls.carries = names[0] == "move"

    def check_image(self, image: Image) -> None:
        """Refuse an image that cannot have the ``fill``, whether or not it comes to be seen."""
        fill = getattr(self, "fill", 0)
        if fill and getattr(self, "mode", "constant") == "constant":
            fill_of(fill, image.dtype, image.shape[2:])

    def transform_image(self, image: Image, rng: Any) -> Image:
        """Return the image moved."""
        move: Move | None = self.move(image.shape[0], image.shape[1], rng)
        if move is None:
            raise NotImplementedError(f"{type(self).__qualname__} must define move(self, height, width, rng)")
        return move_pixels(move, image)


def named_box(box: Box | None) -> dict[str, Any]:
    """Return the part of an image that a transform drew by name; that it is not applied, where there is none.

    >>> named_box((1, 2, 30, 40)), named_box(None)
    ({'top': 1, 'left': 2, 'height': 30, 'width': 40}, {'applied': False})
    """
    return {"applied": False} if box is None else dict(zip(("top", "left", "height", "width"), box, strict=True))
