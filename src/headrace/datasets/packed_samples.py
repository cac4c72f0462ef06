"""Samples as a packed dataset stores them: the fields of a sample, its images scaled and encoded."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from headrace._native import extension
from headrace.checks import shown
from headrace.datasets import protocol
from headrace.datasets.field_samples import FieldDataset
from headrace.datasets.image_sources import Bytes, Files, Ranges, label_of
from headrace.errors import ArgumentError, SampleError, missing
from headrace.formats.packed_layout import KEY, SIDES, SUMS, FieldLayout, Layout
from headrace.formats.packed_tables import Stored
from headrace.image import geometry
from headrace.image.decoder import decode_as
from headrace.image.moves import ScalePart
from headrace.image.targets import spatial_part
from headrace.storage.crc32c import crc32c
from headrace.storage.files import read_file
from headrace.transforms.geometric_transform import GeometricTransform

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from headrace.formats.packed_tables import Row
    from headrace.image.decoding import Decoding

MOST_BYTES = 1 << 30
"""Of a field of a sample: a shard, whose offsets have 31 bits, holds at least one sample."""
JSONS = (str, int, float, bool, type(None))


class Encoded(NamedTuple):
    """An image that is not decoded yet."""

    data: bytes
    decoding: Decoding
    place: str

    def pixels(self) -> NDArray[Any]:
        """Decode it."""
        return decode_as(self.data, self.place, self.decoding, set())


@dataclass(frozen=True)
class LongestSide(GeometricTransform):
    """Scale an image, and all that has places in it, so that no side is longer than a number of pixels."""

    draws = False
    most: int

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Return the sides of an image afterwards.

        >>> LongestSide(256).sides(600, 800), LongestSide(256).sides(100, 200)
        ((192, 256), (100, 200))
        """
        longest = max(height, width)
        if longest <= self.most:
            return height, width
        rows, columns = (max(1, int(self.most * side / longest + 0.5)) for side in (height, width))
        return rows, columns

    def move(self, height: int, width: int, rng: Any) -> ScalePart:  # noqa: ARG002
        """Scale all of the image."""
        return ScalePart((0, 0, height, width), self.sides(height, width))


