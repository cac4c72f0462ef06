"""Writers of shards, for conversion: what each format can hold, and its bytes."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import ArgumentTypeError, missing
from headrace.formats.shard import is_integer_field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Values = Mapping[str, Any]

IMAGES = {b"\xff\xd8\xff": "jpg", b"\x89PNG\r\n\x1a\n": "png", b"GIF8": "gif", b"BM": "bmp"}
"""Formats of images, by the bytes that they begin with."""

_ENDINGS = frozenset({"bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"})
_OTHERS = frozenset({"json", "npy", "text", "transcript", "txt"})
_ARROW = (bytes, str, int, float, list, dict, np.ndarray, type(None))
_MDS = {int: ("int", 8), float: ("float64", 8), str: ("str", None), bytes: ("bytes", None)}


def image_kind(data: bytes) -> str | None:
    r"""Return the usual ending of an encoded image, by its first bytes; None for anything else.

    >>> image_kind(b"\xff\xd8\xff\xe0"), image_kind(b"RIFF\0\0\0\0WEBPVP8 "), image_kind(b"text")
    ('jpg', 'webp', None)
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*"):
        return "tif"
    return next((kind for head, kind in IMAGES.items() if data.startswith(head)), None)


def plain(value: Any) -> Any:
    """Return a NumPy scalar as the number of Python's that it is; anything else as it is."""
    return value.item() if isinstance(value, np.generic) and value.dtype.kind in "biuf" else value


def members(values: Values, image: str | None = None) -> dict[str, bytes]:
    """Return the members of a sample in a tar shard, by the ending that says what is in them.

    >>> members({"label": 3, "text": "a cat", "cls": 1})
    {'label.cls': b'3', 'text': b'a cat', 'cls': b'1'}

    ``image`` is the ending of images, whatever their own is: all samples should have the same fields. Raises
    `ArgumentTypeError` for a value that no ending stands for.
    """
    found = dict[str, bytes]()
    for name, value in values.items():
        field, data = _member(name.replace("/", "_"), plain(value), image)
        found[field] = data
    return found


def _member(name: str, value: Any, image: str | None) -> tuple[str, bytes]:
    last = name.rpartition(".")[2].lower()
    if isinstance(value, bytes):
        kind = image_kind(value)
        fits = last in _ENDINGS if kind else last not in _ENDINGS | _OTHERS and not is_integer_field(last)
        return (name if fits else f"{name}.{(image or kind) if kind else 'bin'}"), value
    if isinstance(value, bool) or value is None or isinstance(value, float | list | dict):
        return (name if last == "json" else f"{name}.json"), json.dumps(value).encode()
    if isinstance(value, int):
        return (name if is_integer_field(last) else f"{name}.cls"), str(value).encode()
    if isinstance(value, str):
        return (name if last in ("txt", "text") else f"{name}.txt"), value.encode()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        stream = io.BytesIO()
        np.save(stream, value, allow_pickle=False)
        return (name if last == "npy" else f"{name}.npy"), stream.getvalue()
    raise _unheld("tar", name, value)


