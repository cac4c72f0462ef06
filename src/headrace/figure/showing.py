"""`show`: a batch, a loader or a dataset as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import integer, kind_of
from headrace.datasets import facts, protocol
from headrace.errors import ArgumentTypeError, HeadraceError, SampleError
from headrace.figure.drawing import caption_of, colors_of, png_of, sheet_of
from headrace.figure.parts import (
    LABELS,
    Part,
    as_array,
    is_identifier,
    is_images,
    is_soft,
    part_rows,
    parts_of,
    values_of,
)
from headrace.figure.rendered import Figure
from headrace.figure.targets_drawn import bare, kinds_along, mask_names, overlay_of, plain, row_of
from headrace.formatting import count
from headrace.image.kinds import Kinds, declared
from headrace.image.sheet import SINGLE_TILE, Single
from headrace.loader import DataLoader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headrace.figure.drawing import Scale

MOST_SHOWN = 64
"""How many images one contact sheet has at most."""
_GRAY = np.full((SINGLE_TILE, SINGLE_TILE, 3), 228, np.uint8)


def show(shown: Any, samples: int = 16, *, classes: Sequence[str] | None = None, kinds: Any = None) -> Figure:
    """Return a figure of a batch, a loader or a dataset: a table of its parts, its images with labels, its text.

    >>> import numpy as np
    >>> import headrace
    >>> images = np.zeros((8, 32, 32, 3), np.uint8)
    >>> dataset = headrace.ArrayDataset(images, np.arange(8) % 2)
    >>> headrace.show(headrace.DataLoader(dataset, batch_size=4, shuffle=True, seed=0))
    batch 0 of epoch 0 of DataLoader(<ArrayDataset of 8>, batch_size=4, shuffle=True, num_workers=0)
            shape           dtype  smallest  largest
    images  (4, 32, 32, 3)  uint8         0        0
    labels  (4,)            int64         0        1

    The last line of a notebook's cell shows it. ``figure.save("batch.png")`` writes the images to a file, and a name
    that ends with .html the whole figure. ``samples``: how many are shown. ``classes``: the names of labels, where the
    dataset does not know them. Normalized images are shown in their colors if the dataset says how they were
    normalized, else from their smallest to their largest value. A part named "audio", "sound" or "waveform" is drawn
    as curves.

    Masks, boxes with the names of their classes, and keypoints are drawn on the images; soft labels are written as
    "cat 0.7, dog 0.3". ``kinds`` says which fields are what, as for `Compose`: by default what the dataset's own
    `Compose` declares, and the names that need no declaration.

    For a *loader*, the figure shows the first batch of its newest epoch, or without a seed the first samples of the
    dataset. The loader does not advance and draws no random numbers. For a *dataset*, the figure shows samples spread
    evenly from the first to the last; an unreadable sample appears as its error. A *batch* is anything else: arrays,
    tensors, dicts and lists. A single sample is shown too if it has an image of (H, W, 3) or (H, W, 4) bytes.

    Images need Pillow. Raises `ArgumentTypeError` for an iterator, because the figure would use it up, and what
    reading raises.
    """
    samples = integer("samples", samples, least=1, most=MOST_SHOWN)
    given = None if kinds is None else declared(kinds)
    if _is_loader(shown):
        return _of_loader(shown, samples, classes, given)
    if _is_dataset(shown):
        return _of_dataset(shown, samples, classes, given)
    if hasattr(shown, "__next__"):
        raise _used_up(shown)
    return _of_sample(shown, classes or [], given) or _of_batch(shown, samples, classes or [], "", kinds=given)


def _is_loader(shown: Any) -> bool:
    return isinstance(shown, DataLoader) or all(hasattr(shown, name) for name in ("dataset", "collate_fn", "sampler"))


def _is_dataset(shown: Any) -> bool:
    if isinstance(shown, list | tuple | str | bytes | Mapping) or as_array(shown) is not None:
        return False
    return hasattr(shown, "__getitem__") or (protocol.is_iterable(shown) and not hasattr(shown, "__next__"))


def _of_batch(
    batch: Any,
    samples: int,
    classes: Sequence[str],
    title: str,
    *,
    of: str = "",
    source: Any = None,
    kinds: Kinds | None = None,
    details: Sequence[str] = (),
) -> Figure:
    parts = parts_of(batch)
    sizes = [len(part.value) for part in parts if hasattr(part.value, "__len__") and not _is_scalar(part)]
    number = sizes[0] if sizes else 1
    title = title or f"a batch of {number}"
    known = kinds or known_kinds(source)[1]
    subtitle = ". ".join(filter(None, (of, f"{samples} of {number}" if number > samples else "")))
    sheet = _sheet_of_several_sizes(batch, samples, classes, known, source, (title, subtitle)) or sheet_of(
        batch,
        parts,
        classes=classes,
        title=title,
        subtitle=subtitle,
        details=details,
        scale=_normalization(source),
        kinds=known,
        most=samples,
    )
    texts = tuple((part.name, tuple(values_of(part))) for part in parts if not is_images(part) and not _is_label(part))
    whole = f"{title} of {of}" if of else title
    return Figure(whole, tuple(part_rows(parts)), texts=tuple(text for text in texts if text[1]), png=sheet)


def _sheet_of_several_sizes(
    batch: Any, samples: int, classes: Sequence[str], kinds: Kinds | None, source: Any, titles: tuple[str, str]
) -> bytes | None:
    """Draw a batch whose images are a list, of several sizes; None for any other."""
    values = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    images = next((value for value in values if _is_list_of_images(value)), None)
    if images is None:
        return None
    scale, number = _normalization(source), len(images)
    cards = []
    for row, image in enumerate(images[:samples]):
        sample = row_of(batch, number, row)
        parts = [part for part in parts_of(sample) if part.value is not image]
        cards.append(_card(Part("image", as_array(image)), sample, parts, classes, scale=scale, kinds=kinds, where=""))
    return png_of(cards, title=titles[0], subtitle=titles[1])


def _is_list_of_images(value: Any) -> bool:
    arrays = [as_array(one) for one in value] if isinstance(value, list | tuple) else []
    several = len(arrays) > 1 and all(array is not None and array.ndim in (2, 3) for array in arrays)
    return several and all(is_images(Part("image", np.asarray(array)[None])) for array in arrays)


def _is_scalar(part: Part) -> bool:
    return part.array is not None and part.array.ndim == 0


def _is_label(part: Part) -> bool:
    return part.array is not None and part.array.ndim == 1 and part.array.dtype.kind in "iuf"


def _of_loader(loader: Any, samples: int, classes: Sequence[str] | None, kinds: Kinds | None) -> Figure:
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
            title = f"batch 0 of epoch {epoch}"
            return _of_batch(batch, samples, names, title, of=repr(loader), source=loader.dataset, kinds=kinds)
    batch = _first(loader, loader.batch_size or samples)
    of = f"{type(loader).__name__}({type(loader.dataset).__qualname__})"
    return _of_batch(batch, samples, names, "the first samples", of=of, source=loader.dataset, kinds=kinds)


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


def _of_dataset(dataset: Any, samples: int, classes: Sequence[str] | None, kinds: Kinds | None) -> Figure:
    names = list(protocol.classes(dataset) if classes is None else classes)
    if protocol.is_iterable(dataset):
        batch = _first_of_stream(dataset, samples)
        return _of_batch(batch, samples, names, f"the first samples of {type(dataset).__qualname__}", kinds=kinds)
    rows = facts.rows(dataset)
    chain = " of ".join(facts.chain(dataset))
    indices = np.unique(np.linspace(0, max(len(dataset) - 1, 0), min(samples, len(dataset))).astype(int)).tolist()
    scale, kinds = _normalization(dataset), kinds or known_kinds(dataset)[1]
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
            where = protocol.where(dataset, index) or f"sample {index}"
            cards.append(_card(image, sample, parts, names, scale=scale, kinds=kinds, where=where))
        for part in parts:
            if part is not image and (image is None or not (_label(part) is not None or _is_mask(part, image))):
                texts.setdefault(part.name, []).extend(values_of(part, 1) or [_shape(part)])
    title = f"{count(len(indices), 'sample')} of {len(dataset):,}, of {chain}"
    png = png_of(cards, title=chain, subtitle=title) if drawn else None
    shown = tuple((name, tuple(values[:samples])) for name, values in texts.items())
    return Figure(title, (("dataset", chain), *rows), left=2, texts=shown, png=png)


def _of_sample(sample: Any, classes: Sequence[str], kinds: Kinds | None) -> Figure | None:
    """Return the figure of a single sample, known by the bytes of its image; None for a batch."""
    own = sample.values() if isinstance(sample, Mapping) else sample if isinstance(sample, tuple) else [sample]
    arrays = [Part("image", array) for one in own if not isinstance(one, list) and (array := as_array(one)) is not None]
    if any(map(is_images, arrays)) or not any(map(_is_image_of_bytes, arrays)):
        return None
    parts = parts_of(sample)
    image = _image_of(parts)
    if image is None:
        return None
    card = _card(image, sample, parts, classes, scale=None, kinds=kinds, where="")
    return Figure("one sample", tuple(part_rows(parts)), png=png_of([card], title="one sample", subtitle=""))


def _is_image_of_bytes(part: Part) -> bool:
    array = np.asarray(part.array)
    return array.ndim == 3 and array.dtype == np.uint8 and array.shape[-1] in (3, 4) and is_images(_batched(part))


def _image_of(parts: list[Part]) -> Part | None:
    """Return the part of a sample that is an image."""
    return next((part for part in parts if part.array is not None and is_images(_batched(part))), None)


def _batched(part: Part) -> Part:
    return Part(part.name, np.asarray(part.array)[None])


def _card(
    image: Part,
    sample: Any,
    parts: list[Part],
    classes: Sequence[str],
    *,
    scale: Scale | None,
    kinds: Kinds | None,
    where: str,
) -> Single:
    colors, _ = colors_of(np.asarray(image.array)[None], scale)
    height, width = colors.shape[1:3]
    overlay = overlay_of(plain(sample), (height, width), kinds, classes)
    named = sorted(parts, key=lambda part: part.name.rpartition(".")[2] not in LABELS)
    label: Any = next((one for one in map(_label, named) if one is not None), None)
    if label is None:
        soft = (part for part in parts if part.name.rpartition(".")[2] in (*LABELS, "[1]") and is_soft(part.array))
        label = next((part.array for part in soft), None)
    caption = mask_names(overlay, classes) if label is None else caption_of(label, classes)
    name = where.replace("\\", "/").rpartition("/")[2]
    return Single(colors[0], caption, f"{name}, {width} x {height}" if name else f"{width} x {height}", overlay)


def _label(part: Part) -> int | None:
    value = part.value
    if is_identifier(part):
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return int(value) if part.array is not None and part.array.ndim == 0 and part.array.dtype.kind in "iu" else None


def _is_mask(part: Part, image: Part) -> bool:
    """Say whether a part has a number for each pixel of an image, or several masks have."""
    if part.array is None or image.array is None:
        return False
    shape = image.array.shape
    return part.array.ndim in (2, 3) and part.array.shape[-2:] in (shape[:2], shape[-2:])


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
    for function in map(bare, _functions(dataset)):
        if type(function).__name__ == "Normalize":
            found += [(np.atleast_1d(function.mean), np.atleast_1d(function.std))]
    return found[0] if len(found) == 1 else None


def known_kinds(dataset: Any) -> tuple[Kinds | None, Kinds | None]:
    """Return the kinds of a sample's fields before and after the functions of a dataset: declared, or its own.

    >>> from headrace import ArrayDataset
    >>> known_kinds(ArrayDataset([1, 2]))
    (None, None)
    """
    before, after = kinds_along(_functions(dataset))
    own = getattr(_bases(dataset)[-1], "kinds", None)
    if before is None and isinstance(own, Mapping):
        before = declared(own)
        after = after or before
    return before, after


def _bases(dataset: Any) -> list[Any]:
    """Return a dataset and those that it is a view of, from the outermost inwards."""
    found = [dataset]
    while len(found) < facts.DEEPEST:
        dataset = next((getattr(dataset, name) for name in ("base", "dataset") if hasattr(dataset, name)), None)
        if dataset is None:
            break
        found.append(dataset)
    return found


def _functions(dataset: Any) -> list[Any]:
    """Return the functions that a dataset applies to a sample, through its views, in order."""
    functions: list[Any] = []
    for one in _bases(dataset):
        own = [*getattr(one, "functions", ()), *filter(None, [getattr(one, "transform", None)])]
        functions[:0] = _flat(own)
    return functions


def _flat(functions: Iterable[Any]) -> Iterable[Any]:
    """Yield functions, and in place of a chain its parts."""
    for function in functions:
        inner = getattr(function, "transforms", None)
        if isinstance(inner, list | tuple):
            yield from _flat(inner)
        else:
            yield function
