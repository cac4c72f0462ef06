"""`show`: a batch, a loader or a dataset as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import integer, kind_of
from headrace.datasets import facts, protocol
from headrace.errors import ArgumentTypeError, HeadraceError, SampleError
from headrace.figure.drawing import colors_of, name_of, png_of, sheet_of
from headrace.figure.parts import Part, as_array, is_images, part_rows, parts_of, values_of
from headrace.figure.rendered import Figure
from headrace.formatting import count
from headrace.image.sheet import SINGLE_TILE, Single
from headrace.loader import DataLoader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headrace.figure.drawing import Scale

MOST_SHOWN = 64
"""How many images one contact sheet has at most."""
_GRAY = np.full((SINGLE_TILE, SINGLE_TILE, 3), 228, np.uint8)


def show(shown: Any, samples: int = 16, *, classes: Sequence[str] | None = None) -> Figure:
    """Return a figure of a batch, a loader or a dataset: a table of its parts, its images with labels, its text.

    >>> import numpy as np
    >>> import headrace
    >>> images = np.zeros((8, 32, 32, 3), np.uint8)
    >>> dataset = headrace.ArrayDataset(images, np.arange(8) % 2)
    >>> headrace.show(headrace.DataLoader(dataset, batch_size=4, shuffle=True, seed=0))
    batch 0 of epoch 0 of DataLoader(ArrayDataset of 8, batch_size=4, shuffle=True, num_workers=0)
            shape           dtype  smallest  largest
    images  (4, 32, 32, 3)  uint8         0        0
    labels  (4,)            int64         0        1

    The last line of a notebook's cell shows it. ``figure.save("batch.png")`` writes the images to a file, and a name
    that ends with .html the whole figure. ``samples``: how many are shown. ``classes``: the names of labels, where the
    dataset does not know them. Normalized images are shown in their colors if the dataset says how they were
    normalized, else from their smallest to their largest value.

    For a *loader*, the figure shows the first batch of its newest epoch, or without a seed the first samples of the
    dataset. The loader does not advance and draws no random numbers. For a *dataset*, the figure shows samples spread
    evenly from the first to the last; an unreadable sample appears as its error. A *batch* is anything else: arrays,
    tensors, dicts and lists.

    Images need Pillow. Raises `ArgumentTypeError` for an iterator, because the figure would use it up, and what
    reading raises.
    """
    samples = integer("samples", samples, least=1, most=MOST_SHOWN)
    if _is_loader(shown):
        return _of_loader(shown, samples, classes)
    if _is_dataset(shown):
        return _of_dataset(shown, samples, classes)
    if hasattr(shown, "__next__"):
        raise _used_up(shown)
    return _of_batch(shown, samples, classes or [], "")


def _is_loader(shown: Any) -> bool:
    return isinstance(shown, DataLoader) or all(hasattr(shown, name) for name in ("dataset", "collate_fn", "sampler"))


def _is_dataset(shown: Any) -> bool:
    if isinstance(shown, list | tuple | str | bytes | Mapping) or as_array(shown) is not None:
        return False
    return hasattr(shown, "__getitem__") or (protocol.is_iterable(shown) and not hasattr(shown, "__next__"))


def _of_batch(
    batch: Any, samples: int, classes: Sequence[str], title: str, *, source: Any = None, details: Sequence[str] = ()
) -> Figure:
    parts = parts_of(batch)
    sizes = [len(part.value) for part in parts if hasattr(part.value, "__len__") and not _is_scalar(part)]
    number = sizes[0] if sizes else 1
    title = title or f"a batch of {number}"
    sheet = sheet_of(
        parts,
        classes=classes,
        title=title,
        subtitle=f"{min(samples, number)} of {number}" if number > samples else "",
        details=details,
        scale=_normalization(source),
        most=samples,
    )
    texts = tuple((part.name, tuple(values_of(part))) for part in parts if not is_images(part) and not _is_label(part))
    return Figure(title, tuple(part_rows(parts)), texts=tuple(text for text in texts if text[1]), png=sheet)


def _is_scalar(part: Part) -> bool:
    return part.array is not None and part.array.ndim == 0


def _is_label(part: Part) -> bool:
    return part.array is not None and part.array.ndim == 1 and part.array.dtype.kind in "iuf"


def _of_loader(loader: Any, samples: int, classes: Sequence[str] | None) -> Figure:
    names = protocol.classes(loader.dataset) if classes is None else classes
    if isinstance(loader, DataLoader):
        epoch = loader.statistics().epoch
        try:
            batch = loader.replay(epoch=epoch, step=0)
        except SampleError:
            raise
        except HeadraceError:
            pass  # its order cannot start at any position
        else:
            return _of_batch(batch, samples, names, f"batch 0 of epoch {epoch} of {loader!r}", source=loader.dataset)
    batch = _first(loader, loader.batch_size or samples)
    title = f"the first samples of {type(loader).__name__}({type(loader.dataset).__qualname__})"
    return _of_batch(batch, samples, names, title, source=loader.dataset)


def _first(loader: Any, size: int) -> Any:
    """Make a batch of the dataset's first samples as the loader would, without moving the loader."""
    dataset = loader.dataset
    collate = loader.collate_fn if loader.batch_size is not None or loader.batch_sampler is not None else None
    order: dict[str, Any] = {}
    if protocol.is_iterable(dataset):
        if iter(dataset) is dataset:
            raise _used_up(dataset)
    else:
        order = {"sampler": range(min(size, len(dataset)))}
    first: DataLoader[Any] = DataLoader(dataset, size, collate_fn=collate, seed=0, on_error="skip", **order)
    with first:
        return next(iter(first))


