"""Images with targets behind URLs: folders and lists, files that are missing, change, or lie on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.storage import sources
from tests.storage.object_server import ObjectServer
from tests.storage.sources import KINDS, objects_of

from headrace import DataLoader
from headrace.datasets import VOC, YOLO, CocoDetection, SegmentationFolder
from headrace.errors import ArgumentError, BadFile, MissingFile, UnreadableFile
from headrace.storage import blocks

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("obstore")

COUNT = 8
"""Images of each dataset here."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SAMPLES", COUNT)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    found = tmp_path / "data"
    found.mkdir()
    return found


def _served(server: ObjectServer, folder: Path) -> None:
    server.objects |= {f"/bucket{path}": data for path, data in objects_of(folder).items()}


def _equal(remote: Any, local: Any) -> None:
    """Compare all samples, one by one and by a loader on threads."""
    np.testing.assert_equal([*remote], [*local])
    options: dict[str, Any] = {"shuffle": True, "seed": 1, "collate_fn": list}
    loader: DataLoader[Any]
    with DataLoader(remote, 3, num_workers=2, backend="threads", **options) as loader:
        np.testing.assert_equal(list(loader), list(DataLoader(local, 3, **options)))


def _asked(server: ObjectServer) -> list[str]:
    return [path for method, path, _ in server.requests if method == "HEAD"]


def test_pairs_of_images_and_masks_are_found_by_listing(server: ObjectServer, folder: Path) -> None:
    """List both folders, a thousand objects for each request, and ask for no object by itself."""
    sources.pairs(folder)
    _served(server, folder)
    server.objects["/bucket/masks/a/.hidden.png"] = b""
    local = SegmentationFolder(folder / "photos", folder / "masks")
    remote = SegmentationFolder("s3://bucket/photos/", "s3://bucket/masks")
    assert not _asked(server)
    assert remote.mask_path(-1) == f"s3://bucket/masks/a/{COUNT - 1:03}.png"
    _equal(remote, local)
    del server.objects["/bucket/masks/a/003.png"]
    with pytest.raises(MissingFile, match="1 of 8 files have none of the same name"):
        SegmentationFolder("s3://bucket/photos", "s3://bucket/masks")
    with pytest.raises(UnreadableFile, match="an HTTP server does not list"):
        SegmentationFolder(f"{server.url}/bucket/photos", f"{server.url}/bucket/masks")


def test_masks_on_this_machine_go_with_images_behind_urls(server: ObjectServer, folder: Path) -> None:
    """Read one folder of the two from the server."""
    sources.pairs(folder)
    _served(server, folder)
    local = SegmentationFolder(folder / "photos", folder / "masks")
    _equal(SegmentationFolder("s3://bucket/photos", folder / "masks"), local)
    _equal(SegmentationFolder(folder / "photos", "s3://bucket/masks"), local)


@pytest.mark.parametrize("target", ["segmentation", "instances"])
def test_masks_of_voc_are_read_by_url(server: ObjectServer, folder: Path, target: Any) -> None:
    """Give the masks of the files."""
    KINDS["voc"].write(folder)
    _served(server, folder)
    _equal(VOC("s3://bucket/", target=target), VOC(folder, target=target))


def test_annotations_and_images_of_coco_may_be_apart(server: ObjectServer, folder: Path) -> None:
    """Read annotations by URL and images here, and the other way round; masks need parts of the annotations."""
    KINDS["coco"].write(folder)
    _served(server, folder)
    local = CocoDetection(folder / "photos", folder / "c.json", masks=True)
    url = f"{server.url}/bucket"
    _equal(CocoDetection(folder / "photos", f"{url}/c.json", masks=True), local)
    _equal(CocoDetection(f"{url}/photos", folder / "c.json", masks=True), local)


def test_a_listing_is_written_once_and_then_read(server: ObjectServer, folder: Path, tmp_path: Path) -> None:
    """Ask for size and version of images and annotations once, for later runs too."""
    KINDS["voc"].write(folder)
    _served(server, folder)
    listing, url = tmp_path / "voc.listing", f"{server.url}/bucket"
    VOC(url, listing=listing)
    assert len(_asked(server)) == 2 * COUNT + 1  # the list of names too
    server.requests.clear()
    again = VOC(url, listing=listing)
    assert len(_asked(server)) == 1
    _equal(again, VOC(folder))
    assert len(_asked(server)) == 1
    with pytest.raises(ArgumentError, match="is for images behind URLs"):
        VOC(folder, listing=listing)


