"""What becomes of the bytes of a field: a decoder for each kind, found by the last part of the field's name."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import refused, shown
from headrace.context.timing import timed
from headrace.datasets.raw_images import IMAGE_KINDS, images_of
from headrace.errors import ArgumentTypeError, SampleError
from headrace.formats.npy import header
from headrace.formats.shard import INTEGER_FIELDS, integer_of
from headrace.image.decoder import decode_as

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from headrace.image.decoding import Decoding

    Decoder = Callable[[bytes], Any]

IMAGES = frozenset({"bmp", "gif", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "ppm", "tif", "tiff", "webp"})
TEXTS = frozenset({"text", "transcript", "txt"})
JSONS = frozenset({"json", "jsn"})
NAMED = IMAGES | TEXTS | JSONS | INTEGER_FIELDS | {"npy"}
"""Names of kinds that a decoder may be given by."""

FIX = "Fix the field, pass decoders={{{name!r}: None}} for its bytes, or leave it out with fields=."


class Fields:
    """The decoders of a dataset's fields.

    An image (``jpg``, ``png``, …) becomes an array as the dataset's ``decoding`` says, ``cls`` and its like an int,
    ``txt`` a str, ``json`` what `json.loads` gives, ``npy`` an array (never of Python objects, which are pickled).
    Everything else stays bytes. Nothing is ever unpickled.

    ``decoders`` come first: by the whole name, then by its last part; each is a function of the bytes, the name of one
    of these kinds, or None for the bytes themselves. ``kinds`` say what fields hold whose format declares it; elsewhere
    the last part of the name says it. ``readers``: what reads the format's own kinds.
    """

    def __init__(
        self,
        decoding: Decoding,
        decoders: Mapping[str, Decoder | str | None],
        kinds: Mapping[str, str] | None = None,
        readers: Mapping[str, Decoder] | None = None,
    ) -> None:
        self.decoding = decoding
        self.decoders = {name: _checked(name, decoder) for name, decoder in decoders.items()}
        self.kinds, self.readers = dict(kinds or {}), dict(readers or {})
        self._warned = set[str]()

    def is_image(self, name: str) -> bool:
        """Say whether a field is decoded as an image, by headrace."""
        return self.kind(name) in IMAGES

    def has_own(self, name: str) -> bool:
        """Say whether a decoder was given for a field."""
        return self._own(name) is not _NONE

    def is_integer(self, name: str) -> bool:
        """Say whether a field whose integers are in the index is read as these."""
        own = self._own(name)
        return own is _NONE or own in INTEGER_FIELDS

    def kind(self, name: str) -> str | None:
        """Return what the bytes of a field are read as; None where a function of the user reads them."""
        own = self._own(name)
        if own is _NONE:
            named = _kind(name)
            return self.kinds.get(name) or (named if named in NAMED else "bytes")
        return own if isinstance(own, str) else None

    def decoded(self, name: str, data: bytes, place: str, kind: str | None = None) -> Any:
        """Return the value of a field; ``place`` names the sample for errors, ``kind`` comes before its own kind."""
        own = self._own(name)
        if own is None or callable(own):
            return data if own is None else own(data)
        kind = kind if kind is not None and own is _NONE else self.kind(name) or "bytes"
        if kind in IMAGES:
            with timed("decode"):
                return decode_as(data, place, self.decoding, self._warned)
        try:
            return self._value(kind, data, place)
        except (ValueError, EOFError, RecursionError, struct.error) as error:
            if isinstance(error, SampleError):
                raise
            what = f"field {name!r} cannot be decoded: {str(error)[:200]}"
            raise SampleError(what, path=place, expected=f"bytes of {kind}", cure=FIX.format(name=name)) from error

    def _value(self, kind: str, data: bytes, place: str) -> Any:
        if kind in self.readers:
            return self.readers[kind](data)
        if kind in IMAGE_KINDS:
            with timed("decode"):
                return images_of(kind, data, place, self.decoding, self._warned)
        if kind in INTEGER_FIELDS:
            return _integer(data)
        if kind in TEXTS:
            return data.decode()
        if kind in JSONS:
            return json.loads(data)
        return array_of(data) if kind == "npy" else data

    def _own(self, name: str) -> Any:
        return self.decoders.get(name, self.decoders.get(_kind(name), _NONE))


def _checked(name: str, decoder: Decoder | str | None) -> Decoder | str | None:
    if decoder is None or callable(decoder) or (isinstance(decoder, str) and decoder in NAMED):
        return decoder
    raise refused(
        f"decoders[{name!r}]",
        decoder,
        f"a function of the bytes, None, or one of {', '.join(sorted(NAMED))}",
        "Pass a function that takes the bytes of the field.",
        ArgumentTypeError,
    )


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def array_of(data: bytes) -> NDArray[Any]:
    """Return the array that the bytes of a ``.npy`` file hold; nothing is allocated for a false shape.

    Format: NEP 1, "A Simple File Format for NumPy Arrays". Raises ValueError for damaged bytes and for Python objects.
    """
    span = header(data, len(data))
    return span.of(np.frombuffer(data, np.uint8)).copy(order="K")


def _integer(data: bytes) -> int:
    value = integer_of(data)
    if value is None:
        raise ValueError(f"{shown(data)} is not an integer of 64 bits")
    return value


_NONE: Any = object()
