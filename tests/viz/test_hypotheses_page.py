"""The page: sound HTML that needs nothing else, whose numbers are those of the hypotheses."""

import base64
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dposer.body.skeleton import Layout
from dposer.errors import InputError
from dposer.viz.hypotheses import HypothesisCloud
from dposer.viz.hypotheses_page import hypotheses_page, save_hypotheses_page
from tests.hypotheses_data import WRIST, hidden_arm

NASTY = "</script><script>alert('1')</script><!-- \"&amp; \u2028 äö"
_VOID = {"meta", "link", "img", "br", "input"}


class Page(HTMLParser):
    """Elements, checked to be closed in order, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[str] = []
        self.scripts: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def cloud() -> HypothesisCloud:
    return hidden_arm()


def test_the_page_is_sound_and_needs_nothing_else(cloud: HypothesisCloud) -> None:
    text = hypotheses_page(cloud, title="somebody", pictures={0: np.zeros((4, 6, 3), np.uint8)})
    page = Page(text)
    assert text.startswith("<!doctype html>") and page.found.count("script") == 2 and page.found.count("canvas") == 1
    assert "http://" not in text and "https://" not in text and not page.addresses and "@DATA@" not in text
    assert "import(" not in page.scripts[1] and "fetch(" not in page.scripts[1] and "innerHTML" not in page.scripts[1]


def test_numbers_come_back(cloud: HypothesisCloud) -> None:
    data = Page(hypotheses_page(cloud, names=("a", "b"), columns={"plausible, %": 7.125 * np.ones((2, 3))}, shown=10)).data
    assert [frame["name"] for frame in data["frames"]] == ["a", "b"] and data["columns"] == ["plausible, %"]
    frame = data["frames"][1]
    assert len(frame["hypotheses"]) == 10 and frame["columns"] == [["7.12"]] * 3 and frame["picture"] is None
    np.testing.assert_allclose(np.reshape(frame["hypotheses"], (-1, 17, 3))[[0, -1]], 1000 * cloud.hypotheses[1, [0, -1]], atol=0.51)
    for name in ("pose", "truth", "mean"):
        np.testing.assert_allclose(np.reshape(frame[name], (17, 3)), 1000 * getattr(cloud, name)[1], atol=0.51)
    np.testing.assert_allclose(frame["weights"], cloud.weights[1], atol=1e-4)
    xx, xy, xz, yy, yz, zz = np.array(frame["covariance"]).T
    np.testing.assert_allclose(np.stack((xx, yy, zz)).sum(0) ** 0.5, 1000 * cloud.spread[1], atol=0.1)
    np.testing.assert_allclose(yz[WRIST], 1e6 * cloud.covariance[1, WRIST, 1, 2], atol=0.1)
    assert frame["ambiguous"] == cloud.ambiguous[1].tolist() and frame["apart"][WRIST] == pytest.approx(750, abs=10)
    assert data["sides"][WRIST] == "left" and data["joints"][WRIST] == "left wrist" and len(data["edges"]) == 16
    assert Page(hypotheses_page(hidden_arm(1, truth=False))).data["frames"][0]["truth"] is None


def test_names_cannot_break_out(cloud: HypothesisCloud) -> None:
    layout = Layout("odd", (NASTY, *cloud.layout.joints[1:]), cloud.layout.edges)
    odd = HypothesisCloud.of(layout, cloud.hypotheses, vars(cloud))
    text = hypotheses_page(odd, title=NASTY, notes=[NASTY], names=[NASTY, "@DATA@"], columns={NASTY: np.ones((2, 3))})
    page = Page(text)
    assert page.found.count("script") == 2 and "alert(" not in page.scripts[1] and "<!--" not in text
    data = page.data
    assert data["title"] == data["notes"][0] == data["frames"][0]["name"] == data["columns"][0] == data["joints"][0] == NASTY
    assert data["frames"][1]["name"] == "@DATA@"


def test_pictures_are_inside(cloud: HypothesisCloud, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    save_hypotheses_page(tmp_path / "page.html", cloud, pictures={1: picture})
    address = Page((tmp_path / "page.html").read_text("utf-8")).data["frames"][1]["picture"]
    kind, _, content = address.partition(",")
    assert kind == "data:image/png;base64"
    back = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(cv2.cvtColor(back, cv2.COLOR_BGR2RGB), picture)


def test_what_does_not_go_together_is_refused(cloud: HypothesisCloud) -> None:
    for options, complaint in (
        ({"names": ["a"]}, "1 names"),
        ({"pictures": {2: np.zeros((2, 2, 3), np.uint8)}}, "of frame 2"),
        ({"columns": {"p": np.ones((2, 9))}}, "columns: p of shape"),
        ({"columns": {"p": np.full((2, 3), np.nan)}}, "columns: p"),
        ({"shown": 0}, "0 hypotheses"),
    ):
        with pytest.raises(InputError, match=complaint):
            hypotheses_page(cloud, **options)  # type: ignore[arg-type]
