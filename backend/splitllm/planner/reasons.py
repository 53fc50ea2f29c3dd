"""Why a plan is what it is, in sentences with figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .evaluate import Evaluation, Failure, evaluate
from .exact import Tables
from .problem import Side

_MOST_RUNS = 8


def milliseconds(value: float, digits: int = 3) -> str:
    """For example `1.28 ms`, `43 ms`, `2,310 ms`."""
    return f"{figure(value, digits)} ms"


def size(value: float, digits: int = 3) -> str:
    """Bytes as people write them, in powers of 1000: for example `36 MB`."""
    for name, unit in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= unit:
            return f"{figure(value / unit, digits)} {name}"
    return f"{figure(value, digits)} bytes"


def figure(value: float, digits: int = 3) -> str:
    """`value` with at least `digits` significant digits, whole digits never rounded away, no trailing zeros."""
    if value == 0 or not 1e-6 <= abs(value) < 1e15:
        return f"{value:.{digits}g}"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    leading = 0
    while whole == 0 and abs(value) * 10 ** (leading + 1) < 1:
        leading += 1
    decimals = max(digits - whole, 0) + leading
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def over(write: Callable[[float, int], str], value: float, limit: float) -> tuple[str, str]:
    """Both figures, with as many digits as it takes to tell them apart."""
    for digits in range(3, 16):
        if write(value, digits) != write(limit, digits):
            break
    return write(value, digits), write(limit, digits)


def failure(failed: Failure, *, would: bool = False) -> str:
    """One broken limit as a clause: `decode takes 171 ms, over its limit of 150 ms`."""
    if failed.kind == "latency":
        value, limit = over(milliseconds, failed.value, failed.limit)
        return f"{failed.subject} {'would take' if would else 'takes'} {value}, over its limit of {limit}"
    if failed.kind == "memory":
        value, limit = over(size, failed.value, failed.limit)
        return f"the client {'would need' if would else 'needs'} {value} of memory, over its limit of {limit}"
    if failed.kind == "crossings":
        there = "there would be" if would else "there are"
        return f"{there} {failed.value:g} crossings, over the limit of {failed.limit:g}"
    return f"{failed.subject} {'would be' if would else 'is'} on the side it must not run on"


def failures(failed: Sequence[Failure]) -> str:
    """All broken limits as one clause."""
    return "; ".join(failure(one) for one in failed)


def feasible_reason(tables: Tables, chosen: Evaluation) -> str:
    """What the plan does and what keeps the client from doing more."""
    stages = tables.problem.stages
    home = [side is Side.CLIENT for side in chosen.placement]
    if all(home):
        return f"All {_stages(len(stages))} on the client and the server does nothing."
    saved = f"{figure(100 * chosen.saved_fraction, 2)} % of the server's cost saved"
    count = sum(home)
    if count == 0:
        lead = "Everything runs on the server"
    elif all(home[:count]):
        lead = f"The first {count} of {_stages(len(stages))} on the client, {saved}"
    else:
        lead = f"{count} of {_stages(len(stages))} on the client ({chosen.crossings} crossings), {saved}"
    bound = _bound(tables, chosen)
    return f"{lead}: {bound}." if bound else f"{lead}."


def _stages(count: int) -> str:
    return "1 stage runs" if count == 1 else f"{count} stages run"


def _bound(tables: Tables, chosen: Evaluation) -> str:
    """What would go wrong with one more stage on the client; empty where nothing would."""
    best: tuple[tuple[int, float], str] | None = None
    for more in _extensions(tables, chosen):
        sides = list(chosen.placement)
        for stage in more:
            sides[stage] = Side.CLIENT
        failed = evaluate(tables, sides).failures
        if not failed:
            return ""
        excess = max(one.value / one.limit if one.limit else 1e18 for one in failed)
        rank = (len(failed), excess)
        if best is None or rank < best[0]:
            names = [tables.problem.stages[stage] for stage in sorted(more)]
            what = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            best = rank, f"with {what} there as well, {failure(failed[0], would=True)}"
    if best is not None:
        return best[1]
    pinned = all(
        tables.problem.pin(stage) is Side.SERVER
        for stage, side in enumerate(chosen.placement)
        if side is Side.SERVER and tables.cost.server[stage] > 0
    )
    return "the rest is pinned to the server" if pinned else ""


def _extensions(tables: Tables, chosen: Evaluation) -> list[list[int]]:
    """For each end of a run on the server, the fewest stages there whose move to the client saves anything."""
    sides, count = chosen.placement, len(chosen.placement)
    found = []
    for stage in range(count):
        if sides[stage] is Side.CLIENT:
            continue
        for step in (1, -1):
            before = stage - step
            if 0 <= before < count and sides[before] is Side.SERVER:
                continue
            more, at = [stage], stage
            while tables.cost.server[at] == 0 and 0 <= at + step < count and sides[at + step] is Side.SERVER:
                at += step
                more.append(at)
            free = all(tables.problem.pin(one) is not Side.SERVER for one in more)
            if free and tables.cost.server[at] > 0 and more not in found:
                found.append(more)
    return found[: 2 * _MOST_RUNS]
