"""Weights stay where they are: mapped from the checkpoint, taken out of graphs, in float32 only where they are used."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from splitllm_export import layout, source
from splitllm_export.exporter import export_model, reference_of
from splitllm_export.half import to_float16
from splitllm_export.tracing import trace

from .conftest import save_model, save_tokenizer, shaken_model


class _Odd(nn.Module):
    """Weights that are transposed, shifted, cut apart and used twice on their way into the graph."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.config = LlamaConfig()
        self.straight = nn.Parameter(torch.randn(8, 6))
        self.turned = nn.Linear(6, 10)
        self.offset = nn.Parameter(torch.randn(8))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        first, second = self.straight.split(3, dim=-1)
        y = torch.cat([(x * (1.0 + self.offset)) @ first, x @ (second * 2.0)], -1)
        return {"y": self.turned(y) + self.turned.weight.sum(-1)}

    def example(self) -> dict[str, torch.Tensor]:
        return {"x": torch.zeros(2, 5, 8)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whatever_is_computed_from_weights_alone_is_made_when_it_is_written(tmp_path: Path, dtype: torch.dtype) -> None:
    module = _Odd().to(dtype)
    part = trace(module, {"x": {0: "batch", 1: "rows"}}, {"y": {0: "batch", 1: "rows"}})
    assert sorted(weight.shape for weight in part.weights.values()) == [(6, 10), (8, 3), (8, 3)]
    assert len(part.model.SerializeToString()) < 10_000
    assert [value.name for value in part.model.graph.input] == ["x"]
    layout.write_graph(part, layout.Folder(tmp_path), "part")
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        expected = module.float()(x)["y"].numpy()
    session = onnxruntime.InferenceSession(tmp_path / "part.onnx", providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"x": x.numpy()})[0] - expected).max() < 1e-5
    layout.write_graph(to_float16(part), layout.Folder(tmp_path), "half")
    session = onnxruntime.InferenceSession(tmp_path / "half.onnx", providers=["CPUExecutionProvider"])
    half = session.run(None, {"x": x.numpy().astype(np.float16)})[0]
    assert half.dtype == np.float16
    assert np.abs(half - expected).max() < 0.05
    assert (tmp_path / "half.bin").stat().st_size < 0.6 * (tmp_path / "part.bin").stat().st_size


def test_tracing_leaves_the_module_as_it_was() -> None:
    module = _Odd()
    before = {name: id(parameter) for name, parameter in module.named_parameters()}
    trace(module, {"x": {0: "batch", 1: "rows"}}, {"y": {0: "batch", 1: "rows"}})
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == before
    assert "forward" not in vars(module)


@pytest.fixture
def narrow(tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint in bfloat16 and several files."""

    def make(**changes: Any) -> Path:
        config = LlamaConfig(
            **{
                "vocab_size": 259,
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 64,
                "eos_token_id": 2,
            }
            | changes
        )
        shaken_model(config).to(torch.bfloat16).save_pretrained(tmp_path / "narrow", max_shard_size="60KB")
        save_tokenizer(tmp_path / "narrow")
        return tmp_path / "narrow"

    return make


@pytest.mark.parametrize("tied", [True, False])
def test_a_bfloat16_checkpoint_stays_so_and_is_exported_as_float32_computes_it(
    narrow: Callable[..., Path], tmp_path: Path, tied: bool
) -> None:
    folder = narrow(tie_word_embeddings=tied)
    assert len(list(folder.glob("*.safetensors"))) > 2
    model = source.load_model(folder, source.read_config(folder))
    layers = {p.dtype for p in model.model.layers.parameters()}
    assert layers == {model.get_input_embeddings().weight.dtype} == {torch.bfloat16}
    tokens = np.arange(40, dtype=np.int32)
    exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        expected = exact(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0].numpy()
    assert np.abs(reference_of(model)(tokens) - expected).max() < 1e-5
    assert {p.dtype for p in model.model.layers.parameters()} == {torch.bfloat16}
    summary = export_model(folder, tmp_path / "out", client_dtypes=())
    assert summary.variants["float32"]["max_abs_error"] < 1e-5


def test_a_tied_embedding_is_stored_once_and_another_is_not(tmp_path: Path, checkpoint: Path) -> None:
    from .conftest import llama_config

    tied = save_model(tmp_path / "tied", llama_config(tie_word_embeddings=True, num_hidden_layers=1))
    one = export_model(tied, tmp_path / "one", client_dtypes=())
    assert not (tmp_path / "one" / "head.float32.bin").exists()
    two = export_model(checkpoint, tmp_path / "two", client_dtypes=())
    assert (tmp_path / "two" / "head.float32.bin").exists()
    assert (one.head_bytes, two.head_bytes > two.embedding_bytes) == (one.head_bytes, True)
    assert one.variants["float32"]["max_abs_error"] < 1e-5
