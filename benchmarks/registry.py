"""The runners: who runs, from which environment, on what. To add one, write its file and name it here."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PEERS = HERE / ".peers"
IMAGES = ("photos", "thumbnails", "large")
FOLDERS = ("photos", "thumbnails")
BOTH = ("plain", "antialiased")


@dataclass(frozen=True, slots=True)
class Runner:
    """One row of the table.

    ``family``: the environment under ``.peers/`` it needs, None for the project's own. ``resize``: which flavours it
    can do; empty if the question does not arise. ``where``: what its workers are. ``workers``: their number, None for
    the one asked for. ``limit``: it does less than the work, to show what no loader can beat.
    """

    name: str
    file: Path
    family: str | None
    workloads: tuple[str, ...]
    resize: tuple[str, ...]
    where: str
    workers: int | None = None
    limit: bool = False

    @property
    def python(self) -> str:
        return sys.executable if self.family is None else str(PEERS / self.family / "bin" / "python")

    @property
    def installed(self) -> bool:
        return self.family is None or Path(self.python).exists()


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
) -> Runner:
    return Runner(name, HERE / "runners" / file, family, workloads, resize, where, workers, limit)


RUNNERS = (
    _runner("headrace", "headrace_loader.py", None, (*IMAGES, "arrays"), BOTH, "threads"),
    _runner("headrace-inline", "headrace_loader.py", None, (*IMAGES, "arrays"), BOTH, "no workers", workers=0),
    _runner("headrace-tar", "headrace_tar.py", None, ("photos", "thumbnails"), BOTH, "threads"),
    _runner("headrace-scaled", "headrace_scaled.py", None, ("large",), ("antialiased",), "threads"),
    _runner("torch-opencv", "torch_opencv.py", "torch", IMAGES, ("plain",), "processes"),
    _runner("torch-opencv-tuned", "torch_opencv_tuned.py", "torch", IMAGES, ("plain",), "processes"),
    _runner("torch-pillow", "torch_pillow.py", "torch", IMAGES, ("antialiased",), "processes"),
    _runner("torch-torchvision", "torch_torchvision.py", "torchvision", IMAGES, BOTH, "processes"),
    _runner("torch-imagefolder", "torch_image_folder.py", "torchvision", FOLDERS, ("antialiased",), "processes"),
    _runner("headrace-imagefolder", "headrace_image_folder.py", "torchvision", FOLDERS, ("antialiased",), "processes"),
    _runner("headrace-native", "headrace_native_folder.py", "torchvision", FOLDERS, ("antialiased",), "threads"),
    _runner(
        "webdataset",
        "webdataset_torchvision.py",
        "torchvision",
        ("photos", "thumbnails"),
        ("antialiased",),
        "processes",
    ),
    _runner("tf-data", "tf_data.py", "tensorflow", (*IMAGES, "arrays"), BOTH, "threads"),
    _runner("dali", "dali.py", "dali", IMAGES, BOTH, "threads"),
    _runner("opencv-by-hand", "opencv_by_hand.py", None, IMAGES, ("plain",), "no workers", workers=0),
    _runner("torch", "torch_arrays.py", "torch", ("arrays",), (), "processes"),
    _runner("torch-inline", "torch_arrays.py", "torch", ("arrays",), (), "no workers", workers=0),
    _runner("torch-batched", "torch_arrays_batched.py", "torch", ("arrays",), (), "processes"),
    _runner(
        "torch-batched-inline",
        "torch_arrays_batched.py",
        "torch",
        ("arrays",),
        (),
        "no workers",
        workers=0,
    ),
    _runner("decode-only", "decode_only.py", None, IMAGES, (), "threads", limit=True),
    _runner("numpy-copy", "numpy_copy.py", None, ("arrays",), (), "threads", limit=True),
)

# Ratios are to the fastest of these that ran; failing all, to the first runner of the table that did.
BASELINES = {
    ("photos", "plain"): ("torch-opencv",),
    ("thumbnails", "plain"): ("torch-opencv",),
    ("photos", "antialiased"): ("torch-torchvision", "torch-pillow"),
    ("thumbnails", "antialiased"): ("torch-torchvision", "torch-pillow"),
    ("large", "antialiased"): ("torch-torchvision", "torch-pillow"),
    ("arrays", "none"): ("torch", "torch-inline"),
}
