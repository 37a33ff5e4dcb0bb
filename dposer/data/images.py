"""Photographs, as they are meant to be looked at."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dposer.errors import InputError
from dposer.files import PathLike, existing_file

_LARGEST = 100_000_000
"""Pixels."""
_DIAGONAL_35MM = math.hypot(36, 24)


@dataclass(frozen=True)
class Photo:
    """A picture, upright, and what its file tells of the lens."""

    pixels: np.ndarray
    """(h, w, 3) uint8 RGB."""
    focal: float | None
    """Focal length in pixels; None if the file does not tell."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]


def read_photo(path: PathLike) -> Photo:
    """Read a picture in any common format: turned as its EXIF says, grey made RGB, transparency laid on white.

    The focal length is that of EXIF's 35 mm equivalent: :math:`f = f_{35} \\sqrt{w^2 + h^2} / \\sqrt{36^2 + 24^2}`.

    Raises:
        InputError: missing, damaged, no picture, or of more than 100 megapixels.
    """
    path = existing_file(path, "a picture")
    try:
        with Image.open(path) as image:
            if image.width * image.height > _LARGEST:
                raise InputError(f"{path}: {image.width} x {image.height} pixels, expected at most 100 megapixels; scale it down")
            lens = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm)
            upright = ImageOps.exif_transpose(image).convert("RGBA")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"{path}: not a readable picture ({reason}), expected .jpg, .png or the like; write it again") from error
    page = Image.new("RGBA", upright.size, "white")
    pixels = np.array(Image.alpha_composite(page, upright).convert("RGB"))
    focal = float(lens) * math.hypot(*upright.size) / _DIAGONAL_35MM if isinstance(lens, int | float) and lens > 0 else None
    return Photo(pixels, focal)
