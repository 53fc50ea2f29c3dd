"""Every family becomes a bundle that computes what transformers computes, or is refused with the reason."""

from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING

from splitllm.errors import ExportError
from splitllm_export import exporter
from splitllm_export.exporter import export_model
from splitllm_export.gate import TOLERANCE
from splitllm_export.probe import check_family
from splitllm_export.quiet import quiet_libraries
from splitllm_export.verifier import verify_bundle

from .families import FAMILIES, family_config, save_family
from .table import BEGIN, END, PAGE

#: Decoders of transformers' registry that no list of ours names: none of them has code here.
UNNAMED = ("helium", "seed_oss", "gpt_neo", "deepseek_v3", "gpt_bigcode", "exaone4", "opt", "falcon", "arcee", "phimoe")


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


@pytest.mark.parametrize("family", ["Gemma 3", "GPT-2", "Qwen3-MoE"])
def test_a_small_model_of_the_same_config_stands_for_the_family(family: str) -> None:
    config = family_config(family)
    config.num_hidden_layers, config.vocab_size = 32, 50_000
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types * 16
    with quiet_libraries():
        assert check_family(config, 4096)["max_abs_error"] <= TOLERANCE


@pytest.mark.parametrize("model_type", UNNAMED)
def test_a_family_that_nobody_named_passes_the_gate_or_is_refused(model_type: str) -> None:
    refusal = figures = None
    try:
        with quiet_libraries():
            figures = check_family(CONFIG_MAPPING[model_type](), 4096)
    except ExportError as error:
        refusal = error
    if figures is not None:
        assert figures["max_abs_error"] <= TOLERANCE
    else:
        assert refusal is not None
        assert refusal.message.startswith(model_type)
        assert "\n" not in refusal.message
        assert len(refusal.message) > len(model_type) + 20


def test_the_page_tells_of_every_family() -> None:
    lines = PAGE.read_text("utf-8").split(BEGIN)[1].split(END)[0].splitlines()[2:]
    told = [line.split("|")[1].strip() for line in lines]
    assert told == list(FAMILIES), "run: python -m tests.export.table"
    assert all(float(line.split("|")[3]) <= TOLERANCE for line in lines)