class Samples:
    """The samples of a dataset, as they are stored; safe on any number of threads.

    ``layout`` is what all samples must agree with: that of the ``first`` one, unless a folder has one already.
    """

    def __init__(self, dataset: Any, how: Layout, layout: Layout | None = None, first: int = 0) -> None:
        self._dataset, self._how = dataset, how
        self._longest = None if how.max_side is None else LongestSide(how.max_side)
        self.layout = layout or self._layout_of(self._sample(first), first)
        if self._longest is not None and not any(each.kind == "image" for each in self.layout.fields):
            raise ArgumentError(
                f"max_side={how.max_side}, but the samples have no image",
                found=how.max_side,
                expected="an image of uint8, alone, first in a tuple, or under 'image' in a dict",
                cure="Leave max_side= out, or give such samples with dataset.map(function).",
            )

    def key(self, row: int) -> str:
        """Return the key of a sample: its own, or its path below the folder, or its number."""
        root, rows = protocol.resolve(self._dataset, [row])
        paths = getattr(root, "paths", None)
        return str(paths[int(rows[0])]) if paths is not None and len(paths) == len(root) else str(row)

    def row(self, row: int) -> tuple[Row, Row]:
        """Return a sample as it is stored; in a smart dataset also with its images as pixels, else twice the same.

        Raises what reading the sample raises, and `ArgumentError` where it is of another form than the first one.
        """
        sample = self._sample(row)
        found = dict[int, Any]()
        try:
            _collect(self.layout.structure, sample, found, "the sample")
            small, large = list[Any](), list[Any]()
            for number, each in enumerate(self.layout.fields):
                value = found[number] if number in found else self.key(row)
                if each.kind == "image":
                    both = self._image(each, value)
                    small.append(both[0])
                    large.append(both[-1])
                    continue
                stored = _number(each, value) if each.kind == "number" else _stored(each, value)
                small.append(stored)
                large.append(stored)
        except _Unlike as unlike:
            raise ArgumentError(
                f"sample {row} ({self.where(row)}): {unlike.what}",
                found=unlike.what,
                expected=unlike.expected,
                cure=unlike.cure,
            ) from unlike.__cause__
        return small, large

    def where(self, row: int) -> str:
        """Say where a sample comes from, for errors."""
        return protocol.where(self._dataset, row) or self.key(row)

    def _sample(self, row: int) -> Any:
        """Return a sample whose images are still encoded where that is all that is to be stored of it."""
        sample = _encoded(self._dataset, row)
        if sample is None:
            sample = self._dataset[row]
        if self._longest is None or not _has_places(sample):
            return sample
        return self._longest(_decoded(sample))

    def _layout_of(self, sample: Any, row: int) -> Layout:
        fields, structure = list[FieldLayout](), None
        images = _image_places(sample)
        try:
            structure = _structure(sample, (), fields, self._how.store, images)
        except _Unlike as unlike:
            raise ArgumentError(
                f"sample {row} ({self.where(row)}): {unlike.what}",
                found=unlike.what,
                expected=unlike.expected,
                cure=unlike.cure,
            ) from None
        if KEY not in {each.name for each in fields}:
            fields.append(FieldLayout(KEY, "text"))
        how = self._how
        return Layout(how.store, structure, tuple(fields), how.classes, how.max_side, how.quality)

    def _image(self, each: FieldLayout, value: Any) -> tuple[Stored, ...]:
        """Return an image as it is stored: in a smart dataset encoded, then as pixels."""
        data, pixels = self._pixels(value)
        if pixels.dtype != np.uint8 or (pixels.ndim, _channels(pixels)) != (each.axes, each.channels):
            said = f"image {each.name!r} is {pixels.dtype} {pixels.shape}"
            raise _Unlike(said, f"uint8, {each.axes} axes and {each.channels} channels as in the first sample", _ALIKE)
        if self._how.store == "raw":
            return (_summed(pixels.tobytes(), pixels.shape),)
        if data is None:
            data = encoded_jpeg(pixels, self._how.quality or 90)
        if self._how.store == "jpeg":
            return (_summed(data),)
        rows, columns = pixels.shape[:2]
        header, plain = f"P{5 if each.channels == 1 else 6}\n{columns} {rows}\n255\n".encode(), pixels.tobytes()
        large = Stored(header + plain, crc32c(plain), sides=(rows, columns), skipped=len(header))
        return _summed(data), large

    def _pixels(self, value: Any) -> tuple[bytes | None, NDArray[Any]]:
        """Return the pixels of an image, scaled; and its bytes where these hold the same pixels."""
        most = 0 if self._longest is None else self._longest.most
        if isinstance(value, Encoded):
            how, native = value.decoding, getattr(extension, "read_image", None)
            if native is not None and how.mode == "RGB":
                found = native(value.data, most, how.max_pixels, how.oriented)
                if found is not None:
                    rows, columns, same, plain = found
                    data = value.data if same else None
                    return data, np.frombuffer(plain, np.uint8).reshape(rows, columns, 3)
            value = value.pixels()
        if not isinstance(value, np.ndarray) or value.ndim not in (2, 3):
            raise _Unlike(f"an image is {shown(value)}", "an array", _ALIKE)
        if self._longest is not None:
            size = self._longest.sides(*value.shape[:2])
            if size != value.shape[:2]:
                value = geometry.resize(value, *size, interpolation="bilinear", antialias=True)
        return None, np.ascontiguousarray(value)


