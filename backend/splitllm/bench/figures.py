"""What the figures of the benchmarks share: colours, style, and SVG that is the same in every run (extra `bench`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

#: Colours that stay apart for colour-blind readers (Wong, "Points of view: Color blindness", Nature Methods 2011).
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
GREY, BLACK = "#999999", "#222222"
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


@contextlib.contextmanager
def drawing(folder: Path, **style: Any) -> Iterator[None]:
    """Make `folder` where it is missing, and draw in our style, with what `style` adds.

    Raises:
        ImportError: matplotlib is not installed.
        OSError: the folder cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(_STYLE | style):
        yield


def written(figure: Any, path: Path, **options: Any) -> Path:
    """Save a figure as SVG and close it."""
    from matplotlib import pyplot

    figure.savefig(path, format="svg", metadata={"Date": None}, **options)
    pyplot.close(figure)
    return path
