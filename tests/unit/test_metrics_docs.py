"""The dashboard and the page for operators name the metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitllm.server.metrics import Figures, Metrics, ModelFigures, ModelLabels, queue_buckets, stage_groups
from splitllm.types import ModelSpec, Sla

ROOT = Path(__file__).parents[2]
DASHBOARDS = sorted((ROOT / "docs/grafana").glob("*.json"))
SPEC = ModelSpec("m", 6, 2, 1, 1, 2, 9, 64, (0,))
NAME = re.compile(r"\b(?:splitllm|process|python)_[a-z_]+")


def metrics() -> Metrics:
    model = ModelFigures({("openai", "in_turn"): 1}, 0, np.zeros((2, SPEC.blocks + 1)))
    figures = Figures({"m": model}, 1, ready=True, draining=False)
    return Metrics([ModelLabels("m", SPEC.blocks, "0" * 64)], "1", Sla(), lambda: figures)


def series() -> dict[str, set[str]]:
    """Label names by name of series."""
    return {
        sample.name: set(sample.labels)
        for family in metrics().registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_wait_as_long_as_the_queue_allows_is_told_apart_from_a_shorter_one() -> None:
    assert queue_buckets(0.0)[-2:] == (5, 30)
    assert queue_buckets(60.0)[-2:] == (30, 60)
    assert queue_buckets(500.0)[-2:] == (300, 500)


def expressions(node: Any) -> list[str]:
    """Every query of a dashboard."""
    if isinstance(node, dict):
        own = [node[key] for key in ("expr", "definition") if isinstance(node.get(key), str)]
        return own + [found for value in node.values() for found in expressions(value)]
    if isinstance(node, list):
        return [found for value in node for found in expressions(value)]
    return []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_every_metric_and_label_of_the_dashboard_exists(path: Path) -> None:
    known = series()
    queries = expressions(json.loads(path.read_text("utf-8")))
    assert len(queries) > 20
    for query in queries:
        names = NAME.findall(query)
        assert names, query
        assert set(names) <= known.keys(), query
        labels = known[names[0]] | {"job", "le"}
        used = set(re.findall(r'(\w+)=~?"', query))
        for group in re.findall(r"by \(([^)]*)\)", query):
            used |= set(re.split(r",\s*", group))
        assert used <= labels, query


def test_there_is_a_dashboard_and_it_shows_every_metric() -> None:
    shown = {
        name
        for path in DASHBOARDS
        for query in expressions(json.loads(path.read_text()))
        for name in NAME.findall(query)
    }
    base = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in series() if name.startswith("splitllm_")}
    assert ours <= base


def test_the_page_for_operators_lists_every_metric_and_no_other() -> None:
    section = (ROOT / "docs/operating.md").read_text("utf-8").split("## Metrics")[1].split("\n## ")[0]
    listed = {
        name for row in re.findall(r"^\| (`splitllm_.*?) \|", section, re.MULTILINE) for name in NAME.findall(row)
    }
    ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in series() if name.startswith("splitllm_")}
    assert listed == ours


def test_the_session_log_s_members_are_explained() -> None:
    from splitllm.server.telemetry import Telemetry

    section = (ROOT / "docs/operating.md").read_text("utf-8").split("## The session log")[1].split("\n## ")[0]
    explained = {
        name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    line = Telemetry("m", SPEC, Sla(), metrics()).account("0" * 32, "openai").to_json()
    assert explained == line.keys()
    assert line["session"] == "0" * 8


@pytest.mark.parametrize("blocks", [1, 2, 3, 4, 7, 30, 80])
def test_groups_of_blocks_cover_each_block_once(blocks: int) -> None:
    groups = stage_groups(blocks)
    columns = [column for part in groups.values() for column in range(part.start, part.stop)]
    assert columns == list(range(blocks + 1))
    assert len(groups) == min(4, blocks) + 1


def test_two_servers_in_one_process_share_nothing() -> None:
    first, second = metrics(), metrics()
    first.refused("m", "openai", "internal")
    assert b'splitllm_refusals_total{api="openai",code="internal",model="m"} 0.0' in second.exposition("")[0]
