"""The figures of `splitllm bench paper`, as SVG. Drawing needs matplotlib, the extra `bench`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from .figures import BLACK, BLUE, GREEN, GREY, ORANGE, drawing, written


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write `paper-saved.svg` and `paper-slack.svg` into `folder`, which is made where it is missing.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    with drawing(folder, **{"axes.grid.axis": "y"}):
        return [_saved(result, folder / "paper-saved.svg"), _slack(result, folder / "paper-slack.svg")]


def _saved(result: dict[str, Any], path: Path) -> Path:
    """Bars per model: what the paper reports, the exact plan, and what it is compared with."""
    from matplotlib import pyplot

    models = result["models"]
    kinds = (
        ("paper", GREY, [model["paper_saved"] for model in models]),
        ("dp", BLUE, [model["saved"]["dp"] for model in models]),
        ("best prefix", GREEN, [model["saved"]["prefix"] for model in models]),
        ("better greedy", ORANGE, [model["better_greedy_saved"] for model in models]),
    )
    figure, axes = pyplot.subplots(figsize=(8, 4))
    width = 0.2
    for place, (name, colour, shares) in enumerate(kinds):
        at = [model + (place - 1.5) * width for model in range(len(models))]
        heights = [100 * (share or 0) for share in shares]
        axes.bar(at, heights, width * 0.92, label=name, color=colour)
        for x, height, share in zip(at, heights, shares, strict=True):
            text = "n/a" if share is None else f"{height:.0f}" if height >= 1 or height == 0 else f"{height:.1f}"
            axes.annotate(text, (x, height), (0, 2), textcoords="offset points", ha="center", fontsize=9)
    axes.set_xticks(range(len(models)), [model["model"] for model in models])
    axes.set_ylabel("server work saved, %")
    slack = result["setup"]["slack"]
    axes.set_title(f"Answers at most {100 * (slack - 1):.0f} % slower than from the server alone", fontsize=11)
    axes.legend(frameon=False, ncols=4, loc="upper right")
    axes.set_ylim(0, 1.2 * max(max(100 * (share or 0) for share in shares) for _, _, shares in kinds))
    return written(figure, path, bbox_inches="tight")


def _slack(result: dict[str, Any], path: Path) -> Path:
    """One panel per client and network: work saved over what the SLA allows."""
    from matplotlib import pyplot

    rows = result["sensitivity"]
    clients, networks = (list(dict.fromkeys(row[key] for row in rows)) for key in ("client", "network"))
    figure, panels = pyplot.subplots(len(networks), len(clients), figsize=(8.5, 7), sharex=True, sharey=True)
    lines = (("dp", BLUE, "-", "o"), ("all-client", BLACK, ":", "s"), ("better greedy", ORANGE, "--", "^"))
    for down, network in enumerate(networks):
        for across, client in enumerate(clients):
            axes = panels[down][across]
            held = [row for row in rows if (row["client"], row["network"]) == (client, network)]
            slacks = [row["slack"] for row in held]
            for name, colour, style, mark in lines:
                axes.plot(
                    slacks, _percent(held, name), style, color=colour, marker=mark, markersize=4, label=_NAMES[name]
                )
            axes.set_title(f"{client}, {network}", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("latency allowed, × server alone")
    for axes in panels[:, 0]:
        axes.set_ylabel("work saved, %")
    handles, names = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, frameon=False, ncols=3, loc="upper center")
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    return written(figure, path, bbox_inches="tight")


_NAMES: Final = {"dp": "dp", "all-client": "all on the client, or nothing", "better greedy": "better greedy"}


def _percent(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    return [100 * (row["better_greedy_saved"] if name == "better greedy" else row["saved"][name]) for row in rows]
