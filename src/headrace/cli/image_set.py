"""From a PATH on the command line to a dataset of images."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.command_errors import CommandError
from headrace.cli.options import Number, refuse
from headrace.cli.output import Result, say
from headrace.cli.rows import open_rows
from headrace.cli.script_objects import is_script, loader_or_dataset_of
from headrace.datasets.cifar import CIFAR10, CIFAR100, CifarDataset
from headrace.datasets.images import DEFAULT_EXTENSIONS, ImageDataset, ImageFiles, ImageFolder
from headrace.datasets.lists import ImageList
from headrace.datasets.packed_dataset import PackedDataset
from headrace.datasets.shard_kinds import open_shards, shard_kind
from headrace.errors import HeadraceError, MissingFile, SampleError
from headrace.formats.packed_layout import LISTING
from headrace.formatting import count, plain
from headrace.image.decoding import DEFAULT_MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.datasets.field_samples import FieldDataset, FieldTuples

    Images = ImageDataset | CifarDataset | FieldTuples | PackedDataset

LIST_FILES = (".txt", ".csv", ".tsv", ".lst")
ARCHIVES = (".tar.gz", ".tgz")

SIDE = 224
"""The side of the crops where images are of any size."""


@dataclass(frozen=True, slots=True)
class Options:
    """What can be said about how a PATH is to be read."""

    root: Path | None = None
    header: bool = False
    columns: tuple[str | int, ...] | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS
    by_class: bool = True
    verify: bool = True

    def of_lists(self) -> bool:
        """Say whether one is given that only a list file knows."""
        return self.root is not None or self.header or self.columns is not None


@dataclass(frozen=True, slots=True)
class ImageSet:
    """A dataset of images, and how to speak of it."""

    dataset: Images
    name: str
    classes: tuple[str, ...] = ()
    left_out: int = 0
    """Images beside the class folders, which belong to no class."""

    @property
    def side(self) -> int:
        """The side of the crops unless told otherwise."""
        return self.dataset.images.shape[1] if isinstance(self.dataset, CifarDataset) else SIDE

    def summary(self) -> str:
        """Say how many images there are, in how many classes."""
        images = count(len(self.dataset), "image")
        if not self.classes:
            return images
        beside = f" ({count(self.left_out, 'image')} beside the class folders left out)" if self.left_out else ""
        return f"{images} in {count(len(self.classes), 'class', 'classes')}{beside}"

    def title(self) -> str:
        """Return the last part of the PATH."""
        return Path(self.name).resolve().name or self.name

    def label(self, label: Any) -> str:
        """Return the name of a label."""
        if not isinstance(label, int):
            return f"label {label}"
        if 0 <= label < len(self.classes):
            return self.classes[label]
        return "no label" if label == -1 else f"label {label}"

    def where(self, index: int) -> str:
        """Return where an image is: below the current folder, where PATH is relative."""
        place = self.dataset.where(index)
        return place if Path(self.name).is_absolute() else place.removeprefix(f"{Path.cwd()}/")

    def file(self, index: int) -> str:
        """Return the name of an image's file, without its folders."""
        return Path(self.dataset.where(index)).name


class _NoSamples(Exception):
    """Shards without a sample, which are no error: there is nothing to do."""

    def __init__(self, shards: int) -> None:
        super().__init__()
        self.shards = shards


def open_path(path: str, options: Options) -> ImageSet:
    """Open a folder of class folders or images, a list file, shards, CIFAR's files or archive, or one image.

    Raises `CommandError` for a PATH that is none of these, and `_NoSamples` for shards without a sample.
    """
    place = Path(path)
    is_list = place.is_file() and place.suffix.lower() in LIST_FILES
    if options.of_lists() and not is_list:
        raise CommandError(
            "--root, --header and --columns were given, but this is not a list file",
            path=path,
            expected=f"a list file ({' '.join(LIST_FILES)})",
            cure="leave these options out",
        )
    try:
        cifar = _open_cifar(place, path, verify=options.verify)
        if cifar is not None:
            return cifar
        shards = _open_packed(place, path) or _open_shards(place, path, options.max_pixels)
        if shards is not None:
            return shards
        if place.is_dir():
            return open_folder(place, path, by_class=options.by_class, max_pixels=options.max_pixels)
        if is_list:
            listed = ImageList(
                place,
                options.root,
                header=options.header,
                columns=options.columns,
                max_pixels=options.max_pixels,
            )
            return ImageSet(listed, path, tuple(listed.classes))
        if place.exists() or place.is_symlink():
            return _open_image(place, path, options.max_pixels)
    except HeadraceError as error:
        cure = error.cure and error.cure.replace("verify=False", "--no-verify")
        raise CommandError.of(error, cure) from error
    raise CommandError("no such file or folder", path=path, expected="a folder, a list file or an image")


def open_folder(
    folder: Path, name: str | None = None, *, by_class: bool = True, max_pixels: int = DEFAULT_MAX_PIXELS
) -> ImageSet:
    """Open a folder of class folders or, if no image is in a folder of its own, a folder of images."""
    shown = name or str(folder)
    if by_class and any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir()):
        classed = ImageFolder(folder, allow_empty=True, max_pixels=max_pixels)
        if len(classed):
            beside = sum(entry.is_file() and is_image_name(entry) for entry in folder.iterdir())
            return ImageSet(classed, shown, tuple(classed.classes), beside)
    flat = ImageFiles.under(folder, max_pixels=max_pixels)
    if not len(flat):
        endings = " ".join(DEFAULT_EXTENSIONS)
        raise CommandError("no image in this folder", path=shown, expected=f"files whose names end with {endings}")
    return ImageSet(flat, shown)


