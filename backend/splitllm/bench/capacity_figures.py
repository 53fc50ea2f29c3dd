"""The figures of `splitllm bench capacity`, as SVG. Drawing needs matplotlib, the extra `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from .figures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, drawing, written

_COLOURS: Final = {
    "all-server": BLACK,
    "greedy-prefix": ORANGE,
    "greedy-ratio": PURPLE,
    "dp": BLUE,
    "dp-load": GREEN,
}
_MARKERS: Final = {"all-server": "s", "greedy-prefix": "^", "greedy-ratio": "v", "dp": "o", "dp-load": "D"}


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write `capacity-goodput.svg`, `capacity-saved.svg` and `capacity-splits.svg` into `folder`, made if missing.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    with drawing(folder):
        return [
            _goodput(result, folder / "capacity-goodput.svg"),
            _saved(result, folder / "capacity-saved.svg"),
            _splits(result, folder / "capacity-splits.svg"),
        ]


def _goodput(result: dict[str, Any], path: Path) -> Path:
    """Good requests a second over the rate at which they arrive."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    most = 0.0
    for name, row in result["policies"].items():
        asked, good = row["by_rate"]["asked_per_s"], row["by_rate"]["goodput"]
        most = max(most, *asked)
        axes.plot(asked, good, marker=_MARKERS.get(name, "o"), color=_COLOURS.get(name), label=name)
    axes.plot([0, most], [0, most], color=GREY, linestyle=":", label="all in time")
    axes.set_xlabel("requests a second that arrive")
    axes.set_ylabel("requests a second answered in time")
    sla = result["setup"]["sla"]
    axes.set_title(
        f"In time: first token within {sla['ttft_ms']:g} ms, then {sla['tpot_ms']:g} ms a token", fontsize=11
    )
    axes.legend(frameon=False)
    axes.set_xlim(0)
    axes.set_ylim(0)
    figure.tight_layout()
    return written(figure, path)


def _saved(result: dict[str, Any], path: Path) -> Path:
    """What splitting saves, under its two names."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True)
    titles = (("block_steps_saved", "block-steps saved"), ("server_seconds_saved", "server seconds saved"))
    for axes, (key, title) in zip(panels, titles, strict=True):
        for name, row in result["policies"].items():
            points = [
                (rate, 100 * share)
                for rate, share in zip(row["by_rate"]["rate"], row["by_rate"][key], strict=True)
                if share is not None
            ]
            if name != "all-server" and points:
                rates, shares = zip(*points, strict=True)
                axes.plot(rates, shares, marker=_MARKERS.get(name, "o"), color=_COLOURS.get(name), label=name)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("requests a second that arrive")
        axes.set_xlim(0)
        axes.set_ylim(min(0, axes.get_ylim()[0]), 100)
    panels[0].set_ylabel("share of what all-server needs, %")
    panels[0].legend(frameon=False)
    figure.tight_layout()
    return written(figure, path)


def _splits(result: dict[str, Any], path: Path) -> Path:
    """How many blocks clients run under dp, at the rate of its peak, by kind of client."""
    from matplotlib import pyplot

    name = "dp" if "dp" in result["policies"] else next(iter(result["policies"]))
    peak = result["policies"][name]["peak_at_rate"]
    runs = [run for run in result["runs"] if run["policy"] == name and run["rate"] == peak]
    kinds = [kind for kind in runs[0]["splits"] if any(run["splits"][kind] for run in runs)]
    figure, panels = pyplot.subplots(1, len(kinds), figsize=(2.4 * len(kinds) + 1, 3.2), sharex=True, squeeze=False)
    most = max(int(split) for run in runs for kind in kinds for split in run["splits"][kind])
    for axes, kind in zip(panels[0], kinds, strict=True):
        counts = [sum(run["splits"][kind].get(str(split), 0) for run in runs) for split in range(most + 1)]
        total = max(1, sum(counts))
        axes.bar(range(most + 1), [100 * count / total for count in counts], width=1.0, color=_COLOURS["dp"])
        axes.set_title(kind, fontsize=11)
        axes.set_xlabel("blocks at the client")
        axes.set_xlim(-1, most + 1)
    panels[0][0].set_ylabel(f"requests under {name}, %")
    figure.tight_layout()
    return written(figure, path)
