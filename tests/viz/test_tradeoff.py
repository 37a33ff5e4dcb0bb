"""The trade-off plot: every series in its colour, every panel in its place."""

import numpy as np
import pytest

from dposer.errors import InputError
from dposer.viz.tradeoff import TradeoffPoint, tradeoff_plot

BLUE, VERMILION = (0, 114, 178), (213, 94, 0)


def _points(panels: int = 1) -> list[TradeoffPoint]:
    return [
        TradeoffPoint(f"part {i}", name, price, 50 + price / 10, 90, price == 20)
        for i in range(panels)
        for name in "ab"
        for price in (20, 200)
    ]


def _ink(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(image.astype(int) - colour).max(-1) < 12).sum())


def test_pictures_grow_with_the_panels_and_show_every_series() -> None:
    one, four = tradeoff_plot(_points(), scale=0.5), tradeoff_plot(_points(4), scale=0.5)
    assert one.dtype == np.uint8 and one.shape[1] == four.shape[1] == 500 and four.shape[0] > 1.5 * one.shape[0]
    for image in (one, four):
        assert _ink(image, BLUE) > 10 and _ink(image, VERMILION) > 10
    assert _ink(tradeoff_plot(_points()[:2], scale=0.5), VERMILION) == 0


def test_stars_and_lines_are_drawn_where_asked() -> None:
    def draw(**change: object) -> np.ndarray:
        return tradeoff_plot([TradeoffPoint("p", "a", price, 50, 90, **change) for price in (20, 2000)], scale=0.5)  # type: ignore[arg-type]

    assert _ink(draw(), BLUE) > _ink(draw(joined=False), BLUE) + 20  # two lines across the panel
    assert not np.array_equal(draw(), draw(marked=True))


def test_what_cannot_be_drawn_is_told() -> None:
    for bad in ([], [TradeoffPoint("p", "a", 0, 1, 1)], [TradeoffPoint("p", "a", 1, float("nan"), 1)]):
        with pytest.raises(InputError, match="points: .*expected"):
            tradeoff_plot(bad)
