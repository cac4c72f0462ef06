"""The runners: who runs, from which environment, on what. To add one, write its file and name it here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
IMAGES = ("photos", "thumbnails", "large", "formats", "packed")
AUGMENTED = ("dino", "randaugment", "trivial")
TARGETS = ("segmentation", "detection")
FOLDERS = ("photos", "thumbnails")
SIZES = ("photos", "thumbnails", "large")
BOTH = ("plain", "antialiased")


@dataclass(frozen=True, slots=True)
class Runner:
    """One row of the table.

    ``family``: the environment under ``.peers/`` it needs, None for the project's own. ``resize``: which flavours it
    can do; empty if the question does not arise. ``where``: what its workers are. ``workers``: their number, None for
    the one asked for. ``limit``: it does less than the work, to show what no loader can beat. ``form``: the format that
    it reads; ``data``: the environment whose writer makes that, where ours cannot. ``shuffle``: False to read in order.
    """

    name: str
    file: Path
    family: str | None
    workloads: tuple[str, ...]
    resize: tuple[str, ...]
    where: str
    workers: int | None = None
    limit: bool = False
    form: str = ""
    data: str | None = None
    shuffle: bool = True

    @property
    def python(self) -> str:
        return sys.executable if self.family is None else str(python_of(self.family))

    @property
    def installed(self) -> bool:
        return not self.missing

    @property
    def missing(self) -> list[str]:
        """The environments that it needs and that are not installed."""
        return [family for family in (self.family, self.data) if family and not python_of(family).exists()]


def python_of(family: str) -> Path:
    """Return the interpreter of an environment under ``.peers/``."""
    return PEERS / family / "bin" / "python"


def _runner(
    name: str,
    file: str,
    family: str | None,
    workloads: tuple[str, ...],
    resize: tuple[str, ...],
    where: str,
    *,
    workers: int | None = None,
    limit: bool = False,
    form: str = "",
    data: str | None = None,
    shuffle: bool = True,
) -> Runner:
    place = HERE / "runners" / file
    return Runner(name, place, family, workloads, resize, where, workers, limit, form, data, shuffle)


ANTIALIASED = ("antialiased",)
RUNNERS = (
    _runner("headrace", "headrace_loader.py", None, (*IMAGES, "arrays"), BOTH, "threads"),
    _runner("headrace-inline", "headrace_loader.py", None, (*SIZES, "arrays"), BOTH, "no workers", workers=0),
    _runner("headrace-tar", "headrace_loader.py", None, (*FOLDERS, "formats"), BOTH, "threads", form="tar"),
    _runner("headrace-mds", "headrace_loader.py", None, ("formats",), ANTIALIASED, "threads", form="mds"),
    _runner(
        "headrace-litdata", "headrace_loader.py", None, ("formats",), ANTIALIASED, "threads",
        form="litdata", data="formats",
    ),
    _runner("headrace-arrow", "headrace_loader.py", None, ("formats",), ANTIALIASED, "threads", form="arrow"),
    _runner(
        "headrace-arrow-in-order", "headrace_loader.py", None, ("formats",), ANTIALIASED, "threads",
        form="arrow", shuffle=False,
    ),
    _runner("headrace-scaled", "headrace_scaled.py", None, ("large",), ANTIALIASED, "threads"),
    _runner("torch-opencv", "torch_opencv.py", "torch", SIZES, ("plain",), "processes"),
    _runner("torch-opencv-tuned", "torch_opencv_tuned.py", "torch", SIZES, ("plain",), "processes"),
    _runner("torch-pillow", "torch_pillow.py", "torch", SIZES, ANTIALIASED, "processes"),
    _runner("torch-torchvision", "torch_torchvision.py", "torchvision", SIZES, BOTH, "processes"),
    _runner("torch-imagefolder", "torch_image_folder.py", "torchvision", FOLDERS, ANTIALIASED, "processes"),
    _runner("headrace-imagefolder", "headrace_image_folder.py", "torchvision", FOLDERS, ANTIALIASED, "processes"),
    _runner("headrace-native", "headrace_native_folder.py", "torchvision", FOLDERS, ANTIALIASED, "threads"),
    _runner("headrace", "headrace_augmented.py", None, AUGMENTED, ANTIALIASED, "threads"),
    _runner("torch-torchvision", "torch_augmented.py", "torchvision", AUGMENTED, ANTIALIASED, "processes"),
    _runner("albumentations", "albumentations_augmented.py", "albumentations", AUGMENTED, ANTIALIASED, "processes"),
    _runner("dali", "dali.py", "dali", AUGMENTED, ANTIALIASED, "threads"),
    _runner("headrace", "headrace_targets.py", None, TARGETS, ANTIALIASED, "threads"),
    _runner("torch-torchvision", "torch_targets.py", "torchvision", TARGETS, ANTIALIASED, "processes"),
    _runner("albumentations", "albumentations_targets.py", "albumentations", TARGETS, ANTIALIASED, "processes"),
    # Beside the other formats, in one environment.
    _runner("torch-torchvision", "torch_torchvision.py", "formats", ("formats",), ANTIALIASED, "processes"),
    _runner("webdataset", "webdataset_torchvision.py", "torchvision", FOLDERS, ANTIALIASED, "processes"),
    _runner("webdataset", "webdataset_torchvision.py", "formats", ("formats",), ANTIALIASED, "processes"),
    _runner("mosaic", "mosaic_torchvision.py", "formats", ("formats",), ANTIALIASED, "processes"),
    _runner("litdata", "litdata_torchvision.py", "formats", ("formats",), ANTIALIASED, "processes"),
    _runner("datasets", "datasets_torchvision.py", "datasets", ("formats",), ANTIALIASED, "processes"),
    _runner("tf-data", "tf_data.py", "tensorflow", (*SIZES, "arrays"), BOTH, "threads"),
    _runner("dali", "dali.py", "dali", SIZES, BOTH, "threads"),
    _runner("opencv-by-hand", "opencv_by_hand.py", None, SIZES, ("plain",), "no workers", workers=0),
    _runner("torch", "torch_arrays.py", "torch", ("arrays",), (), "processes"),
    _runner("torch-inline", "torch_arrays.py", "torch", ("arrays",), (), "no workers", workers=0),
    _runner("torch-batched", "torch_arrays_batched.py", "torch", ("arrays",), (), "processes"),
    _runner("torch-batched-inline", "torch_arrays_batched.py", "torch", ("arrays",), (), "no workers", workers=0),
    _runner("headrace-rows", "headrace_loader.py", None, ("rows",), (), "threads", form="arrow"),
    _runner(
        "headrace-rows-in-order", "headrace_loader.py", None, ("rows",), (), "threads",
        form="arrow", shuffle=False,
    ),
    _runner("datasets-rows", "datasets_rows.py", "datasets", ("rows",), (), "processes"),
    _runner("datasets-rows-in-order", "datasets_rows.py", "datasets", ("rows",), (), "processes", shuffle=False),
    # Images that are scaled and stored once.
    _runner("headrace-raw", "headrace_packed.py", None, ("packed",), ANTIALIASED, "threads", form="raw"),
    _runner("headrace-jpeg", "headrace_packed.py", None, ("packed",), ANTIALIASED, "threads", form="jpeg"),
    _runner("headrace-array", "headrace_packed.py", None, ("packed",), ANTIALIASED, "threads", form="array"),
    _runner("ffcv-raw", "ffcv_packed.py", "ffcv", ("packed",), ANTIALIASED, "threads", form="ffcv-raw"),
    _runner("ffcv-jpeg", "ffcv_packed.py", "ffcv", ("packed",), ANTIALIASED, "threads", form="ffcv-jpeg"),
    _runner("mosaic-raw", "raw_torchvision.py", "formats", ("packed",), ANTIALIASED, "processes", form="mosaic"),
    _runner("litdata-raw", "raw_torchvision.py", "formats", ("packed",), ANTIALIASED, "processes", form="litdata"),
    _runner("dali-numpy", "dali_numpy.py", "dali", ("packed",), ANTIALIASED, "threads"),
    _runner("crop-copy", "crop_copy.py", None, ("packed",), ANTIALIASED, "threads", limit=True),
    _runner("decode-only", "decode_only.py", None, SIZES, (), "threads", limit=True),
    _runner("numpy-copy", "numpy_copy.py", None, ("arrays",), (), "threads", limit=True),
)  # fmt: skip

FORMAT_PEERS = ("webdataset", "mosaic", "litdata", "datasets")
# Ratios are to the fastest of these that ran; failing all, to the first runner of the table that did.
BASELINES = {
    ("photos", "plain"): ("torch-opencv",),
    ("thumbnails", "plain"): ("torch-opencv",),
    ("photos", "antialiased"): ("torch-torchvision", "torch-pillow"),
    ("thumbnails", "antialiased"): ("torch-torchvision", "torch-pillow"),
    ("large", "antialiased"): ("torch-torchvision", "torch-pillow"),
    ("formats", "antialiased"): FORMAT_PEERS,
    ("packed", "antialiased"): ("headrace",),
    **{(name, "antialiased"): ("albumentations", "torch-torchvision") for name in (*AUGMENTED, *TARGETS)},
    ("arrays", "none"): ("torch", "torch-inline"),
    ("rows", "none"): ("datasets-rows",),
}

AUGMENTERS = ("albumentations", "torch-torchvision", "dali")
FORMATS_OF_OURS = ("headrace-tar", "headrace-mds", "headrace-litdata", "headrace-arrow")
# By workload: a runner, those whose fastest it is compared with below the table, and the ratio to reach.
GOALS = {
    "thumbnails": (
        ("headrace", ("torch-torchvision",), 15.0),
        ("headrace-native", ("torch-imagefolder",), 15.0),
    ),
    "arrays": (("headrace", ("torch-inline",), 15.0), ("headrace", ("numpy-copy",), 0.8)),
    "formats": (
        *((ours, ("headrace",), 0.97) for ours in FORMATS_OF_OURS),
        *((ours, FORMAT_PEERS, 2.2) for ours in FORMATS_OF_OURS),
        ("headrace-arrow", ("headrace-arrow-in-order",), 0.9),
    ),
    "packed": (
        ("headrace-raw", ("headrace",), 5.0),
        ("headrace-raw", ("headrace-array",), 0.8),
        ("headrace-raw", ("crop-copy",), 0.8),
        ("headrace-jpeg", ("headrace",), 2.5),
        ("headrace-raw", ("ffcv-raw",), 1.6),
        ("headrace-jpeg", ("ffcv-jpeg",), 1.3),
        ("headrace-raw", ("mosaic-raw", "litdata-raw", "dali-numpy"), 1.0),
    ),
    "dino": tuple(("headrace", (peer,), least) for peer, least in zip(AUGMENTERS, (2.0, 15.0, 5.0), strict=True)),
    "randaugment": tuple(("headrace", (peer,), least) for peer, least in zip(AUGMENTERS, (1.8, 2.3, 3.0), strict=True)),
    "trivial": tuple(("headrace", (peer,), least) for peer, least in zip(AUGMENTERS, (1.8, 2.0), strict=False)),
    "segmentation": tuple(("headrace", (peer,), least) for peer, least in zip(AUGMENTERS, (3.0, 6.0), strict=False)),
    "detection": tuple(("headrace", (peer,), least) for peer, least in zip(AUGMENTERS, (2.0, 4.0), strict=False)),
    "rows": (("headrace-rows", ("datasets-rows",), 5.0), ("headrace-rows", ("headrace-rows-in-order",), 0.9)),
}
