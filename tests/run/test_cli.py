"""The command-line contract: recipes and overrides, and one line with exit code 2 for whatever goes wrong."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dposer.errors import InputError
from dposer.prior.config import PriorConfig
from run._cli import cli, parse, table

RECIPE = Path(__file__).parents[2] / "configs/subvp/amass_scorefc_v2.py"


@dataclass
class Args:
    """A command."""

    source: Path
    config: PriorConfig = field(default_factory=PriorConfig)


def command(args: Args) -> None:
    raise RuntimeError(f"{args}")


def test_a_recipe_is_read_and_single_values_override_it() -> None:
    args = parse(command, ["--source", "a", "--config", str(RECIPE), "--config.model.HIDDEN_DIM", "64"])
    assert args.source == Path("a") and args.config.optim.optimizer == "RAdam" and args.config.model.HIDDEN_DIM == 64
    assert parse(command, [f"--config={RECIPE}", "--source=a"]).config.training.n_iters == 200_000
    assert parse(command, ["--source=a", "--config.training.batch_size=7"]).config.training.batch_size == 7


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("poses.npz: found nothing"), "error: poses.npz: found nothing"),
        (KeyboardInterrupt(), "error: interrupted; no file was left half-written"),
        (OSError(28, "No space left on device", "out.png"), "error: out.png: No space left on device"),
        (MemoryError(), "error: out of memory"),
    ],
)
def test_what_goes_wrong_is_one_line(error: BaseException, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(args: Args) -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        cli(fails, ["--source", "a"])
    (printed,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and printed.startswith(line)


def test_a_flag_that_does_not_exist_or_lacks_its_value() -> None:
    for arguments in (["--source", "a", "--config.model.WIDTH", "3"], ["--sorce", "a"], []):
        with pytest.raises(SystemExit) as ended:
            cli(command, arguments)
        assert ended.value.code == 2
    with pytest.raises(InputError, match="no value given"):
        parse(command, ["--source", "a", "--config"])


def test_tables_line_up() -> None:
    assert table(["name", "mm"], [["leg", "9.5"], ["torso", "10.0"]]).splitlines() == [
        "name     mm", "-----  ----", "leg     9.5", "torso  10.0",
    ]  # fmt: skip
