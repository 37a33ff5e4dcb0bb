"""Lays pictures out on one labelled sheet."""

from collections.abc import Sequence

import cv2
import numpy as np

from dposer.errors import InputError
from dposer.viz.render import Image, checked_image

_PAPER, _INK, _QUIET = 255, 40, 90
_SMALLEST_TEXT = 9


def contact_sheet(
    images: Sequence[Image], captions: Sequence[str] | None = None, columns: int | None = None, title: str | None = None
) -> Image:
    """``⌈n / columns⌉ × columns`` equal cells on white, each picture centred in its cell with its caption beneath.

    Args:
        images: n pictures (h_i, w_i, 3) uint8 RGB, of any sizes; a cell is as large as the largest.
        captions: n texts; one too long for its cell is set smaller, then cut short.
        columns: pictures a row; by default all in one row up to six, then the squarest grid.
        title: a line above the grid.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: no images, wrong dtype or shape, or not one caption an image.
    """
    if len(images) == 0:
        raise InputError("images: found none, expected at least one")
    for i, image in enumerate(images):
        checked_image(image, f"images[{i}]")
    if captions is not None and len(captions) != len(images):
        raise InputError(f"captions: found {len(captions)}, expected {len(images)} (one an image)")
    if columns is not None and columns < 1:
        raise InputError(f"columns: found {columns}, expected at least 1")
    columns = min(columns or (len(images) if len(images) <= 6 else int(np.ceil(np.sqrt(len(images))))), len(images))
    rows = -(-len(images) // columns)
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    text = int(np.clip(min(height, width) / 13, _SMALLEST_TEXT + 2, 40))
    margin = text
    below = 2 * text if captions is not None else 0
    above = 3 * text if title else 0
    sheet = np.full((above + margin + rows * (height + below + margin), margin + columns * (width + margin), 3), _PAPER, np.uint8)
    if title:
        write_text(sheet, title, (sheet.shape[1] // 2, margin + above // 2), round(1.4 * text), sheet.shape[1] - 2 * margin, 600, _INK)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        top = above + margin + row * (height + below + margin)
        left = margin + column * (width + margin)
        h, w = image.shape[:2]
        y, x = top + (height - h) // 2, left + (width - w) // 2
        sheet[y : y + h, x : x + w] = image
        if captions is not None:
            write_text(sheet, captions[i], (left + width // 2, top + height + below // 2), text, width, 400, _QUIET)
    return sheet


def trimmed(images: Sequence[Image], margin: int = 8) -> list[Image]:
    """Cut the white border that all pictures of one size share, leaving ``margin`` pixels of it."""
    ink = np.any([image.min(axis=2) < _PAPER for image in images], axis=0)
    if not ink.any():
        return list(images)
    cut = []
    for axis, length in ((1, ink.shape[0]), (0, ink.shape[1])):
        used = np.flatnonzero(ink.any(axis=axis))
        cut.append(slice(max(0, used[0] - margin), min(length, used[-1] + 1 + margin)))
    return [image[tuple(cut)] for image in images]


def write_text(sheet: Image, text: str, middle: tuple[int, int], size: int, room: int, weight: int, ink: int) -> None:
    """Set ``text`` on a picture (h, w, 3), in place, centred on ``middle`` = (x, y).

    Text wider than ``room`` pixels is set smaller, then cut short.

    Args:
        size: height of the letters in pixels.
        weight: 400 is regular, 600 is bold.
        ink: grey level, 0 to 255.
    """
    font = cv2.FontFace("sans")

    def width(text: str, size: int) -> int:
        return int(cv2.getTextSize((0, 0), text, (0, 0), font, size, weight)[2])

    while width(text, size) > room and size > _SMALLEST_TEXT:
        size -= 1
    whole = text
    while width(text, size) > room and whole:
        whole = whole[:-1]
        text = whole.rstrip() + "…"
    cv2.putText(sheet, text, (middle[0] - width(text, size) // 2, middle[1] + round(0.35 * size)), (ink, ink, ink), font, size, weight)