def test_yolo_finds_its_files_below_the_url(server: ObjectServer, folder: Path) -> None:
    """Take a folder of images, or a list; pass over a ``path`` that leads nowhere; know images without text."""
    KINDS["yolo"].write(folder)
    _served(server, folder)
    local = YOLO(folder, "val")
    _equal(YOLO("s3://bucket/data.yaml", "val"), local)
    remote = YOLO(f"{server.url}/bucket")
    assert remote.label_path(0) == f"{server.url}/bucket/labels/train/000.txt"
    server.requests.clear()
    _equal(remote, local)
    assert not _asked(server)
    moved = server.objects["/bucket/data.yaml"].replace(b"../datasets/all", b"below")
    server.objects |= {f"/bucket/below{path}": data for path, data in objects_of(folder).items()}
    server.objects["/bucket/data.yaml"] = moved
    assert YOLO("s3://bucket/").root == "s3://bucket/below"
    with pytest.raises(MissingFile, match=r"s3://bucket/none/data\.yaml: there is no such object"):
        YOLO("s3://bucket/none")
    with pytest.raises(UnreadableFile, match="an HTTP server does not list"):
        YOLO(f"{server.url}/bucket", "val")


def test_what_was_there_and_is_gone_is_an_error(server: ObjectServer, folder: Path) -> None:
    """Name the URL of a text, an image or a mask that was there when the dataset was constructed, or has changed."""
    KINDS["yolo"].write(folder)
    _served(server, folder)
    dataset = YOLO(f"{server.url}/bucket")
    gone = server.objects.pop("/bucket/labels/train/001.txt")
    with pytest.raises(MissingFile, match=r"sample 1 \(http://.*/labels/train/001\.txt\): .*no such object"):
        dataset[1]
    server.objects["/bucket/labels/train/001.txt"] = gone + b"\n"
    with pytest.raises(BadFile, match=r"labels/train/001\.txt: .*the object has changed"):
        dataset[1]
    del server.objects["/bucket/images/train/002.png"]
    with pytest.raises(MissingFile, match=r"sample 2 \(http://.*/images/train/002\.png\)"):
        dataset[2]
    assert YOLO(f"{server.url}/bucket").paths == dataset.paths  # an image that is missing is an error when it is read


def test_a_server_that_refuses_a_text_is_no_image_without_objects(server: ObjectServer, folder: Path) -> None:
    """Raise for status 403, as nobody knows what is there."""
    KINDS["yolo"].write(folder)
    _served(server, folder)
    server.fault = lambda _method, number: "403" if "/labels/" in server.requests[number][1] else ""
    server.requests.clear()
    dataset = YOLO(f"{server.url}/bucket")
    with pytest.raises(UnreadableFile, match=r"000\.txt\): the server refused it \(status 403\)"):
        dataset[0]


def test_a_coco_file_that_names_missing_and_hostile_images(server: ObjectServer, folder: Path) -> None:
    """Refuse names that lead out of the folder; an image that is missing is an error when it is read."""
    KINDS["coco"].write(folder)
    _served(server, folder)
    del server.objects["/bucket/photos/000.png"]
    url = f"{server.url}/bucket"
    with pytest.raises(MissingFile, match=r"sample 0 \(http://.*/photos/000\.png\)"):
        CocoDetection(f"{url}/photos", f"{url}/c.json")[0]
    content = json.loads(server.objects["/bucket/c.json"])
    content["images"][0]["file_name"] = "../secret.png"
    server.objects["/bucket/c.json"] = json.dumps(content).encode()
    with pytest.raises(BadFile, match=r"http://.*/c\.json: .*outside of the folder"):
        CocoDetection(f"{url}/photos", f"{url}/c.json")
    server.objects["/bucket/c.json"] = b"{"
    with pytest.raises(BadFile, match=r"http://.*/c\.json"):
        CocoDetection(f"{url}/photos", f"{url}/c.json")
