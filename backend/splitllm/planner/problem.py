"""The planning problem: what each stage costs on either side, and what must hold.

`problem_from_json` is the one gate for problems written by people or programs; everything behind it
may rely on lengths that agree and on finite numbers that are not negative.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import ProblemError
from ..types import Link

__all__ = ["Link", "Phase", "Placement", "Problem", "Side", "problem_from_json"]

MAX_STAGES: Final = 512
MAX_PHASES: Final = 16
#: Larger numbers (milliseconds, bytes, cost) are mistakes of a unit, not plans.
MAX_NUMBER: Final = 1e15
MAX_NAME: Final = 100


class Side(enum.StrEnum):
    """Where a stage runs."""

    CLIENT = "client"
    SERVER = "server"


#: One side per stage, in the order of the stages.
Placement = tuple[Side, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """One kind of pass through all stages, such as prefill or one decode step.

    Times are milliseconds per pass, bytes are bytes per pass, costs are in any one unit. `weight` is how often the
    phase happens in one request. `link` replaces the problem's link in this phase alone; problems read from JSON
    never have it.
    """

    name: str
    weight: float
    latency_limit_ms: float | None
    client_ms: Sequence[float]
    server_ms: Sequence[float]
    server_cost: Sequence[float]
    input_bytes: Sequence[float]
    output_bytes: float
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Stages to place on client or server so that the server does the least work within every limit.

    Raises:
        ProblemError: a sequence has not one entry per stage, or `pinned` names a stage that does not exist.
    """

    stages: tuple[str, ...]
    phases: tuple[Phase, ...]
    link: Link
    client_memory: Sequence[float]  # bytes that each stage takes on the client
    client_memory_limit: float | None = None
    pinned: Mapping[str, Side] = field(default_factory=dict)
    max_crossings: int | None = None

    def __post_init__(self) -> None:
        count = len(self.stages)
        columns = [("client_memory", self.client_memory)]
        for number, phase in enumerate(self.phases):
            columns += [(f"phases[{number}].{name}", getattr(phase, name)) for name in _PER_STAGE]
        for name, column in columns:
            if len(column) != count:
                raise ProblemError(f"{name} has {len(column)} entries for {count} stages: write one per stage")
        for stage in self.pinned:
            if stage not in self.stages:
                raise ProblemError(f"pinned names {_shown(stage)}, which is not in stages: write a stage's name")

    def pin(self, stage: int) -> Side | None:
        """The side that stage number `stage` is bound to, or None where the planner may choose."""
        return self.pinned.get(self.stages[stage])


_PER_STAGE: Final = ("client_ms", "server_ms", "server_cost", "input_bytes")
_UNITS: Final = {
    "client_ms": "milliseconds",
    "server_ms": "milliseconds",
    "server_cost": "cost",
    "input_bytes": "bytes",
}
_PROBLEM_KEYS: Final = ("stages", "phases", "link", "client_memory", "client_memory_limit", "pinned", "max_crossings")
_PHASE_KEYS: Final = ("name", "weight", "latency_limit_ms", *_PER_STAGE, "output_bytes")
_LINK_UNITS: Final = {
    "up_ms": "milliseconds",
    "down_ms": "milliseconds",
    "up_bytes_per_ms": "bytes per millisecond",
    "down_bytes_per_ms": "bytes per millisecond",
}


def problem_from_json(obj: object) -> Problem:
    """Read a problem in the JSON form of DESIGN.md ("Planner"), already parsed into Python objects.

    `client_memory`, `client_memory_limit`, `pinned` and `max_crossings` may be left out (0 bytes a stage, no limit,
    nothing pinned, no limit); null means "no limit" for every limit.

    Raises:
        ProblemError: one line that names the field and says what to write there.
    """
    top = _object(obj, "the problem", _PROBLEM_KEYS, required=("stages", "phases", "link"))
    stages = _names(top["stages"], "stages", MAX_STAGES)
    raw_phases = _array(top["phases"], "phases", MAX_PHASES)
    phases = tuple(_phase(raw, f"phases[{number}]", len(stages)) for number, raw in enumerate(raw_phases))
    _refuse_twins([phase.name for phase in phases], "phases")
    memory = top.get("client_memory", [0] * len(stages))
    return Problem(
        stages=stages,
        phases=phases,
        link=_link(top["link"]),
        client_memory=_column(memory, "client_memory", len(stages), "bytes"),
        client_memory_limit=_optional(top.get("client_memory_limit"), "client_memory_limit", "bytes"),
        pinned=_pinned(top.get("pinned"), stages),
        max_crossings=_crossings(top.get("max_crossings")),
    )


def _phase(raw: object, where: str, count: int) -> Phase:
    phase = _object(raw, where, _PHASE_KEYS, required=_PHASE_KEYS)
    columns = {name: _column(phase[name], f"{where}.{name}", count, _UNITS[name]) for name in _PER_STAGE}
    return Phase(
        name=_name(phase["name"], f"{where}.name"),
        weight=_number(phase["weight"], f"{where}.weight", "passes in one request"),
        latency_limit_ms=_optional(phase["latency_limit_ms"], f"{where}.latency_limit_ms", "milliseconds"),
        client_ms=columns["client_ms"],
        server_ms=columns["server_ms"],
        server_cost=columns["server_cost"],
        input_bytes=columns["input_bytes"],
        output_bytes=_number(phase["output_bytes"], f"{where}.output_bytes", "bytes"),
    )


