"""The figure of `splitllm bench engine`, as SVG. Drawing needs matplotlib, the extra `bench`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .figures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, drawing, written

#: One for each curve, from the fewest rows or positions on.
_COLOURS: Final = (BLACK, PURPLE, BLUE, GREEN, ORANGE, "#D55E00", "#56B4E9")


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write `engine-cost.svg` into `folder`, made if missing: what a token costs, by sessions and by context.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    with drawing(folder):
        return [_cost(result["decode"], folder / "engine-cost.svg")]


def _cost(decode: dict[str, Any], path: Path) -> Path:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(10, 4.5), sharey=True)
    _curves(panels[0], decode, "rows", "context", "sessions in the batch", lambda of: f"context {of}")
    _curves(panels[1], decode, "context", "rows", "context, tokens", lambda of: f"{of} sessions" if of > 1 else "one")
    panels[0].set_ylabel("ms of a step for each token")
    panels[0].set_ylim(0, 1.3 * panels[0].get_ylim()[1])  # room for what the curves are
    figure.suptitle(
        "Points: measured. Dashes: fixed cost of a step + cost per row + cost per row and position", size=11
    )
    figure.tight_layout()
    return written(figure, path)


def _curves(axes: Any, decode: dict[str, Any], along: str, of: str, label: str, name: Callable[[int], str]) -> None:
    """A curve over `along` for each value of `of`, each beside the arithmetic of its work."""
    values = sorted({case[of] for case in decode["cases"]})
    for value, colour in zip(values, _COLOURS, strict=False):
        cases = sorted((case for case in decode["cases"] if case[of] == value), key=lambda case: case[along])
        at = [case[along] for case in cases]
        measured = [1000 * case["wall_s"] / case["rows"] for case in cases]
        expected = [cost / case["vs_arithmetic"] for cost, case in zip(measured, cases, strict=True)]
        axes.plot(at, expected, linestyle="--", color=GREY, linewidth=1)
        axes.plot(at, measured, marker="o", markersize=4, color=colour, label=name(value))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks := sorted({case[along] for case in decode["cases"]}), [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.legend(frameon=False, fontsize=9, loc="upper right", ncols=2)
