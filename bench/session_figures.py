"""The figures of `bench/sessions.py`, as SVG. Drawing needs matplotlib, the extra `bench`."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from splitllm.bench.figures import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, drawing, written


def draw(result: dict[str, Any], folder: Path) -> list[Path]:
    """Write `sessions.svg` and `sessions-overload.svg` into `folder`, which is made where it is missing.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    with drawing(folder):
        drawn = []
        if "steady" in result:
            drawn.append(_steady(result["steady"], folder / "sessions.svg"))
        if "overload" in result:
            drawn.append(_overload(result["overload"], folder / "sessions-overload.svg"))
        return drawn


def _steady(part: dict[str, Any], path: Path) -> Path:
    """Over the minutes: memory, what is held, and time per token."""
    from matplotlib import pyplot

    figure, (memory, held, tpot) = pyplot.subplots(3, 1, figsize=(8, 8), sharex=True)
    samples, windows = part["samples"], part["windows"]
    at = [sample["at_s"] / 60 for sample in samples]
    memory.plot(at, [sample["rss_bytes"] / 2**20 for sample in samples], color=BLUE, label="server's memory (RSS)")
    if all("kv_bytes" in sample for sample in samples):  # results of before have none
        memory.plot(at, [sample["kv_bytes"] / 2**20 for sample in samples], color=GREY, label="of it keys and values")
    memory.set_ylabel("MiB")
    held.plot(at, [sample["sockets"] for sample in samples], color=GREY, linestyle="--", label="sockets")
    held.plot(at, [sample["slots"] for sample in samples], color=GREEN, label="rows for keys and values in use")
    middles = [(window["from_s"] + 5) / 60 for window in windows]
    for share, colour in (("p99", ORANGE), ("p50", BLACK)):
        tpot.plot(middles, [window[f"tpot_{share}_ms"] for window in windows], color=colour, label=f"{share} TPOT")
    tpot.set_ylabel("ms a token")
    tpot.set_xlabel("minutes")
    for axes in (memory, held, tpot):
        axes.set_ylim(0)
        axes.legend(frameon=False, loc="lower right")
    memory.set_title(f"{part['people']} people with a session each; per 10 s", fontsize=11)
    figure.tight_layout()
    return written(figure, path)


def _overload(part: dict[str, Any], path: Path) -> Path:
    """Over the people who come: those who were served, and answers in time."""
    from matplotlib import pyplot

    figure, (sessions, answers) = pyplot.subplots(1, 2, figsize=(8, 3.6), sharex=True)
    times = sorted({run["times"] for run in part["runs"]})
    answers.axhline(part["capacity"]["goodput_per_s"], color=GREY, linestyle=":", label="as many people as seats")
    for axes, key, colour, name in (
        (sessions, "offered_per_s", GREY, "come"),
        (sessions, "served_per_s", PURPLE, "are served"),
        (answers, "goodput_per_s", BLUE, "answers in time"),
    ):
        medians = [statistics.median(run[key] for run in part["runs"] if run["times"] == each) for each in times]
        axes.plot(times, medians, marker="o", color=colour, label=name)
        axes.set_ylim(0)
        axes.set_xlabel("people who come, × capacity")
        axes.set_xticks(times)
        axes.legend(frameon=False, loc="lower right")
    sessions.set_ylabel("people a second")
    answers.set_ylabel("a second")
    figure.tight_layout()
    return written(figure, path)
