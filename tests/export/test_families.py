"""Every family becomes a bundle that computes what transformers computes, or is refused with the reason."""

import random
from pathlib import Path

import pytest

from splitllm_export import exporter
from splitllm_export.exporter import export_model
from splitllm_export.gate import TOLERANCE
from splitllm_export.probe import check_family
from splitllm_export.quiet import quiet_libraries
from splitllm_export.verifier import verify_bundle
from tests.fuzz.effort import FACTOR

from . import registry
from .families import FAMILIES, family_config, save_family
from .registry import PASSED, REFUSED, REGISTRY, SKIPPED, outcome_of
from .served import joined_error
from .table import BEGIN, END, PAGE

#: Families drawn from all of transformers' registry: the same ones in every run, more and others with SPLITLLM_FUZZ.
DRAWN = random.Random(2048 if FACTOR == 1 else None).sample(REGISTRY, min(3 * FACTOR, len(REGISTRY)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_equals_transformers_at_every_split(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "check_family", lambda *_, **__: None)  # the same on a model as small as this one
    model, out = save_family(tmp_path / "model", family), tmp_path / "out"
    summary = export_model(model, out, client_dtypes=("float32", "float16"))
    assert summary.variants["float32"]["max_abs_error"] <= TOLERANCE / 2
    report = verify_bundle(out, model)
    assert report.problems == ()
    assert report.splits_checked == summary.blocks + 1
    assert report.max_abs_error is not None
    assert report.max_abs_error <= TOLERANCE / 2
    assert report.variants["float16"]["top1_agreement"] > 0.95
    assert joined_error(out) == 0


@pytest.mark.parametrize("family", ["Gemma 3", "GPT-2", "Qwen3-MoE"])
def test_a_small_model_of_the_same_config_stands_for_the_family(family: str) -> None:
    config = family_config(family)
    config.num_hidden_layers, config.vocab_size = 32, 50_000
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types * 16
    with quiet_libraries():
        assert check_family(config, 4096)["max_abs_error"] <= TOLERANCE


@pytest.mark.parametrize("family", DRAWN)
def test_a_family_that_nobody_named_passes_the_gate_or_is_refused(family: str, tmp_path: Path) -> None:
    found = outcome_of(family, tmp_path)
    assert found.outcome in (PASSED, REFUSED), found.reason
    if found.outcome == PASSED:
        assert found.max_abs_error is not None
        assert found.max_abs_error <= TOLERANCE
    else:
        assert len(found.reason) > len(family) + 20


def test_the_page_tells_how_every_family_of_the_registry_fares() -> None:
    lines = PAGE.read_text("utf-8").split(registry.BEGIN)[1].split(registry.END)[0].splitlines()[4:]
    cells = [[cell.strip() for cell in line.split("|")[1:3]] for line in lines]
    assert [family.strip("`") for family, _ in cells] == REGISTRY, "run: python -m tests.export.registry"
    assert {outcome for _, outcome in cells} == {PASSED, REFUSED, SKIPPED}


def test_the_page_tells_of_every_family() -> None:
    lines = PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0].splitlines()[2:]
    told = [line.split("|")[1].strip() for line in lines]
    assert told == list(FAMILIES), "run: python -m tests.export.table"
    assert all(float(line.split("|")[3]) <= TOLERANCE for line in lines)
