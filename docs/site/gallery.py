"""The gallery: a page with each transform before and after, on a photograph with a mask, boxes and keypoints.

python docs/site/gallery.py [FOLDER]    writes gallery.md and the images beside it: `make gallery`
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

import headrace
from headrace import DataLoader, datasets, transforms
from headrace.collate import TransformedCollate
from headrace.figure.targets_drawn import overlay_of
from headrace.image.overlay import Frame, Overlay, overlaid

if TYPE_CHECKING:
    from collections.abc import Iterator

GUIDE = Path(__file__).parent.parent / "guide"
WIDTH, HEIGHT, GAP = 180, 130, 6
AFTER = 3
MOST = 5
"""How many of several images are shown."""
QUALITY = 72
SEEDS = (0, 2, 4)
"""For batches and joined samples: seeds that draw different things."""
CLASSES = ["background", "", "cup", "spoon", "", "", "saucer", "cat", "rocket", "astronaut"]

SECTIONS = {
    "Cropping, resizing and padding": [
        "RandomResizedCrop(120, scale=(0.2, 1))",
        "RandomCrop(130, padding=20, mode='reflect')",
        "CenterCrop((150, 200))",
        "Resize(60)",
        "Pad((30, 10), mode='edge')",
        "RandomShortestSize([60, 100, 160])",
        "ScaleJitter((150, 150), scale_range=(0.3, 1.5))",
        "FixedSizeCrop((150, 320), fill=114)",
        "LetterBox((150, 300))",
    ],
    "Flips, affine and perspective maps": [
        "RandomHorizontalFlip()",
        "RandomVerticalFlip()",
        "RandomRotation(30, interpolation='bilinear')",
        "RandomAffine(15, translate=(0.1, 0.1), scale=(0.7, 1.1), shear=10, interpolation='bilinear', fill=114)",
        "RandomPerspective(0.5, p=1, fill=114)",
        "ElasticTransform(alpha=120)",
    ],
    "Detection": [
        "RandomIoUCrop(sampler_options=(0.3, 0.5, 0.7))",
        "RandomZoomOut(side_range=(1.2, 2.5), fill=114, p=1)",
        "SanitizeBoundingBoxes(min_size=60)",
    ],
    "Colors and values": [
        "ColorJitter(0.5, 0.5, 0.5, 0.2)",
        "RandomPhotometricDistort(p=0.7)",
        "RandomGrayscale(p=1)",
        "RandomChannelPermutation()",
        "GaussianBlur(15, sigma=(0.5, 4))",
        "GaussianNoise(sigma=0.1)",
        "RandomAdjustSharpness(6, p=1)",
        "RandomAutocontrast(p=1)",
        "RandomEqualize(p=1)",
        "RandomPosterize(2, p=1)",
        "RandomSolarize(128, p=1)",
        "RandomInvert(p=1)",
        "RandomErasing(p=1, value='random')",
        "CLAHE(p=1)",
        "JPEG((3, 30))",
        "GridMask((40, 90), p=1)",
        "Cutout(80, holes=2)",
    ],
    "Policies and choices": [
        "RandAugment(2, 15)",
        "TrivialAugmentWide()",
        "AutoAugment()",
        "AugMix(severity=8)",
        "ThreeAugment()",
        "RandomApply([ColorJitter(0.6, 0.6, 0.6)], p=0.5)",
        "RandomChoice([RandomRotation(30), GaussianBlur(15, sigma=4.0)])",
        "OneOf([RandomInvert(p=1), RandomGrayscale(p=1)], p=0.7)",
    ],
    "Several images of one": [
        "FiveCrop(120)",
        "TenCrop(120)",
        "MultiCrop((2, [RandomResizedCrop(140, scale=(0.4, 1))]), (3, [RandomResizedCrop(70, scale=(0.05, 0.3))]))",
    ],
    "Whole batches": [
        "MixUp(num_classes=4)",
        "CutMix(num_classes=4)",
        "RandomResolution([60, 100, 160])",
    ],
}
"""The calls by section. What headrace does not have is left out."""

VIEWS = {
    "Mosaic": lambda samples: datasets.Mosaic(samples, (100, 150)),
    "CopyPaste": lambda samples: datasets.CopyPaste(samples, p=1, share=1),
}
"""Views of a dataset that join its samples, in the last section."""
CALLS = {"Mosaic": "Mosaic(dataset, (100, 150))", "CopyPaste": "CopyPaste(dataset, p=1, share=1)"}

NOT_SHOWN = {
    "Compose": "puts transforms together",
    "ConvertBoundingBoxFormat": "changes numbers alone",
    "FillInTheMiddle": "is for tokens",
    "Normalize": "changes the range of values",
    "Seeded": "does what another library does",
    "ToCHW": "changes the order of axes",
    "ToDtype": "changes the dtype",
    "ToFloat": "changes the dtype",
    "Tokenize": "is for text",
}
"""The public transforms without an image, each with the reason."""


INTRODUCTION = """\
Each row shows a photograph before a transform and, where the transform draws random numbers, three results. The mask
of the saucer, the boxes of cup and spoon, and two keypoints move with the image ([transforms](transforms.md)).
Transforms of colors leave them where they are. The last two sections join several photographs. `make gallery` makes
this page and its images."""


class Entry(NamedTuple):
    """A transform of the page."""

    name: str
    call: str
    transform: Any

    @property
    def file(self) -> str:
        """The name of its image."""
        return f"gallery/{self.name}.webp"


def entries() -> Iterator[tuple[str, list[Entry]]]:
    """Yield the sections with their transforms, of those that headrace has."""
    names = {name: getattr(transforms, name) for name in transforms.__all__}
    for section, calls in SECTIONS.items():
        known = [call for call in calls if call.partition("(")[0] in names]
        yield section, [Entry(call.partition("(")[0], call, eval(call, dict(names))) for call in known]
    yield "Several samples of a dataset", [Entry(name, CALLS[name], view) for name, view in VIEWS.items()]


def photo(name: str) -> Any:
    """Return one of the photographs that come with headrace, 300 pixels wide."""
    with Image.open(Path(headrace.__file__).parent / "demo" / f"{name}.jpg") as photograph:
        return np.asarray(photograph.convert("RGB").resize((300, 200), Image.Resampling.LANCZOS))


def sample() -> dict[str, Any]:
    """Return a photograph of a cup of coffee with what is in it."""
    image = photo("coffee")
    y, x = np.mgrid[:200, :300]
    saucer = ((x - 148) / 114) ** 2 + ((y - 112) / 86) ** 2 < 1
    return {
        "image": image,
        "mask": saucer.astype(np.uint8) * CLASSES.index("saucer"),
        "boxes": np.array([[98.0, 12, 212, 132], [165, 118, 214, 168]]),
        "labels": np.array([2, 3]),
        "keypoints": np.array([[142.0, 126, 2], [196, 152, 2]]),
    }


def objects() -> list[dict[str, Any]]:
    """Return photographs with the mask and the box of one object each."""
    ellipses = {
        "cat": (150, 75, 70, 70),
        "cup": (148, 112, 114, 86),
        "rocket": (150, 105, 22, 85),
        "astronaut": (132, 52, 46, 50),
    }
    y, x = np.mgrid[:200, :300]
    found = []
    for name, (left, top, across, down) in ellipses.items():
        mask = ((x - left) / across) ** 2 + ((y - top) / down) ** 2 < 1
        box = np.array([[left - across, top - down, left + across, top + down]]).clip(0, (300, 200, 300, 200))
        found.append(
            {
                "image": photo("coffee" if name == "cup" else name),
                "masks": mask[np.newaxis].astype(np.uint8),
                "boxes": box.astype(np.float64),
                "labels": np.array([CLASSES.index(name)]),
            }
        )
    return found


def shown_by(entry: Entry) -> list[dict[str, Any]]:
    """Return the photograph before the transform, or two of a batch, and what comes out: thrice where it draws."""
    if entry.name in VIEWS:
        samples = objects()
        loaders = [DataLoader(entry.transform(samples), 1, collate_fn=list, seed=seed) for seed in SEEDS]
        return [samples[0], *(next(iter(loader))[0] for loader in loaders)]
    if type(entry.transform).__module__.endswith(".batches"):
        pair = [(one["image"], label) for label, one in enumerate(objects()[:2])]
        loaders = [DataLoader(pair, 2, collate_fn=TransformedCollate(entry.transform), seed=seed) for seed in SEEDS]
        images = [np.asarray(next(iter(loader))[0])[0] for loader in loaders]
        return [{"image": image} for image in [pair[0][0], pair[1][0], *images]]
    before = sample()
    carries = getattr(entry.transform, "geometric", True) and getattr(entry.transform, "carries", True)
    if not carries:
        before = {"image": before["image"]}
    count = AFTER if entry.transform.draws else 1
    made = [entry.transform(dict(before), np.random.default_rng([7, number])) for number in range(count)]
    several = made[0]["image"]
    if isinstance(several, list) or several.ndim > 3:  # several images of one: by groups, or a stack
        views = [view for group in several for view in group] if isinstance(several, list) else list(several)
        places = np.linspace(0, len(views) - 1, min(MOST, len(views))).astype(int).tolist()
        made = [{"image": views[place]} for place in places]
    return [before, *made]


def strip(entry: Entry) -> Image.Image:
    """Draw what a transform is given and what it gives, side by side."""
    tiles = [_tile(one) for one in shown_by(entry)]
    whole = Image.new("RGB", (len(tiles) * (WIDTH + GAP) - GAP, HEIGHT), (255, 255, 255))
    for number, tile in enumerate(tiles):
        whole.paste(tile, (number * (WIDTH + GAP), 0))
    return whole


def _tile(shown: dict[str, Any]) -> Image.Image:
    """Draw a sample: the photograph fills the tile, and smaller images stay as small as they are beside it."""
    image = Image.fromarray(shown["image"])
    scale = min(WIDTH / max(300, image.width), HEIGHT / max(200, image.height))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    left, top = (WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2
    canvas = Image.new("RGB", (WIDTH, HEIGHT), (228, 231, 235))
    canvas.paste(image.resize(size, Image.Resampling.LANCZOS), (left, top))
    overlay: Overlay = overlay_of(shown, (image.height, image.width), None, CLASSES)
    return overlaid(canvas, Frame(scale, left, top, size), overlay)


def page() -> str:
    """Return the page."""
    lines = ["# Gallery of transforms", INTRODUCTION]
    for section, shown in entries():
        lines += ["", f"## {section}"]
        for entry in shown:
            described = getattr(datasets, entry.name) if entry.name in VIEWS else type(entry.transform)
            first = (inspect.getdoc(described) or "").partition("\n")[0].replace("``", "`")
            lines += ["", f"### {entry.name}", f"`{entry.call}`: {first}", "", f"![{entry.name}]({entry.file})"]
    left_out = ", ".join(f"`{name}` ({why})" for name, why in NOT_SHOWN.items() if hasattr(transforms, name))
    return "\n".join([*lines, "", f"Without an image: {left_out}.", ""])


def shown_names() -> set[str]:
    """Return the names that the page shows, or will once headrace has them."""
    return {call.partition("(")[0] for calls in SECTIONS.values() for call in calls} | VIEWS.keys()


def write(folder: Path) -> None:
    """Write the page and its images."""
    (folder / "gallery").mkdir(parents=True, exist_ok=True)
    (folder / "gallery.md").write_text(page(), encoding="utf-8")
    for _, shown in entries():
        for entry in shown:
            strip(entry).save(folder / entry.file, "WEBP", quality=QUALITY, method=6)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else GUIDE)