def _open_cifar(place: Path, path: str, *, verify: bool) -> ImageSet | None:
    """Open CIFAR's files or an archive that may have them, its training images first; None for anything else."""
    kinds = [kind for kind in (CIFAR10, CIFAR100) if kind.is_at(place)]
    if not kinds and place.is_file() and place.name.lower().endswith(ARCHIVES):
        kinds = [CIFAR10, CIFAR100]
    missing = None
    for kind, train in [(kind, train) for kind in kinds for train in (True, False)]:
        try:
            dataset = kind(place, train, verify=verify)
        except MissingFile as error:
            missing = missing or error
        else:
            return ImageSet(dataset, path, tuple(dataset.classes))
    if missing is not None:
        raise missing
    return None


def _open_packed(place: Path, path: str) -> ImageSet | None:
    """Open a packed dataset; None for anything else."""
    if not (place / LISTING).is_file():
        return None
    return _image_and_label(PackedDataset(place), path)


def _open_shards(place: Path, path: str, max_pixels: int) -> ImageSet | None:
    """Open shards of any format: one, a folder of them, or a pattern; None for anything else."""
    if place.is_dir() and any(map(is_image_name, place.iterdir())):
        return None
    if place.is_file() and (is_image_name(place) or place.suffix.lower() in LIST_FILES):
        return None
    if shard_kind(path) is None:
        return None
    dataset = open_shards(path, max_pixels=max_pixels)
    if not len(dataset):
        raise _NoSamples(len(dataset.shards))
    return _image_and_label(dataset, path)


def _image_and_label(dataset: FieldDataset | PackedDataset, path: str) -> ImageSet:
    """Take the first image of each sample, and its first integer where there is one."""
    image = next(filter(dataset.is_image, dataset.fields), None)
    if image is None:
        raise CommandError(
            f"no field of these samples is an image; they have {', '.join(dataset.fields) or 'none'}",
            path=path,
            expected="a field such as jpg or png",
        )
    label = next(filter(dataset.is_integer, dataset.fields), None)
    samples = dataset.tuple(image) if label is None else dataset.tuple(image, label)
    return ImageSet(samples, path, tuple(samples.classes))


def is_image_name(path: Path) -> bool:
    """Say whether a file is an image, by its name."""
    return path.suffix.lower() in DEFAULT_EXTENSIONS


def _open_image(place: Path, path: str, max_pixels: int) -> ImageSet:
    if place.suffix == ".py":
        raise CommandError("a Python script", path=path, cure=f"name a loader or a dataset in it, as in {path}:loader")
    one = ImageFiles([place], max_pixels=max_pixels)
    if place.suffix.lower() not in DEFAULT_EXTENSIONS:
        try:
            one[0]
        except SampleError as error:
            lists = " ".join(LIST_FILES)
            raise CommandError(
                "not an image",
                path=path,
                expected=f"a folder of images, a list file ({lists}), or an image",
            ) from error
    return ImageSet(one, path)


def image_set_of_path(
    *,
    by_class: bool = True,
    rows: Callable[..., Any] | None = None,
    script: Callable[..., Any] | None = None,
    or_batch: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the argument PATH, the options that go with it, and the dataset that they mean.

    ``by_class``: of a folder of class folders, take the images of the classes; otherwise every image below it.
    ``rows``: what to call instead for a file of rows that are no images, with its dataset and the PATH.
    ``script``: what to call instead for SCRIPT:NAME, with the loader or the dataset and the text. ``or_batch``: it
    takes a batch too.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def opened(
            *,
            path: str,
            root: Path | None,
            header: bool,
            columns: tuple[str | int, ...] | None,
            max_pixels: int,
            verify: bool,
            **others: object,
        ) -> Any:
            if script is not None and is_script(path):
                refuse(_OF_PATHS, f"{path} is no list file, folder or archive")
                return script(loader_or_dataset_of(path, or_batch=or_batch), path, **others)
            if rows is not None and (found := open_rows(path)) is not None:
                return rows(found, path, **others)
            try:
                image_set = open_path(path, Options(root, header, columns, max_pixels, by_class, verify))
            except _NoSamples as empty:
                say(f"{plain(path)}: 0 samples in {count(empty.shards, 'shard')}")
                return Result({"path": path, "samples": 0, "shards": empty.shards})
            return command(image_set=image_set, **others)

        for parameter in reversed(_PARAMETERS):
            opened = parameter(opened)
        return opened

    return decorate


def _columns(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str | int, ...] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    if len(names) != 2 or not all(names):
        raise click.BadParameter("give two, as in: --columns file,kind or --columns 0,2")
    return tuple(int(name) if name.isdecimal() else name for name in names)


def _not_empty(_context: click.Context, _parameter: click.Parameter, path: str) -> str:
    """Refuse an empty PATH, which an unset variable of the shell gives, and which would mean the current folder."""
    if not path:
        raise click.BadParameter("it is empty: give a folder, a list file or an image.")
    return path


_OF_PATHS = ("root", "header", "columns", "max_pixels", "verify")

_PARAMETERS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.argument("path", type=click.Path(), callback=_not_empty),
    click.option(
        "--root",
        type=click.Path(path_type=Path),
        help="List file: the folder that its paths begin in.  [default: the list file's]",
    ),
    click.option("--header", is_flag=True, help="List file: pass over its first line."),
    click.option(
        "--columns",
        metavar="PATH,LABEL",
        callback=_columns,
        help="List file: its columns of the path and of the label, by name or by number from 0.",
    ),
    click.option(
        "--max-pixels",
        type=Number(1),
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="Refuse images of more pixels, which may be decompression bombs.  [default: half a GiB of RGB]",
    ),
    click.option(
        "--verify/--no-verify", default=True, help="CIFAR: refuse an archive whose MD5 is not the published one."
    ),
)
