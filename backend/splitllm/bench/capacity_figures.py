"""The figures of `splitllm bench capacity`, as SVG. Drawing needs matplotlib, the extra `bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

#: Colours that stay apart for colour-blind readers (Wong, "Points of view: Color blindness", Nature Methods 2011).
_COLOURS: Final = {
    "all-server": "#222222",
    "greedy-prefix": "#E69F00",
    "greedy-ratio": "#CC79A7",
    "dp": "#0072B2",
    "dp-load": "#009E73",
}
_MARKERS: Final = {"all-server": "s", "greedy-prefix": "^", "greedy-ratio": "v", "dp": "o", "dp-load": "D"}
_STYLE: Final[dict[Any, Any]] = {  # matplotlib's stubs want a literal type for every key
    "svg.hashsalt": "splitllm",  # the same bytes in every run
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
}


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write `capacity-goodput.svg`, `capacity-saved.svg` and `capacity-splits.svg` into `folder`, made if missing.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE):
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
    axes.plot([0, most], [0, most], color="#999999", linestyle=":", label="all in time")
    axes.set_xlabel("requests a second that arrive")
    axes.set_ylabel("requests a second answered in time")
    sla = result["setup"]["sla"]
    axes.set_title(
        f"In time: first token within {sla['ttft_ms']:g} ms, then {sla['tpot_ms']:g} ms a token", fontsize=11
    )
    axes.legend(frameon=False)
    axes.set_xlim(0)
    axes.set_ylim(0)
    return _written(figure, path)


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
    return _written(figure, path)


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
    return _written(figure, path)


def _written(figure: Any, path: Path) -> Path:
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
