"""Moves done to an image pixel by pixel in float64: slow, and written without the code that it judges."""

from __future__ import annotations

from typing import Any

import numpy as np

from headrace.image.moves import Cut, InTurn, Mirror, ScalePart, Stay, WithoutSmallBoxes
from headrace.image.warp import Warps


def moved(move: Any, image: np.ndarray) -> np.ndarray:
    """Return an image ``(H, W, C)`` of float64 after a move; scaling is bilinear and antialiased."""
    if isinstance(move, InTurn):
        for part in move.parts:
            image = moved(part, image)
        return image
    if isinstance(move, Warps):
        (part,) = move.parts
        return _mapped(image, np.linalg.inv(np.reshape(part.matrix, (3, 3))), part.size, part.fill)
    if isinstance(move, ScalePart):
        top, left, rows, columns = move.box
        down, across = _weights(rows, move.size[0]), _weights(columns, move.size[1])
        return np.einsum("ai,ijc,bj->abc", down, image[top : top + rows, left : left + columns], across)
    if isinstance(move, Cut):
        top, left, rows, columns = move.box
        out = np.full((rows, columns, image.shape[2]), move.fill, np.float64)
        for row in range(max(0, -top), min(rows, len(image) - top)):
            for column in range(max(0, -left), min(columns, image.shape[1] - left)):
                out[row, column] = image[row + top, column + left]
        return out
    if isinstance(move, Mirror):
        return image[:, ::-1] if move.upright else image[::-1]
    assert isinstance(move, Stay | WithoutSmallBoxes)
    return image


def _mapped(image: np.ndarray, back: np.ndarray, size: tuple[int, int], fill: Any) -> np.ndarray:
    """Return each pixel weighed of the four around the place where it comes from; outside of the image is the fill."""
    rows, columns = image.shape[:2]
    padded = np.full((rows + 2, columns + 2, image.shape[2]), fill, np.float64)
    padded[1:-1, 1:-1] = image
    out = np.full((*size, image.shape[2]), fill, np.float64)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y, below = back @ (column + 0.5, row + 0.5, 1)
            x, y = x / below - 0.5, y / below - 0.5
            left, top = int(np.floor(x)), int(np.floor(y))
            if below > 0 and -1 <= left < columns and -1 <= top < rows:
                four = padded[top + 1 : top + 3, left + 1 : left + 3]
                down, across = np.array([top + 1 - y, y - top]), np.array([left + 1 - x, x - left])
                out[row, column] = np.einsum("i,ijc,j->c", down, four, across)
    return out


def _weights(before: int, after: int) -> np.ndarray:
    """Return how much each of the pixels before counts for each after, (after, before): triangles."""
    scale = before / after
    width = max(scale, 1.0)
    weights = np.zeros((after, before))
    for row in range(after):
        center = (row + 0.5) * scale
        for column in range(max(int(center - width + 0.5), 0), min(int(center + width + 0.5), before)):
            weights[row, column] = max(0.0, 1 - abs((column + 0.5 - center) / width))
    return weights / weights.sum(axis=1, keepdims=True)