def write_tar(path: Path, samples: Sequence[tuple[str, Mapping[str, bytes]]]) -> None:
    """Write a tar shard of samples, each a key and its members; the same samples give the same bytes."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for key, each in samples:
            for name, data in each.items():
                member = tarfile.TarInfo(f"{key}.{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


def mds_columns(values: Values) -> list[tuple[str, str, int | None]]:
    """Return the columns of an MDS shard that hold such values: name, encoding and size of each, sorted by name.

    >>> mds_columns({"text": "a", "label": 3})
    [('label', 'int', 8), ('text', 'str', None)]

    Raises `ArgumentTypeError` for a value that no encoding but a pickle holds.
    """
    return [(name, *_encoding(name, plain(values[name]))) for name in sorted(values)]


def _encoding(name: str, value: Any) -> tuple[str, int | None]:
    if isinstance(value, bytes) and image_kind(value):
        return "jpeg", None  # which is decoded by what is in it, there too
    plainly = _MDS.get(type(value))
    if plainly is not None:
        return plainly
    if isinstance(value, np.ndarray) and value.dtype.kind in "iuf" and value.size:
        return f"ndarray:{value.dtype.name}:{','.join(map(str, value.shape))}", value.nbytes
    if isinstance(value, list | dict | bool) or value is None:
        return "json", None
    raise _unheld("MDS", name, value)


def _mds_bytes(encoding: str, value: Any) -> bytes:
    value = plain(value)
    if encoding == "int":
        return struct.pack("<q", value)
    if encoding == "float64":
        return struct.pack("<d", value)
    if encoding == "json":
        return json.dumps(value).encode()
    if isinstance(value, np.ndarray):
        return np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"))).tobytes()
    return value.encode() if isinstance(value, str) else bytes(value)


def write_mds(path: Path, columns: Sequence[tuple[str, str, int | None]], samples: Sequence[Values]) -> dict[str, Any]:
    """Write an MDS shard that is not compressed; return what `index.json` says of it.

    Raises `ArgumentTypeError` for a sample whose values do not fit the columns.
    """
    rows = []
    for values in samples:
        own = mds_columns(values)
        if own != list(columns):
            raise ArgumentTypeError(
                "samples differ in their fields",
                found=str(own),
                expected=str(list(columns)),
                cure="Choose fields that all samples have, of one type and shape, with --fields.",
            )
        parts = [_mds_bytes(encoding, values[name]) for name, encoding, _ in columns]
        sizes = [
            struct.pack("<I", len(part)) for part, (_, _, size) in zip(parts, columns, strict=True) if size is None
        ]
        rows.append(b"".join(sizes) + b"".join(parts))
    names, encodings, fixed = (list(each) for each in zip(*columns, strict=True))
    told = {"column_names": names, "column_encodings": encodings, "column_sizes": fixed}
    config = json.dumps({"version": 2, "format": "mds", "hashes": [], "size_limit": 1 << 26, **told}, sort_keys=True)
    begin = 4 * (len(rows) + 2) + len(config.encode())
    offsets = np.cumsum([begin, *map(len, rows)])
    if offsets[-1] > 0xFFFFFFFF:
        raise ArgumentTypeError(
            f"a shard of {offsets[-1]:,} bytes",
            found=int(offsets[-1]),
            expected="at most 4 GiB, which offsets of MDS reach",
            cure="Give fewer samples a shard with --samples.",
        )
    head = struct.pack("<I", len(rows)) + offsets.astype("<u4").tobytes() + config.encode()
    path.write_bytes(head + b"".join(rows))
    raw = {"basename": path.name, "bytes": int(offsets[-1]), "hashes": {}}
    about = {"version": 2, "format": "mds", "samples": len(rows), "raw_data": raw, "zip_data": None}
    return {**about, "compression": None, "hashes": [], "size_limit": 1 << 26, **told}


def write_arrow(path: Path, samples: Sequence[Values], classes: Sequence[str] = ()) -> None:
    """Write an Arrow file with the types that Hugging Face's `datasets` gives these values, by pyarrow.

    The one column of integers has the names of ``classes``, if there are any. Raises `MissingDependency` without
    pyarrow, and `ArgumentTypeError` for samples that Arrow has no common type for.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing("pyarrow", extra="arrow", purpose="writing Arrow files") from error
    columns, features = dict[str, Any](), dict[str, Any]()
    integers = [name for name, value in samples[0].items() if type(plain(value)) is int]
    for name in samples[0]:
        column = [plain(values.get(name)) for values in samples]
        for value in column:
            if not isinstance(value, _ARROW) or (isinstance(value, np.ndarray) and value.dtype.hasobject):
                raise _unheld("Arrow", name, value)
        features[name] = _feature(column, classes if integers == [name] else ())
        if features[name]["_type"] == "Image":
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            columns[name] = pa.array([{"bytes": data, "path": None} for data in column], kind)
            continue
        try:
            columns[name] = pa.array([one.tolist() if isinstance(one, np.ndarray) else one for one in column])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise _unheld("Arrow", name, column[0], f": {error}") from error
    told = {"info": {"features": {name: feature for name, feature in features.items() if feature["_type"]}}}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(told)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=1000)


def _feature(column: Sequence[Any], classes: Sequence[str]) -> dict[str, Any]:
    if all(isinstance(value, bytes) and image_kind(value) for value in column):
        return {"_type": "Image"}
    if classes:
        return {"_type": "ClassLabel", "names": list(classes)}
    dtype = {int: "int64", float: "float64", str: "string", bytes: "binary", bool: "bool"}.get(type(column[0]))
    return {"_type": "Value", "dtype": dtype} if dtype else {"_type": ""}


def _unheld(name: str, field: str, value: Any, why: str = "") -> ArgumentTypeError:
    kind = type(value).__name__
    return ArgumentTypeError(
        f"{name} cannot hold field {field!r}{why}",
        found=kind,
        expected="bytes, numbers, text, arrays of numbers, or values of JSON",
        cure="Leave it out: name the other fields with --fields.",
    )
