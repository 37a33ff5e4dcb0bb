import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.errors import InputError
from dposer.viz import contact_sheet
from dposer.viz.sheet import trimmed


def tiles(count, height=60, width=40):
    return [np.full((height, width, 3), 10 + i, np.uint8) for i in range(count)]


@given(st.integers(1, 12), st.none() | st.integers(1, 14))
@settings(max_examples=25, deadline=None)
def test_every_picture_is_on_the_sheet_whole_and_in_reading_order(count, columns):
    sheet = contact_sheet(tiles(count), columns=columns)
    corners = []
    for i in range(count):
        rows, cols = np.nonzero((sheet == 10 + i).all(-1))
        assert len(rows) == 60 * 40
        assert (np.ptp(rows), np.ptp(cols)) == (59, 39)
        corners.append((rows.min(), cols.min()))
    assert corners == sorted(corners)
    assert max(corners.count(c) for c in corners) == 1
    if columns is not None:
        assert len({column for _, column in corners}) == min(columns, count)


def test_margins_are_equal_on_all_sides_and_between():
    rows, columns = ((contact_sheet(tiles(6), columns=3) == 255).all(-1).all(axis) for axis in (1, 0))
    for line in (rows, columns):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line, [0]])))
        gaps = edges[1::2] - edges[::2]
        assert len(set(gaps.tolist())) == 1


def test_pictures_of_different_sizes_are_centred_in_equal_cells():
    sheet = contact_sheet([tiles(1)[0], np.full((20, 20, 3), 99, np.uint8)])
    rows, _ = np.nonzero((sheet == 99).all(-1))
    assert rows.mean() == pytest.approx((sheet.shape[0] - 1) / 2, abs=0.5)


def test_captions_and_title_stay_in_their_places():
    plain = contact_sheet(tiles(2, 200, 150))
    texts = ["left_leg · 1", "a caption that is much too long for the narrow cell it belongs to, however small it is set"]
    sheet = contact_sheet(tiles(2, 200, 150), texts, title="Completion")
    assert sheet.shape[1] == plain.shape[1]
    assert sheet.shape[0] > plain.shape[0]
    ink = (sheet > 15).all(-1) & (sheet < 200).any(-1)
    rows, columns = np.nonzero(ink)
    picture_rows, picture_columns = np.nonzero((sheet == 10).all(-1))
    assert rows.min() < picture_rows.min()
    assert rows.max() > picture_rows.max()
    below = columns[rows > picture_rows.max()]
    assert below.min() >= picture_columns.min()
    assert below.max() < sheet.shape[1] - picture_columns.min()
    gap = slice(picture_columns.max() + 1, picture_columns.max() + 1 + picture_columns.min())
    assert not ink[picture_rows.max() + 1 :, gap].any()


def test_bad_input_is_named():
    with pytest.raises(InputError, match="images: found none"):
        contact_sheet([])
    with pytest.raises(InputError, match=r"images\[1\]: found float64"):
        contact_sheet([tiles(1)[0], np.zeros((3, 3, 3))])
    with pytest.raises(InputError, match="captions: found 1, expected 2"):
        contact_sheet(tiles(2), ["one"])
    with pytest.raises(InputError, match="columns"):
        contact_sheet(tiles(2), columns=0)


def test_trimming_cuts_what_is_white_in_all_pictures() -> None:
    first, second = np.full((2, 100, 60, 3), 255, dtype=np.uint8)
    first[20:30, 10:20], second[50:60, 30:40] = 0, 0
    cut = trimmed([first, second], margin=5)
    assert [image.shape for image in cut] == [(50, 40, 3)] * 2
    assert (cut[0][5:15, 5:15] == 0).all() and (cut[1][35:45, 25:35] == 0).all()
    assert trimmed([np.full((4, 4, 3), 255, dtype=np.uint8)])[0].shape == (4, 4, 3)