def _link(raw: object) -> Link:
    link = _object(raw, "link", _LINK_UNITS, required=_LINK_UNITS)
    figures = {name: _number(link[name], f"link.{name}", unit) for name, unit in _LINK_UNITS.items()}
    for name in ("up_bytes_per_ms", "down_bytes_per_ms"):
        if figures[name] <= 0:
            raise ProblemError(f"link.{name} is 0: write a bandwidth above 0, in bytes per millisecond")
    return Link(**figures)


def _pinned(raw: object, stages: Collection[str]) -> dict[str, Side]:
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ProblemError(f'pinned is {_shown(raw)}: write an object such as {{"head": "server"}}')
    pinned = {}
    for stage, side in raw.items():
        if stage not in stages:
            raise ProblemError(f"pinned names {_shown(stage)}, which is not in stages: write a stage's name")
        if side not in ("client", "server"):
            raise ProblemError(f'pinned.{stage} is {_shown(side)}: write "client" or "server"')
        pinned[stage] = Side(side)
    return pinned


def _crossings(raw: object) -> int | None:
    if raw is None:
        return None
    whole = isinstance(raw, int) or (isinstance(raw, float) and raw.is_integer())
    if isinstance(raw, bool) or not whole or not 0 <= raw <= MAX_NUMBER:  # type: ignore[operator] # `whole` says number
        raise ProblemError(f"max_crossings is {_shown(raw)}: write a whole number that is 0 or more, or null")
    return int(raw)  # type: ignore[call-overload, no-any-return] # `whole` says number


def _object(raw: object, where: str, known: Collection[str], required: Collection[str]) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ProblemError(f"{where} is {_shown(raw)}: write an object with the keys {', '.join(known)}")
    inside = "" if where == "the problem" else f"{where}."
    for key in raw:
        if key not in known:
            raise ProblemError(f"{inside}{_bare(key)} is not a known key: {where} takes {', '.join(known)}")
    for key in required:
        if key not in raw:
            hint = "write it, null for no limit" if key == "latency_limit_ms" else "write it"
            raise ProblemError(f"{inside}{key} is missing: {hint}")
    return raw


def _array(raw: object, where: str, most: int) -> Sequence[object]:
    if not isinstance(raw, (list, tuple)):
        raise ProblemError(f"{where} is {_shown(raw)}: write a list of 1 to {most} entries")
    if not 1 <= len(raw) <= most:
        raise ProblemError(f"{where} has {len(raw)} entries: write 1 to {most}")
    return raw


def _names(raw: object, where: str, most: int) -> tuple[str, ...]:
    names = tuple(_name(name, f"{where}[{number}]") for number, name in enumerate(_array(raw, where, most)))
    _refuse_twins(names, where)
    return names


def _name(raw: object, where: str) -> str:
    if not isinstance(raw, str) or not 1 <= len(raw) <= MAX_NAME or not raw.isprintable():
        raise ProblemError(f"{where} is {_shown(raw)}: write a printable name of 1 to {MAX_NAME} characters")
    return raw


def _refuse_twins(names: Sequence[str], where: str) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ProblemError(f"{where} names {_shown(name)} twice: give every one its own name")
        seen.add(name)


def _column(raw: object, where: str, count: int, unit: str) -> tuple[float, ...]:
    if not isinstance(raw, (list, tuple)):
        raise ProblemError(f"{where} is {_shown(raw)}: write a list of {count} numbers, one per stage")
    if len(raw) != count:
        raise ProblemError(f"{where} has {len(raw)} entries for {count} stages: write one per stage")
    return tuple(_number(value, f"{where}[{number}]", unit) for number, value in enumerate(raw))


def _optional(raw: object, where: str, unit: str) -> float | None:
    return None if raw is None else _number(raw, where, unit, or_null=True)


def _number(raw: object, where: str, unit: str, *, or_null: bool = False) -> float:
    number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
    if not number or not 0 <= raw <= MAX_NUMBER:  # type: ignore[operator] # `number` says so; NaN fails here
        tail = ", or null for no limit" if or_null else ""
        raise ProblemError(f"{where} is {_shown(raw)}: write a number of {unit} from 0 to {MAX_NUMBER:g}{tail}")
    return float(raw)  # type: ignore[arg-type] # `number` says so


def _shown(value: object) -> str:
    """A short, one-line picture of what was found, whatever it is."""
    simple: dict[type, Callable[[Any], str]] = {
        dict: lambda _: "an object",
        list: lambda _: "a list",
        tuple: lambda _: "a list",
        bool: lambda found: "true" if found else "false",
        type(None): lambda _: "null",
        int: lambda found: str(found) if abs(found) < 1 << 60 else "a huge number",
        float: lambda found: "not a number" if math.isnan(found) else f"{found:g}",
        str: lambda found: repr(found if len(found) <= 40 else found[:37] + "..."),
    }
    show = simple.get(type(value))
    return show(value) if show else f"of type {type(value).__name__}"


def _bare(key: object) -> str:
    return key if isinstance(key, str) and key.isprintable() and 1 <= len(key) <= 40 else _shown(key)
