"""Transforms of samples: ours, and what yours derive from.

>>> import numpy as np
>>> from headrace.transforms import CenterCrop, Compose, ToFloat
>>> Compose(CenterCrop(4), ToFloat())(np.zeros((6, 8, 3), np.uint8)).shape
(4, 4, 3)

`Transform` is the base class for any kind of sample, `ImageTransform` for the image in one, `GeometricTransform` for
what moves the image with its masks, boxes and keypoints. `Compose` puts transforms and functions together, as
``dataset.map(...)`` does.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING

from headrace.hints import looked_up as _looked_up
from headrace.image.kinds import Boxes, Keypoints, Mask
from headrace.image.moves import Cut, InTurn, Mirror, Move, ScalePart, Stay
from headrace.image.native_steps import ChangeValues, NativeStep
from headrace.image.warp import matrix_move
from headrace.transforms.base import Compose, Transform
from headrace.transforms.geometric_transform import GeometricTransform
from headrace.transforms.image_transform import DeviceStep, ImageTransform
from headrace.transforms.spatial import (
    CenterCrop,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from headrace.transforms.values import Normalize, ToCHW, ToDtype, ToFloat

if _TYPE_CHECKING:
    from headrace.transforms.batches import CutMix, MixUp, RandomResolution
    from headrace.transforms.color_transforms import (
        ColorJitter,
        GaussianBlur,
        RandomAdjustSharpness,
        RandomAutocontrast,
        RandomChannelPermutation,
        RandomEqualize,
        RandomErasing,
        RandomGrayscale,
        RandomInvert,
        RandomPhotometricDistort,
        RandomPosterize,
        RandomSolarize,
    )
    from headrace.transforms.control import OneOf, RandomApply, RandomChoice
    from headrace.transforms.detection import (
        ConvertBoundingBoxFormat,
        FixedSizeCrop,
        LetterBox,
        RandomIoUCrop,
        RandomShortestSize,
        RandomVerticalFlip,
        RandomZoomOut,
        SanitizeBoundingBoxes,
        ScaleJitter,
    )
    from headrace.transforms.elastic import ElasticTransform
    from headrace.transforms.masking import Cutout, GridMask
    from headrace.transforms.photo_transforms import CLAHE, JPEG, GaussianNoise, ThreeAugment
    from headrace.transforms.policies import AugMix, AutoAugment, RandAugment, TrivialAugmentWide
    from headrace.transforms.seeded import Seeded
    from headrace.transforms.several_crops import FiveCrop, MultiCrop, TenCrop
    from headrace.transforms.text import FillInTheMiddle, Tokenize
    from headrace.transforms.warping import RandomAffine, RandomPerspective, RandomRotation

LAZY = {
    "AugMix": "policies",
    "AutoAugment": "policies",
    "CLAHE": "photo_transforms",
    "ColorJitter": "color_transforms",
    "ConvertBoundingBoxFormat": "detection",
    "CutMix": "batches",
    "Cutout": "masking",
    "ElasticTransform": "elastic",
    "FillInTheMiddle": "text",
    "FiveCrop": "several_crops",
    "FixedSizeCrop": "detection",
    "GaussianBlur": "color_transforms",
    "GaussianNoise": "photo_transforms",
    "GridMask": "masking",
    "JPEG": "photo_transforms",
    "LetterBox": "detection",
    "MixUp": "batches",
    "MultiCrop": "several_crops",
    "OneOf": "control",
    "RandAugment": "policies",
    "RandomAdjustSharpness": "color_transforms",
    "RandomAffine": "warping",
    "RandomApply": "control",
    "RandomAutocontrast": "color_transforms",
    "RandomChannelPermutation": "color_transforms",
    "RandomChoice": "control",
    "RandomEqualize": "color_transforms",
    "RandomErasing": "color_transforms",
    "RandomGrayscale": "color_transforms",
    "RandomInvert": "color_transforms",
    "RandomIoUCrop": "detection",
    "RandomPerspective": "warping",
    "RandomPhotometricDistort": "color_transforms",
    "RandomPosterize": "color_transforms",
    "RandomResolution": "batches",
    "RandomRotation": "warping",
    "RandomShortestSize": "detection",
    "RandomSolarize": "color_transforms",
    "RandomVerticalFlip": "detection",
    "RandomZoomOut": "detection",
    "SanitizeBoundingBoxes": "detection",
    "ScaleJitter": "detection",
    "Seeded": "seeded",
    "TenCrop": "several_crops",
    "ThreeAugment": "photo_transforms",
    "Tokenize": "text",
    "TrivialAugmentWide": "policies",
}
"""Names whose files are imported when they are first asked for, so that `import headrace` stays light."""

__all__ = [
    "AugMix",
    "AutoAugment",
    "Boxes",
    "CLAHE",
    "CenterCrop",
    "ChangeValues",
    "ColorJitter",
    "Compose",
    "ConvertBoundingBoxFormat",
    "Cut",
    "CutMix",
    "Cutout",
    "DeviceStep",
    "ElasticTransform",
    "FillInTheMiddle",
    "FiveCrop",
    "FixedSizeCrop",
    "GaussianBlur",
    "GaussianNoise",
    "GeometricTransform",
    "GridMask",
    "ImageTransform",
    "InTurn",
    "JPEG",
    "Keypoints",
    "LetterBox",
    "Mask",
    "Mirror",
    "MixUp",
    "Move",
    "MultiCrop",
    "NativeStep",
    "Normalize",
    "OneOf",
    "Pad",
    "RandAugment",
    "RandomAdjustSharpness",
    "RandomAffine",
    "RandomApply",
    "RandomAutocontrast",
    "RandomChannelPermutation",
    "RandomChoice",
    "RandomCrop",
    "RandomEqualize",
    "RandomErasing",
    "RandomGrayscale",
    "RandomHorizontalFlip",
    "RandomInvert",
    "RandomIoUCrop",
    "RandomPerspective",
    "RandomPhotometricDistort",
    "RandomPosterize",
    "RandomResizedCrop",
    "RandomResolution",
    "RandomRotation",
    "RandomShortestSize",
    "RandomSolarize",
    "RandomVerticalFlip",
    "RandomZoomOut",
    "Resize",
    "SanitizeBoundingBoxes",
    "ScaleJitter",
    "ScalePart",
    "Seeded",
    "Stay",
    "TenCrop",
    "ThreeAugment",
    "ToCHW",
    "ToDtype",
    "ToFloat",
    "Tokenize",
    "Transform",
    "TrivialAugmentWide",
    "matrix_move",
]

if not _TYPE_CHECKING:
    __getattr__ = _looked_up(__name__, LAZY)


def __dir__() -> list[str]:
    return [*globals(), *LAZY]
