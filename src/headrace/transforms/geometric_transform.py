"""Transforms of the places in a sample: `GeometricTransform`, which draws a `Move` for image and targets alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.transforms.image_transform import ImageTransform

if TYPE_CHECKING:
    from headrace.image.geometry import Image
    from headrace.image.moves import Move


class GeometricTransform(ImageTransform):
    """Move the pixels of an image, and with them masks, boxes and keypoints.

    >>> import numpy as np
    >>> from headrace import CenterCrop
    >>> CenterCrop(2)({"image": np.zeros((4, 4)), "boxes": [[0, 0, 2, 2]]})["boxes"]
    array([[0., 0., 1., 1.]], dtype=float32)

    A subclass defines ``move(height, width, rng)``, which draws everything. One that overrides what happens to the
    image, by ``transform_image`` alone, no longer moves the other parts of a sample: samples that have such parts are
    refused.
    """

    __slots__ = ()
    geometric = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        names = [name for kind in cls.__mro__ for name in ("move", "transform_image") if name in vars(kind)]
        # The one that is defined first, seen from the class, says what happens to the image.
        cls.carries = names[0] == "move"

    def transform_image(self, image: Image, rng: Any) -> Image:
        """Return the image moved."""
        move: Move | None = self.move(image.shape[0], image.shape[1], rng)
        if move is None:
            raise NotImplementedError(f"{type(self).__qualname__} must define move(self, height, width, rng)")
        return move.image(image)
