"""Code that uses another library's names gets an error that names ours."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from headrace import ArrayDataset, DataLoader, Dataset, ImageFolder, IterableDataset, hints
from headrace.datasets import MDSDataset
from headrace.errors import ArgumentTypeError

TABLES = [hints.LOADER, hints.DATASET, hints.TRANSFORM, hints.METHODS, hints.LOADER_METHODS, hints.NAMES]


@pytest.mark.parametrize(
    ("named", "advice"),
    [
        ("batchsize", "pass batch_size="),
        ("batch", "pass batch_size="),
        ("num_worker", "pass num_workers="),
        ("shuffle_buffer", "shuffles all samples without a buffer"),
        ("transform", r"DataLoader\(dataset\.map\(function\)\)"),
        ("drop_remainder", "pass drop_last="),
        ("num_shards", 'rank="auto"'),
        ("xyzzy", "choose one of dataset, batch_size"),
    ],
)
def test_an_argument_of_another_loader_is_refused_with_our_name(named: str, advice: str) -> None:
    """Raise a TypeError, as Python does, that says what to pass."""
    with pytest.raises(TypeError, match=rf"unexpected keyword argument '{named}'.*{advice}") as raised:
        DataLoader([1, 2], **{named: 2})  # type: ignore[arg-type]
    assert isinstance(raised.value, ArgumentTypeError)
    assert raised.value.found == named


def test_an_argument_of_another_dataset_is_refused_with_our_way(tmp_path: Path) -> None:
    """Name .map for transforms, the loader for its own arguments, and the closest name for a slip."""
    with pytest.raises(TypeError, match=r"ArrayDataset got .* argument 'transform'.*\.map\(function\)"):
        ArrayDataset([1], transform=len)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"ImageFolder got .* argument 'transforms'.*\.map\(function\)"):
        ImageFolder(tmp_path, transforms=len)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'shuffle'.*DataLoader"):
        MDSDataset(tmp_path, shuffle=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"'extension'.*pass extensions="):
        ImageFolder(tmp_path, extension=".png")  # type: ignore[call-arg]


def test_transform_of_torchvisions_image_datasets_does_what_map_does(tmp_path: Path) -> None:
    """Return the mapped dataset, with the classes of the folder; None maps nothing."""
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "cat").mkdir()
    image.new("RGB", (6, 4), "red").save(tmp_path / "cat" / "0.png")
    dataset: Any = ImageFolder(tmp_path, transform=headrace.CenterCrop(2))  # type: ignore[call-arg]
    assert dataset[0][0].shape == (2, 2, 3)
    assert dataset.classes == ["cat"]
    assert len(pickle.loads(pickle.dumps(dataset))) == 1
    plain: Any = ImageFolder(tmp_path, transform=None)  # type: ignore[call-arg]
    assert plain[0][0].shape == (4, 6, 3)

    class Own(ImageFolder):
        def __init__(self, root: Path, transform: Any) -> None:
            super().__init__(root)
            self.transform = transform

    assert Own(tmp_path, transform=len).transform is len


def test_an_argument_of_another_librarys_transform_is_refused_with_our_name() -> None:
    """Name size for a height, the closest name for a slip; and refuse what a transform without arguments is given."""
    for transform, named, advice in (
        (headrace.RandomResizedCrop, "height", r"pass size=\(height, width\)"),
        (headrace.RandomHorizontalFlip, "prob", "pass p="),
        (headrace.Normalize, "means", "pass mean="),
        (headrace.ToCHW, "inplace", "leave it out"),
        (headrace.ToCHW, "xyzzy", "leave it out"),
        (headrace.transforms.ColorJitter, "height", "choose one of brightness, contrast"),
    ):
        with pytest.raises(TypeError, match=rf"{transform.__name__} got .* argument '{named}'.*{advice}"):
            transform(**{named: 1})


def test_a_method_of_another_library_is_refused_with_our_way() -> None:
    """Name the loader's arguments for tf.data's methods; keep the words of Python for any other name."""
    for thing, method, advice in (
        (ArrayDataset([1]), "batch", "DataLoader(dataset, batch_size=...)"),
        (ArrayDataset([1]).map(len), "train_test_split", "random_split"),
        (DataLoader([1]), "map", "DataLoader(dataset.map(function))"),
    ):
        with pytest.raises(AttributeError, match=rf"no attribute '{method}'; .*{re.escape(advice)}") as raised:
            getattr(thing, method)
        assert (raised.value.name, raised.value.obj) == (method, thing)
    with pytest.raises(AttributeError, match=r"^'ArrayDataset' object has no attribute 'xyzzy'$"):
        ArrayDataset([1]).xyzzy  # type: ignore[attr-defined]  # noqa: B018


def test_an_error_inside_a_property_keeps_its_words() -> None:
    """Name the attribute that is missing, not the property that looked for it."""

    class Own(Dataset[int]):
        @property
        def labels(self) -> Any:  # type: ignore[override]
            return self.targets  # type: ignore[attr-defined]

        @property
        def batch(self) -> Any:
            return self.targets  # type: ignore[attr-defined]

    for name in ("labels", "batch"):
        with pytest.raises(AttributeError, match="no attribute 'targets'"):
            getattr(Own(), name)


def test_each_class_of_the_migration_tables_is_ours_or_has_a_hint() -> None:
    """Say what to use for each class of another library that the guide's tables name."""
    page = (Path(__file__).parents[1] / "docs" / "guide" / "coming-from.md").read_text(encoding="utf-8")
    public = {name for home in hints._HOMES for name in import_module(home).__all__}
    cells = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| ")]
    theirs = {name for cell in cells for name in re.findall(r"`(?:\w+\.)*([A-Z]\w*[a-z]\w*)", cell)}
    assert len(theirs) > 80
    assert sorted(theirs - public - hints.NAMES.keys()) == []


