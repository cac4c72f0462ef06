"""Objects that are listed: folders and stars of shards, and images below a URL in the order of a folder's."""

from __future__ import annotations

import io
import pickle
import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.storage.sources import KINDS, objects_of, tar_of

from headrace import ArrayDataset, DataLoader, ImageFiles, ImageFolder, ImageList, Resize
from headrace.datasets import (
    CIFAR10,
    ArrayRecordDataset,
    ArrowDataset,
    FaceDataset,
    MultiLabel,
    TokenDataset,
    WebDataset,
    open_shards,
)
from headrace.errors import ArgumentError, BadFile, HeadraceError, MissingFile, UnreadableFile
from headrace.storage import blocks, object_clients, objects
from headrace.storage.object_clients import ObstoreClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

fsspec = pytest.importorskip("fsspec")
image = pytest.importorskip("PIL.Image")

NAMES = (
    "cat/b.png", "cat/a.PNG", "cat/x/c.png", "cat-1/z.png", "cat/x-y/d.png", "dog/.hidden/e.png", "dog/.f.png",
    "dog/é g.png", "dog/#1.png", "dog/100%.png", "root.png", "dog/notes.txt", "cat/x.y/h.png", "cat/X/i.png",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def bucket() -> Iterator[Any]:
    """A file system in memory, and what puts the files of a folder there."""
    files = fsspec.filesystem("memory")
    files.store.clear()

    def put(folder: Path) -> str:
        for name, data in objects_of(folder).items():
            files.pipe(f"/bucket{name}", data)
        return "memory://bucket"

    yield put
    files.store.clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images whose names are hard to sort."""
    folder = tmp_path / "photos"
    for number, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        held = io.BytesIO()
        image.fromarray(np.full((3, 4, 3), number, np.uint8)).save(held, "PNG")
        path.write_bytes(held.getvalue())
    return folder


def _same(remote: Any, local: Any) -> None:
    assert (list(remote.paths), remote.labels.tolist(), remote.classes) == (
        list(local.paths),
        local.labels.tolist(),
        local.classes,
    )
    for ours, theirs in zip(remote, local, strict=True):
        np.testing.assert_equal(ours, theirs)


class TestImages:
    def test_a_folder_of_classes_is_that_of_the_files(self, photos: Path, bucket: Callable[[Path], str]) -> None:
        url = bucket(photos)
        _same(ImageFolder(url), ImageFolder(photos))
        _same(ImageFolder(f"{url}/"), ImageFolder(photos))
        _same(ImageFiles.under(url), ImageFiles.under(photos))

    def test_any_tree_has_the_order_of_the_files(self, tmp_path: Path, bucket: Callable[[Path], str]) -> None:
        draw = random.Random(7)
        parts = ("a", "a-", "a.b", "a b", "A", "b", "a0", "é", "ab")
        for _ in range(60):
            name = "/".join(draw.choice(parts) for _ in range(draw.randint(1, 4)))
            path = tmp_path / "tree" / "top" / f"{name}{draw.choice('xyz')}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        remote, local = ImageFolder(bucket(tmp_path / "tree")), ImageFolder(tmp_path / "tree")
        assert list(remote.paths) == list(local.paths)
        assert list(ImageFiles.under("memory://bucket").paths) == list(ImageFiles.under(tmp_path / "tree").paths)

    def test_a_loader_has_the_batches_of_the_files(self, photos: Path, bucket: Callable[[Path], str]) -> None:
        def batches(root: Any, **options: Any) -> list[Any]:
            dataset = ImageFolder(root).map(Resize((2, 2)))
            return list(DataLoader(dataset, 3, shuffle=True, seed=1, **options))

        url, expected = bucket(photos), batches(photos)
        for options in ({}, {"num_workers": 2, "backend": "threads"}):
            np.testing.assert_equal(batches(url, **options), expected)

    def test_errors_are_those_of_a_folder(self, photos: Path, bucket: Callable[[Path], str]) -> None:
        with pytest.raises(MissingFile, match="nothing is below it"):
            ImageFolder("memory://bucket/none")
        url = bucket(photos)
        with pytest.raises(MissingFile, match="no folder in it"):
            ImageFolder(f"{url}/cat-1")
        fsspec.filesystem("memory").rm("/bucket/cat-1/z.png")
        fsspec.filesystem("memory").pipe("/bucket/cat-1/z.txt", b"")
        with pytest.raises(MissingFile, match="no image in 1 of 3 class folders: cat-1"):
            ImageFolder(url)
        assert ImageFolder(url, allow_empty=True).classes == ["cat", "cat-1", "dog"]

    def test_an_image_that_goes_or_changes_is_an_error_of_its_sample(
        self, photos: Path, bucket: Callable[[Path], str]
    ) -> None:
        dataset, files = ImageFolder(bucket(photos)), fsspec.filesystem("memory")
        files.rm("/bucket/cat/a.PNG")
        with pytest.raises(MissingFile, match=r"sample 0 \(memory://bucket/cat/a.PNG\)") as gone:
            dataset[0]
        assert gone.value.index == 0
        files.pipe("/bucket/cat/b.png", b"another, longer than it was before" * 9)
        with pytest.raises(BadFile, match=r"cat/b\.png.*changed"):
            dataset[1]
        skipped = DataLoader(dataset.map(Resize((2, 2))), 1, on_error="skip")
        assert sum(len(labels) for _, labels in skipped) == len(dataset) - 2

    def test_a_list_may_be_behind_a_url_and_name_urls(self, photos: Path, bucket: Callable[[Path], str]) -> None:
        (photos / "lists").mkdir()
        names = ("cat/b.png", "dog/é g.png", "dog/#1.png")
        (photos / "lists" / "up.txt").write_text("".join(f'"../{name}",{n}\n' for n, name in enumerate(names)))
        (photos / "here.csv").write_text("".join(f"{name},{n}\n" for n, name in enumerate(names)))
        (photos / "tags.csv").write_text("image,tags\ncat/b.png,cat\ndog/é g.png,dog big\n")
        url = bucket(photos)
        (photos / "mixed.csv").write_text(f"{photos}/cat/a.PNG,0\n{url}/cat/b.png,1\n")
        local = ImageList(photos / "here.csv")
        _same(ImageList(f"{url}/here.csv"), local)
        _same(ImageList(photos / "here.csv", root=url), local)
        up = ImageList(f"{url}/lists/up.txt")
        np.testing.assert_equal(list(up), list(local))
        assert up.path(0) == f"{url}/cat/b.png"
        mixed = ImageList(photos / "mixed.csv")
        np.testing.assert_equal(mixed[1][0], local[0][0])
        np.testing.assert_equal(mixed[0][0], ImageFiles([photos / "cat/a.PNG"])[0][0])
        assert MultiLabel(f"{url}/tags.csv", labels="tags")[1][1].tolist() == [1.0, 0.0, 1.0]

    def test_a_listing_is_kept_in_a_file(
        self, photos: Path, tmp_path: Path, bucket: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url, place = bucket(photos), tmp_path / "kept" / "photos.listing"
        first = ImageFolder(url, listing=place)
        monkeypatch.setattr(objects, "listing", lambda _url: pytest.fail("it was listed again"))
        monkeypatch.setattr(objects, "facts", lambda _url: pytest.fail("it was asked for"))
        _same(ImageFolder(url, listing=place), first)
        _same(pickle.loads(pickle.dumps(first)), first)
        with pytest.raises(ArgumentError, match=r"lists 'memory://bucket', and not 'memory://bucket/cat'"):
            ImageFolder(f"{url}/cat", listing=place)
        with pytest.raises(ArgumentError, match="for images behind URLs"):
            ImageFolder(photos, listing=place)
        place.write_bytes(place.read_bytes()[:300])
        with pytest.raises(BadFile, match="no listing, or damaged"):
            ImageFolder(url, listing=place)

    def test_the_facts_of_named_images_are_kept_too(
        self, photos: Path, tmp_path: Path, bucket: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root, place = bucket(photos), tmp_path / "photos.listing"
        names = ["cat/b.png", "dog/none.png", "dog/é g.png"]
        first = ImageFiles(names, root=root, listing=place)
        with pytest.raises(MissingFile, match=r"sample 1 .*none\.png"):
            first[1]
        monkeypatch.setattr(objects, "facts", lambda _url: pytest.fail("it was asked for"))
        again = ImageFiles([*names[::-1], "cat/a.PNG"], root=root, listing=place)
        np.testing.assert_equal(again[0], first[2])
        assert again._facts is not None
        assert again._facts[:, 0].tolist()[1::2] == [-2, -1]

    def test_it_is_read_in_python(self, photos: Path, bucket: Callable[[Path], str]) -> None:
        assert ImageFolder(bucket(photos)).native_source() is None
        assert ImageFolder(photos).object_spans([0]) == []


class TestShards:
    def test_a_folder_and_stars_are_listed(self, tmp_path: Path, bucket: Callable[[Path], str]) -> None:
        folder = tmp_path / "shards"
        (folder / "deep").mkdir(parents=True)
        for name, numbers in (("b-1.tar", range(2)), ("a-0.tar", range(2, 5)), ("deep/c.tar", range(5, 6))):
            (folder / name).write_bytes(tar_of(numbers))
        (folder / "a.txt").write_bytes(b"no shard")
        url = bucket(folder)
        for pattern in ("/", "/*.tar", "/?-[01].tar", "/{b,a}-*.tar", "/deep/*.tar", "/*/c.tar", "/d*/*"):
            ours = WebDataset(f"{url}{pattern}", index=None).shards
            theirs = WebDataset(f"{folder}{pattern}", index=None).shards
            assert [shard.removeprefix(url) for shard in ours] == [shard.removeprefix(str(folder)) for shard in theirs]
        assert len(open_shards(f"{url}/", index=None)) == 5
        with pytest.raises(MissingFile, match="no object has such a name"):
            WebDataset(f"{url}/*.zip")

    def test_a_dataset_that_datasets_saved_is_read(self, tmp_path: Path, bucket: Callable[[Path], str]) -> None:
        folder = tmp_path / "saved"
        folder.mkdir()
        KINDS["arrow"].write(folder)
        (folder / "state.json").write_text('{"_data_files": [{"filename": "a-1.arrow"}]}')
        remote, local = ArrowDataset(f"{bucket(folder)}/"), ArrowDataset(folder)
        np.testing.assert_equal([remote[0], remote[-1]], [local[0], local[-1]])

    def test_tokens_are_found_in_a_folder_with_their_indexes(
        self, tmp_path: Path, bucket: Callable[[Path], str]
    ) -> None:
        folder = tmp_path / "tokens"
        folder.mkdir()
        KINDS["documents"].write(folder)
        local = list(TokenDataset(folder, documents=True))
        url = bucket(folder)
        for place in (f"{url}/", f"{url}/d.bin", f"{url}/d.idx", f"{url}/d"):
            remote = TokenDataset(place, documents=True)
            np.testing.assert_equal([remote[3], remote[-1]], [local[3], local[-1]])
        fsspec.filesystem("memory").rm("/bucket/d.idx")
        with pytest.raises(ArgumentError, match="no header that says the dtype"):
            TokenDataset(f"{url}/d.bin")
        changed = TokenDataset(f"{url}/d.bin", 16, dtype="u2")
        fsspec.filesystem("memory").pipe("/bucket/d.bin", b"another")
        blocks._of_process.cache_clear()
        with pytest.raises(BadFile, match=r"memory://bucket/d\.bin.*changed"):
            changed[5]


class TestObstore:
    def test_pages_are_put_together_and_go_on_after_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        obstore = pytest.importorskip("obstore")
        from obstore.store import MemoryStore

        store, client = MemoryStore(), objects._obstore()
        assert isinstance(client, ObstoreClient)
        names = [f"photos/{number:03}.jpg" for number in range(25)]
        for name in (*names, "photos2/other.jpg", "photos/deep/x.jpg"):
            obstore.put(store, name, name.encode())
        monkeypatch.setattr(client, "_stores", OrderedDict())
        monkeypatch.setattr(object_clients, "_store", lambda *_arguments, **_options: store)
        monkeypatch.setattr(object_clients, "LISTED", 4)
        failures, begun = [ConnectionError("reset")], list[Any]()
        real = client._module.list

        class Module:
            """obstore, whose second page fails once."""

            def list(self, *arguments: Any, **options: Any) -> Any:
                begun.append(options["offset"])
                pages = real(*arguments, **options)

                class Stream:
                    def __init__(self) -> None:
                        self.count = 0

                    def __aiter__(self) -> Any:
                        return self

                    async def __anext__(self) -> Any:
                        self.count += 1
                        if self.count == 2 and failures:
                            raise failures.pop()
                        return await anext(pages)

                return Stream()

        monkeypatch.setattr(client, "_module", Module())
        found = client.listing("s3://bucket/photos")
        assert [name for name, _ in found] == [*(name[7:] for name in names), "deep/x.jpg"]
        assert [size for _, (size, _) in found] == [14] * 25 + [17]
        assert len(begun) == 2
        assert begun[1] is not None

    def test_the_facts_of_a_listing_are_those_of_the_object(self) -> None:
        """Azure's lists have ETags without the quotes that answers have."""
        meta = {"size": 3, "e_tag": '"0x8DC"'}
        assert object_clients._of_meta(meta) == object_clients._of_meta(meta | {"e_tag": "0x8DC"})
        assert object_clients._of_meta(meta) != object_clients._of_meta(meta | {"e_tag": "0x8DD"})

    def test_names_of_objects_may_have_marks_of_queries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("obstore")
        client, store = objects._obstore(), object()
        assert isinstance(client, ObstoreClient)
        monkeypatch.setattr(client, "_stores", OrderedDict())
        monkeypatch.setattr(object_clients, "_store", lambda *_arguments, **_options: store)
        assert client._place("s3://bucket/a#1?.jpg") == (store, "a#1?.jpg")


@pytest.mark.parametrize(
    "opened",
    [
        lambda url: ArrayDataset(f"{url}/a.npy"),
        lambda url: ArrayRecordDataset(f"{url}/a.array_record"),
        CIFAR10,
        FaceDataset,
        lambda url: FaceDataset([f"{url}/a.jpg"]),
        lambda url: FaceDataset.fddb(url, "folds"),
        lambda url: WebDataset(f"{url}/a.tar", index=url),
        lambda url: ImageFolder(url, listing=f"{url}/x"),
    ],
)
def test_what_is_not_read_by_url_says_so_and_what_to_do(
    opened: Callable[[str], Any], bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # nothing is taken for a path there
    fsspec.filesystem("memory").pipe("/bucket/a.tar", tar_of(range(1)))
    fsspec.filesystem("memory").pipe("/bucket/a.jpg", b"")
    with pytest.raises(HeadraceError, match=r"(is a URL|not read from URLs).*(Copy|Pass)") as error:
        opened("memory://bucket")
    assert isinstance(error.value, ArgumentError)
    assert not (tmp_path / "memory:").exists()


def test_a_server_that_does_not_list_names_the_way_out() -> None:
    pytest.importorskip("obstore")
    with pytest.raises(UnreadableFile, match=r"does not list its objects.*ImageList"):
        ImageFolder("http://127.0.0.1:9/photos")
