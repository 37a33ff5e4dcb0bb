"""Recipe files are read, never executed, and every mistake in them is named."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dposer.config import build, read_config
from dposer.errors import InputError
from dposer.lifting.config import LiftingConfig
from dposer.prior.config import PriorConfig

RECIPES = sorted((Path(__file__).parents[1] / "configs").rglob("*.py"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_reads_and_survives_a_round_trip(path: Path) -> None:
    settings = LiftingConfig if path.parent.name == "lifting" else PriorConfig
    config = read_config(path, settings)
    assert settings.from_dict(config.to_dict(), str(path)) == config


def test_the_published_recipe_is_the_default() -> None:
    path = Path(__file__).parents[1] / "configs/subvp/amass_scorefc_continuous.py"
    assert read_config(path, PriorConfig) == PriorConfig()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("config = PriorConfig(seed=__import__('os').getpid())", "seed = {}, expected int"),
        ("import os\nos.getpid()\nconfig = PriorConfig()", "nothing but one"),
        ("config = PriorConfig(sed=1)", "unknown key sed"),
        ("config = PriorConfig(model=ModelConfig(HIDDEN_DIM='big'))", "HIDDEN_DIM = 'big', expected int"),
        ("config = PriorConfig(training=TrainingConfig(sde='ddpm'))", "sde = 'ddpm', expected 'vpsde'"),
        ("config = PriorConfig(data=DataConfig(mirror=1))", "mirror = 1, expected bool"),
        ("config = PriorConfig(", "not Python syntax"),
        ("x = 1", "nothing but one"),
    ],
)
def test_mistakes_are_one_clear_line(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "recipe.py"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint) as caught:
        read_config(path, PriorConfig)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@given(st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("recipes") / "recipe.py"
    path.write_text(text, encoding="utf-8", errors="replace")
    with pytest.raises(InputError):
        read_config(path, PriorConfig)


def test_integers_become_floats_where_floats_are_meant() -> None:
    @dataclasses.dataclass
    class Section:
        rate: float = 0.0
        limit: int | None = None

    assert build(Section, {"rate": 1, "limit": None}, "here") == Section(1.0)
    with pytest.raises(InputError, match="limit = 'x'"):
        build(Section, {"limit": "x"}, "here")
