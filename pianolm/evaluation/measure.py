"""What an evaluation is: one file of this package with a `MEASURE`, chosen by `evaluate=<name>`.

To add one, write `pianolm/evaluation/<name>.py` with a `MEASURE` and `conf/evaluate/<name>.yaml` with `name: <name>`.
The module is imported when a plan is made, so it imports torch inside its functions.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pianolm.evaluation
from pianolm.errors import UserError
from pianolm.stage import Metrics, StageContext

Result = TypeVar("Result")


def _nothing_more(cfg: Mapping[str, Any]) -> list[str]:
    return []


def _anything(cfg: Mapping[str, Any]) -> None:
    """Accepts any configuration."""


@dataclass(frozen=True)
class Measure:
    """An evaluation.

    Attributes:
        name: Value of `evaluate.name`, also the name of its module.
        needs: Roles of the upstream artifacts that it reads.
        run: Measures, writes tables to the run directory and returns the metrics.
        describe: Further lines of a plan, for a configuration.
        model: The stage that trains the model where none is given; None for that of the language model.
        check: Raises `UserError` for what can be known of a configuration before anything is built.
    """

    name: str
    needs: tuple[str, ...]
    run: Callable[[StageContext], Metrics]
    describe: Callable[[Mapping[str, Any]], list[str]] = _nothing_more
    model: str | None = None
    check: Callable[[Mapping[str, Any]], None] = _anything


def find_measure(cfg: Mapping[str, Any]) -> Measure:
    """The measure that `evaluate.name` asks for.

    Raises:
        UserError: There is none of that name.
    """
    name = cfg["evaluate"]["name"]
    modules = [module.name for module in pkgutil.iter_modules(pianolm.evaluation.__path__)]
    measure = _measure(name) if name in modules else None
    if measure is None:
        names = [module for module in modules if _measure(module)]
        raise UserError(f"evaluate.name={name!r} found, expected one of {', '.join(names)}")
    return measure


def _measure(module: str) -> Measure | None:
    measure: Measure | None = getattr(
        importlib.import_module(f"pianolm.evaluation.{module}"), "MEASURE", None
    )
    return measure


def report_progress(
    results: Iterable[Result], pieces: int, describe: Callable[[Sequence[Result]], str]
) -> Iterator[Result]:
    """Passes results on and prints about ten lines on the way.

    Args:
        results: One per piece.
        pieces: How many there will be.
        describe: The line's end, from the results so far.
    """
    so_far: list[Result] = []
    for count, result in enumerate(results, 1):
        so_far.append(result)
        if count * 10 // pieces > (count - 1) * 10 // pieces:
            print(f"evaluate: {count} of {pieces} pieces, {describe(so_far)}", flush=True)
        yield result
