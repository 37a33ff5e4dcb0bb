"""What every command line shares: typed flags, recipe files, one clear line and exit code 2 on bad input."""

import dataclasses
import inspect
import logging
import os
import sys
import typing
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
import tyro
from tqdm import tqdm

from dposer.config import read_config
from dposer.errors import InputError
from dposer.files import atomic_path
from dposer.prior.convert import PUBLISHED_SUFFIXES
from dposer.prior.pose_prior import PosePrior

T = TypeVar("T")


def cli(main: Callable[[Any], None], argv: Sequence[str] | None = None) -> None:
    """Parse the command line into the dataclass that ``main`` takes, run it, and end as the contract says.

    If the dataclass has a field ``config``, itself a dataclass of settings, ``--config FILE`` reads that recipe and
    ``--config.section.key=value`` overrides single values of it.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        main(parse(main, arguments))
        sys.stdout.flush()
    except InputError as error:
        _end(str(error))
    except KeyboardInterrupt:
        _end("interrupted; no file was left half-written")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _end(f"{name}{error.strerror or error}; check the path, its permissions and the free disk space")
    except MemoryError:
        _end("out of memory; ask for fewer samples, hypotheses or a smaller batch")


def parse(main: Callable[[Any], None], arguments: list[str]) -> Any:
    """The parsed arguments of ``main``; leaves with exit code 2 and one line on a bad command line."""
    args_type = next(iter(inspect.signature(main, eval_str=True).parameters.values())).annotation
    default = None
    fields = dataclasses.fields(args_type)
    if any(field.name == "config" for field in fields):
        path, arguments = _pop_flag(arguments, "--config")
        if path is not None:
            needed = {f.name: tyro.MISSING for f in fields if f.default is f.default_factory is dataclasses.MISSING}
            default = args_type(**needed, config=read_config(path, _settings_class(args_type)))
    description = (sys.modules[main.__module__].__doc__ or "").strip()
    return tyro.cli(args_type, args=arguments, default=default, description=description, prog=f"python -m {_module_name(main)}")


def _settings_class(args_type: type) -> type:
    """Of the field ``config``, which may be optional."""
    hint = typing.get_type_hints(args_type)["config"]
    return next(kind for kind in (*typing.get_args(hint), hint) if isinstance(kind, type) and dataclasses.is_dataclass(kind))


def _module_name(main: Callable[[Any], None]) -> str:
    specification = getattr(sys.modules[main.__module__], "__spec__", None)
    return specification.name if specification else main.__module__


def _pop_flag(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """Take ``flag VALUE`` or ``flag=VALUE`` out of the arguments."""
    for i, argument in enumerate(arguments):
        if argument == flag:
            if i + 1 == len(arguments):
                raise InputError(f"{flag}: no value given, expected a file; see configs/ for examples")
            return arguments[i + 1], arguments[:i] + arguments[i + 2 :]
        if argument.startswith(flag + "="):
            return argument[len(flag) + 1 :], arguments[:i] + arguments[i + 1 :]
    return None, arguments


def _end(message: str) -> None:
    for bar in list(_BARS):
        bar.close()  # else it would redraw itself below the message
    sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A plain text table, numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    numeric = [all(_is_number(row[i]) for row in cells[1:]) for i in range(len(header))]
    lines = ["  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)).rstrip() for row in cells]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def _is_number(text: str) -> bool:
    try:
        float(text.split()[0].rstrip("%x×") if text.split() else "-1")
    except ValueError:
        return text in ("-", "")
    return True


def pick_device(name: str) -> torch.device:
    """``auto`` (CUDA where there is any) or a device by name; raises :class:`InputError` if it is not there."""
    name = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: not available ({str(error).splitlines()[0][:80]}); use auto or cpu") from error
    return device


def load_prior(path: Path | None, data: Path | None, device: torch.device) -> PosePrior:
    """The prior of ``path`` (None: the one that ships).

    Published weights lie apart from their normaliser, which the reference keeps with its training data: it is looked for
    in ``data``/train, ``data`` being a prepared set.
    """
    published = path is not None and path.suffix.lower() in PUBLISHED_SUFFIXES
    there = published and data is not None and any((data / "train").glob("*_normalize*.pt"))
    return PosePrior.from_pretrained(path, device, data / "train" if data is not None and there else None)


def writable_folder(path: Path) -> Path:
    """Make the folder and check that it can be written to, before any work is done."""
    with atomic_path(path / ".writable"):
        pass
    (path / ".writable").unlink(missing_ok=True)
    return path


def progress_bar(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """A progress bar on standard error around ``items``."""
    bar = tqdm(items, desc=description, total=total)
    _BARS.add(bar)
    return iter(bar)


def step_bar(description: str) -> Callable[[int, int], None]:
    """A progress bar that is told (done, total)."""
    bar = tqdm(desc=description, unit="step")
    _BARS.add(bar)

    def update(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done == total:
            bar.close()

    return update


_BARS: "weakref.WeakSet[tqdm[Any]]" = weakref.WeakSet()