def test_subclasses_keep_their_own_arguments() -> None:
    """Check the constructor that the class has, and none that takes any name."""

    class Own(Dataset[int]):
        def __init__(self, transform: Any, *, shuffle: bool = False) -> None:
            self.transform, self.shuffle = transform, shuffle

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> int:
            return index

    class Any_(DataLoader[Any]):
        def __init__(self, *given: Any, **named: Any) -> None:
            named.pop("batchsize")
            super().__init__(*given, **named)

    class Stream(IterableDataset[int]):
        def __init__(self, shuffle_buffer: int) -> None:
            self.shuffle_buffer = shuffle_buffer

    assert Own(transform=len, shuffle=True).shuffle
    assert Stream(shuffle_buffer=3).shuffle_buffer == 3
    assert len(Any_([1, 2], batchsize=7)) == 2
    with pytest.raises(TypeError, match=r"'shufle'.*pass shuffle="):
        Own(len, shufle=True)  # type: ignore[call-arg]


def test_a_dataset_may_also_be_a_tuple() -> None:
    """Give the arguments to the other base class, which makes the object."""

    class Letters(Dataset[str], tuple):  # type: ignore[type-arg,misc]
        __slots__ = ()
        __getitem__, __len__ = tuple.__getitem__, tuple.__len__  # type: ignore[assignment]

    assert list(Letters("abc")) == ["a", "b", "c"]


def test_signatures_stay_what_editors_show() -> None:
    """Show the arguments of the constructor, not those of the check."""
    assert "batch_size" in inspect.signature(DataLoader).parameters
    assert "extensions" in inspect.signature(ImageFolder).parameters


def test_loaders_and_datasets_are_still_copied_and_pickled() -> None:
    """Make objects without arguments, as copying does."""
    loader = DataLoader(ArrayDataset(np.arange(4)), batch_size=2)
    for other in (copy.copy(loader), pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader)):
        assert [batch.tolist() for batch in other] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("module", ["headrace", "headrace.transforms", "headrace.datasets", "headrace.samplers"])
@pytest.mark.parametrize("name", ["ToTensor", "StatefulDataLoader", "StreamingDataset"])
def test_a_name_of_another_library_says_what_ours_is(module: str, name: str) -> None:
    """Say it for an attribute and for an import, each by the error that Python would raise."""
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'; use "):
        getattr(import_module(module), name)
    with pytest.raises(ImportError, match=f"has no attribute '{name}'; use "):
        exec(f"from {module} import {name}")
    assert not hasattr(import_module(module), name)


def test_a_name_in_another_of_our_modules_is_found() -> None:
    """Name the module, for public names of ours; and the closest name for a slip."""
    with pytest.raises(ImportError, match=r"it is headrace\.samplers\.ShardSampler"):
        from headrace import ShardSampler  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(ImportError, match=r"it is headrace\.collate\.PaddedCollate"):
        from headrace.samplers import PaddedCollate  # type: ignore[attr-defined]  # noqa: F401
    with pytest.raises(AttributeError, match=r"did you mean ImageFolder\?"):
        headrace.ImageFolders  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"'__nothing__'$"):
        headrace.__nothing__  # type: ignore[attr-defined]  # noqa: B018


def test_the_advice_names_what_exists() -> None:
    """Find each name of ours that a hint has, but those of the adapters."""
    texts = " ".join(text for table in TABLES for text in table.values())
    named = {word.strip(",.()=") for word in texts.split() if word.startswith("headrace.")}
    named = {word for word in named if not word.startswith(("headrace.torch", "headrace.jax"))}
    assert named >= {"headrace.samplers.BucketBatchSampler", "headrace.collate.PaddedCollate"}
    for word in named:
        module, _, name = word.rpartition(".")
        assert hasattr(import_module(module), name), word