def encoded_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Encode pixels as a JPEG file, by the native extension or by Pillow."""
    native = getattr(extension, "write_jpeg", None)
    data = None if native is None else native(pixels, quality)
    if data is not None:
        return cast("bytes", data)
    try:
        from PIL import Image
    except ImportError as error:
        raise missing("Pillow", extra="images", purpose="encoding images") from error
    file = io.BytesIO()
    flat = pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    Image.fromarray(flat).save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()


class _Unlike(Exception):
    """A part of a sample that cannot be stored."""

    def __init__(self, what: str, expected: str, cure: str) -> None:
        super().__init__(what)
        self.what, self.expected, self.cure = what, expected, cure


_ALIKE = "Give all samples the same form, with dataset.map(function), or pack them as several datasets."
_KINDS = "images, numbers, text, bytes, arrays, and lists and dicts of what JSON holds"


def _encoded(dataset: Any, row: int) -> Any:
    """Return a sample with its images encoded, where its dataset can say it; else None."""
    root, rows = protocol.resolve(dataset, [row])
    read = getattr(root, "read", None)
    if isinstance(root, FieldDataset) and type(root).__getitem__ is FieldDataset.__getitem__ and callable(read):
        place = int(rows[0])
        return {KEY: root._key(place)} | {
            name: Encoded(read(place, name), root._fields.decoding, root._where(place))
            if root.is_image(name)
            else root._value(place, name)
            for name in root.fields
            if root._has(place, name)
        }
    source = protocol.native_source(root)
    if not isinstance(source, Files | Ranges | Bytes) or source.refusal(""):
        return None
    place = int(rows[0])
    where = protocol.where(root, place) or str(place)
    try:
        data = read_file(protocol.path(root, place)) if isinstance(source, Files) else source.read(place)
    except SampleError as error:
        error.at(row)
        raise
    image = Encoded(data, source.decoding, where)
    return image if source.bare else (image, *(label_of(column[place]) for column in source.beside))


def _decoded(sample: Any) -> Any:
    if isinstance(sample, Encoded):
        return sample.pixels()
    if isinstance(sample, dict):
        return {name: _decoded(part) for name, part in sample.items()}
    if isinstance(sample, tuple):
        parts = [_decoded(part) for part in sample]
        return type(sample)(*parts) if hasattr(sample, "_fields") else tuple(parts)
    return sample


def _has_places(sample: Any) -> bool:
    """Say whether parts of a sample beside its image may have places in it."""
    if isinstance(sample, Encoded) or not isinstance(sample, dict | tuple):
        return False
    if isinstance(sample, dict):
        return bool(spatial_part({name: _plain(part) for name, part in sample.items()}, (0, 0)))
    return bool(spatial_part(tuple(map(_plain, sample)), (0, 0)))


def _plain(part: Any) -> Any:
    return 0 if isinstance(part, Encoded) else part


def _image_places(sample: Any) -> set[tuple[Any, ...]]:
    """Return where the arrays of a sample that are images are: itself, the first of a tuple, or "image" of a dict."""
    return {(), ("image",)} if not isinstance(sample, tuple) else {(0,)}


def _channels(pixels: NDArray[Any]) -> int:
    return 1 if pixels.ndim == 2 else int(pixels.shape[2])


def _is_image(value: Any) -> bool:
    return isinstance(value, Encoded) or (
        isinstance(value, np.ndarray)
        and value.dtype == np.uint8
        and (value.ndim == 2 or (value.ndim == 3 and 1 <= value.shape[2] <= 4))
    )


def _structure(value: Any, path: tuple[Any, ...], fields: list[FieldLayout], store: str, images: Any) -> Any:
    """Return the structure of the first sample, and add its fields."""
    if isinstance(value, Encoded):
        pixels = value.pixels()
        return _added(fields, path, "image", axes=pixels.ndim, channels=_channels(pixels))
    if path in images and _is_image(value):
        if store != "raw" and _channels(value) not in (1, 3):
            raise _Unlike(f"an image has {_channels(value)} channels", "1 or 3", 'Pass store="raw".')
        return _added(fields, path, "image", axes=value.ndim, channels=_channels(value))
    if isinstance(value, dict) and (not path or not _is_json(value)):
        for name in value:
            if not isinstance(name, str):
                raise _Unlike(f"a dict has the key {shown(name)}", "keys of text", _ALIKE)
        return [
            "dict",
            [[name, _structure(part, (*path, name), fields, store, images)] for name, part in value.items()],
        ]
    if isinstance(value, tuple):
        return ["tuple", [_structure(part, (*path, n), fields, store, images) for n, part in enumerate(value)]]
    kind, dtype, axes = _kind_of(value)
    return _added(fields, path, kind, dtype, axes=axes)


def _kind_of(value: Any) -> tuple[str, str, int]:
    """Return the kind, the dtype and the axes of a value that is no image and has no parts."""
    if isinstance(value, bool | int | float) and not isinstance(value, np.generic):
        return "number", type(value).__name__, 0
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        if value.dtype.kind in "biuf":
            return "number", value.dtype.str, 0
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
            return "array", value.dtype.newbyteorder("<").str, value.ndim
    elif isinstance(value, str):
        return "text", "", 0
    elif isinstance(value, bytes):
        return "bytes", "", 0
    elif _is_json(value):
        return "json", "", 0
    found = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray | np.generic) else shown(value)
    raise _Unlike(f"a part of it is {found}", _KINDS, "Convert it to an array with dataset.map(function), or drop it.")


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(part) for name, part in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, JSONS) and not isinstance(value, np.generic)


def _added(fields: list[FieldLayout], path: tuple[Any, ...], kind: str, dtype: str = "", **more: int) -> int:
    """Add a field, under the last part of its path, or all of it where that name is taken."""
    taken = {each.name for each in fields} | {SUMS, SIDES}
    number = kind == "number" and path == (1,)
    name = (
        "image" if kind == "image" and path in ((), (0,)) else "label" if number else str(path[-1] if path else "value")
    )
    if name in taken or name.isdigit():
        name = ".".join(map(str, path)) or name
    while name in taken:
        name += "_"
    fields.append(FieldLayout(name, kind, dtype, **more))
    return len(fields) - 1


def _collect(structure: Any, value: Any, found: dict[int, Any], what: str) -> None:
    """Find the value of each field in a sample."""
    if isinstance(structure, int):
        found[structure] = value
        return
    kind, parts = structure
    if kind == "tuple":
        if not isinstance(value, tuple) or len(value) != len(parts):
            raise _Unlike(f"{what} is {_form(value)}", f"a tuple of {len(parts)} as in the first sample", _ALIKE)
        for number, (part, each) in enumerate(zip(parts, value, strict=True)):
            _collect(part, each, found, f"part {number}")
        return
    names = [name for name, _ in parts]
    if not isinstance(value, dict) or value.keys() != set(names):
        raise _Unlike(f"{what} is {_form(value)}", f"a dict of {', '.join(names)} as in the first sample", _ALIKE)
    for name, part in parts:
        _collect(part, value[name], found, f"field {name!r}")


def _form(value: Any) -> str:
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value))}"
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else shown(value)


def _number(each: FieldLayout, value: Any) -> Any:
    kind, dtype, _ = _kind_of(value) if value is not None else ("None", "", 0)
    if (kind, dtype) != ("number", each.dtype) or (each.dtype == "int" and not -(2**63) <= value < 2**63):
        raise _Unlike(
            f"field {each.name!r} is {shown(value)}", f"a number ({each.dtype}) as in the first sample", _ALIKE
        )
    return value


def _stored(each: FieldLayout, value: Any) -> Stored:
    if value is None and each.kind != "json":
        return Stored(None, crc32c(b""), (0,) * each.axes)
    kind, dtype, axes = _kind_of(value)
    if each.kind == "json" and kind in ("text", "number") and _is_json(value):
        kind, dtype = "json", ""
    if (kind, dtype, axes) != (each.kind, each.dtype, each.axes):
        said = (
            f"field {each.name!r} is {value.dtype} {value.shape}" if axes else f"field {each.name!r} is {shown(value)}"
        )
        first = f"{each.kind} {each.dtype} of {each.axes} axes" if each.axes else each.kind
        raise _Unlike(said, f"{first} as in the first sample", _ALIKE)
    made: dict[str, Callable[[Any], bytes]] = {
        "text": lambda text: cast("str", text).encode("utf-8", "surrogatepass"),
        "bytes": bytes,
        "json": lambda held: json.dumps(held, sort_keys=False).encode(),
        "array": lambda array: np.ascontiguousarray(array, each.stored.replace("|u1", "u1")).tobytes(),
    }
    data = made[each.kind](value)
    if len(data) > MOST_BYTES:
        raise _Unlike(
            f"field {each.name!r} has {len(data):,} bytes", f"at most {MOST_BYTES:,}", "Split it, or drop it."
        )
    return _summed(data, value.shape if axes else ())


def _summed(data: bytes, shape: tuple[int, ...] = ()) -> Stored:
    return Stored(data, crc32c(data), shape)
