"""Every family becomes a bundle that computes what transformers computes, or is refused with the reason."""

from pathlib import Path

import pytest

from splitllm_export.exporter import export_model

from .families import FAMILIES, save_family


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_equals_transformers(family: str, tmp_path: Path) -> None:
    summary = export_model(save_family(tmp_path / "model", family), tmp_path / "out", client_dtypes=("float32",))
    assert summary.variants["float32"]["max_abs_error"] < 1e-4