def _of_dataset(dataset: Any, samples: int, classes: Sequence[str] | None) -> Figure:
    names = list(protocol.classes(dataset) if classes is None else classes)
    if protocol.is_iterable(dataset):
        batch = _first_of_stream(dataset, samples)
        return _of_batch(batch, samples, names, f"the first samples of {type(dataset).__qualname__}")
    rows = facts.rows(dataset)
    chain = " of ".join(facts.chain(dataset))
    indices = np.unique(np.linspace(0, max(len(dataset) - 1, 0), min(samples, len(dataset))).astype(int)).tolist()
    scale = _normalization(dataset)
    cards: list[Single] = []
    texts: dict[str, list[str]] = {}
    drawn = False
    for index in indices:
        try:
            sample = dataset[index]
        except SampleError as error:
            cards.append(Single(_GRAY, type(error).__name__, error.what))
            continue
        parts = parts_of(sample)
        image = _image_of(parts)
        drawn = drawn or image is not None
        if image is not None:
            cards.append(_card(image, parts, names, scale, protocol.where(dataset, index) or f"sample {index}"))
        for part in parts:
            if part is not image and (image is None or _label(part) is None):
                texts.setdefault(part.name, []).extend(values_of(part, 1) or [_shape(part)])
    title = f"{count(len(indices), 'sample')} of {len(dataset):,}, of {chain}"
    png = png_of(cards, title=chain, subtitle=title) if drawn else None
    shown = tuple((name, tuple(values[:samples])) for name, values in texts.items())
    return Figure(title, (("dataset", chain), *rows), left=2, texts=shown, png=png)


def _image_of(parts: list[Part]) -> Part | None:
    """Return the part of a sample that is an image."""
    return next((part for part in parts if part.array is not None and is_images(_batched(part))), None)


def _batched(part: Part) -> Part:
    return Part(part.name, np.asarray(part.array)[None])


def _card(image: Part, parts: list[Part], classes: Sequence[str], scale: Scale | None, where: str) -> Single:
    colors, _ = colors_of(np.asarray(image.array)[None], scale)
    label = next((one for one in map(_label, parts) if one is not None), None)
    caption = "" if label is None else name_of(label, classes)
    name = where.replace("\\", "/").rpartition("/")[2]
    height, width = colors.shape[1:3]
    return Single(colors[0], caption, f"{name}, {width} x {height}")


def _label(part: Part) -> int | None:
    value = part.value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if part.array is not None and part.array.ndim == 0 and part.array.dtype.kind in "iu" else None


def _shape(part: Part) -> str:
    array = part.array
    if array is None or not array.ndim:
        return str(part.value)
    return f"{array.shape} {array.dtype}"


def _first_of_stream(stream: Iterable[Any], samples: int) -> Any:
    loop = iter(stream)
    if loop is stream:
        raise _used_up(stream)
    loader: DataLoader[Any] = DataLoader(stream, samples, seed=0)
    with loader:
        return next(iter(loader))


def _used_up(shown: Any) -> ArgumentTypeError:
    return ArgumentTypeError(
        f"showing would use up an iterator; got {kind_of(shown)}",
        found=kind_of(shown),
        expected="a batch, a loader or a dataset",
        cure="Pass the next batch: headrace.show(next(iterator)).",
    )


def _normalization(dataset: Any) -> Scale | None:
    """Return mean and standard deviation of the only Normalize, ours or torchvision's, that a dataset applies."""
    found: list[Scale] = []
    for _ in range(facts.DEEPEST):
        for function in _functions(dataset):
            if type(function).__name__ == "Normalize":
                found += [(np.atleast_1d(function.mean), np.atleast_1d(function.std))]
        dataset = next((getattr(dataset, name) for name in ("base", "dataset") if hasattr(dataset, name)), None)
        if dataset is None:
            break
    return found[0] if len(found) == 1 else None


def _functions(dataset: Any) -> Iterable[Any]:
    ahead = [*getattr(dataset, "functions", ()), *filter(None, [getattr(dataset, "transform", None)])]
    while ahead:
        function = ahead.pop(0)
        inner = getattr(function, "transforms", None)
        if isinstance(inner, list | tuple):
            ahead += inner
        else:
            yield function
