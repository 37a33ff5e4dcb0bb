"""Photographs: orientation, colours, lenses, and files that are none."""

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from dposer.data.images import read_photo
from dposer.errors import InputError


@pytest.fixture
def pixels() -> np.ndarray:
    picture = np.zeros((24, 40, 3), np.uint8)
    picture[:12, :20] = (255, 0, 0)
    return picture


def test_pixels_are_what_they_are(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(photo.pixels, pixels) and photo.size == (40, 24) and photo.focal is None


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (-1, -1)), (6, (0, -1)), (8, (-1, 0))])
def test_pictures_are_turned_as_their_exif_says(tmp_path: Path, pixels: np.ndarray, orientation: int, corner: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif, quality=95)
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.size == ((40, 24) if orientation < 5 else (24, 40))
    assert photo.pixels[corner][0] > 200
    assert all(photo.pixels[other][0] < 60 for other in {(0, 0), (0, -1), (-1, 0), (-1, -1)} - {corner})


def test_the_lens_is_that_of_the_35_mm_equivalent(tmp_path: Path, pixels: np.ndarray) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 50
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    assert read_photo(tmp_path / "a.jpg").focal == pytest.approx(50 * math.hypot(40, 24) / math.hypot(36, 24))


def test_grey_and_see_through_pictures(tmp_path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    assert np.array_equal(read_photo(tmp_path / "grey.png").pixels, np.repeat(pixels[..., :1], 3, -1))
    alpha = np.concatenate([pixels, np.zeros((24, 40, 1), np.uint8)], -1)
    Image.fromarray(alpha).save(tmp_path / "clear.png")
    assert (read_photo(tmp_path / "clear.png").pixels == 255).all()


def test_what_is_no_picture_is_told(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_text("hello")
    Image.fromarray(pixels).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name in ("a.jpg", "cut.png"):
        with pytest.raises(InputError, match=f"{name}: not a readable picture"):
            read_photo(tmp_path / name)
    with pytest.raises(InputError, match="missing.jpg"):
        read_photo(tmp_path / "missing.jpg")
    monkeypatch.setattr("dposer.data.images._LARGEST", 100)
    with pytest.raises(InputError, match="40 x 24 pixels"):
        read_photo(tmp_path / "whole.png")
