"""Whatever cannot become a correct bundle is refused in one line, and nothing is left behind."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BloomConfig, GPTJConfig

from splitllm.errors import ExportError, MachineError, SplitLLMError, UsageError
from splitllm_export import exporter, layout
from splitllm_export.exporter import export_model
from splitllm_export.verifier import verify_bundle
from splitllm_export.weightless import Part

from .conftest import save_model, save_tokenizer

LONGROPE = {
    "rope_type": "longrope",
    "factor": 4.0,
    "short_factor": [1.0] * 8,
    "long_factor": [2.0] * 8,
}


def _refusal(kind: type[SplitLLMError], model: Path | str, tmp_path: Path, **options: object) -> SplitLLMError:
    """Export to a new folder, expect `kind`, and nothing new beside the model."""
    before = sorted(tmp_path.iterdir())
    with pytest.raises(kind) as caught:
        export_model(model, tmp_path / "deep" / "out", **options)  # type: ignore[arg-type]  # options of every kind
    assert "\n" not in caught.value.message
    assert sorted(tmp_path.iterdir()) == before
    return caught.value


def test_a_family_whose_attention_is_its_own_is_refused_by_name(tmp_path: Path) -> None:
    gptj = save_model(tmp_path / "gptj", GPTJConfig(vocab_size=259, n_embd=32, n_layer=1, n_head=2, rotary_dim=8))
    message = _refusal(ExportError, gptj, tmp_path).message
    assert "GPTJBlock does not use transformers' attention interface; not supported yet" in message
    bloom = save_model(tmp_path / "bloom", BloomConfig(vocab_size=259, hidden_size=32, n_layer=1, n_head=2))
    assert "bloom models state no number of positions" in _refusal(ExportError, bloom, tmp_path).message


def test_an_encoder_is_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForMaskedLM(BertConfig(vocab_size=100, **sizes)).save_pretrained(tmp_path / "bert")
    assert "BertForMaskedLM, not a decoder" in _refusal(ExportError, tmp_path / "bert", tmp_path).message


def test_places_that_hold_no_model_are_wrong_use(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    (tmp_path / "empty").mkdir()
    assert "no config.json" in _refusal(UsageError, tmp_path / "empty", tmp_path).message
    assert "no such folder" in _refusal(UsageError, tmp_path / "nowhere", tmp_path).message
    assert "is a file" in _refusal(UsageError, make_checkpoint() / "config.json", tmp_path).message
    assert "neither a folder" in _refusal(UsageError, "nobody/no-such-model-here", tmp_path).message


def test_a_config_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for text in ("", "[]", '{"model_type": "no-such-type"}', "{"):
        (tmp_path / "model" / "config.json").write_text(text)
        _refusal(SplitLLMError, tmp_path / "model", tmp_path)


def test_pickled_weights_are_not_read(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    model = make_checkpoint()
    (model / "model.safetensors").unlink()
    torch.save({}, model / "pytorch_model.bin")
    assert "pickle" in _refusal(ExportError, model, tmp_path).message


def test_damaged_and_incomplete_weights_are_refused(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    from safetensors.torch import load_file, save_file

    model = make_checkpoint()
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert "lacks 1 weights, model.layers.0.mlp.up_proj.weight" in _refusal(ExportError, model, tmp_path).message
    (model / "model.safetensors").write_bytes(b"not weights")
    assert "cannot be read" in _refusal(ExportError, model, tmp_path).message


def test_config_and_weights_that_disagree_are_refused(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    model = make_checkpoint(num_hidden_layers=2)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    message = _refusal(ExportError, model, tmp_path).message
    assert "config and weights disagree on the size of model.layers.0.mlp.down_proj.weight" in message
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    assert "the config says 1 layers" in _refusal(ExportError, model, tmp_path).message
    (model / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    assert "the checkpoint lacks" in _refusal(ExportError, model, tmp_path).message


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    model = make_checkpoint()
    for file in model.glob("*token*"):
        file.unlink()
    message = _refusal(ExportError, model, tmp_path).message
    assert message == f"{model} has no tokenizer; put the model's tokenizer.json and tokenizer_config.json into it"
    (model / "tokenizer.json").write_text("{")
    assert "no tokenizer can be read" in _refusal(ExportError, model, tmp_path).message


def test_a_tokenizer_without_template_says_how_to_give_one(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    model = make_checkpoint()
    (model / "chat_template.jinja").unlink()
    assert "--chat-template FILE" in _refusal(ExportError, model, tmp_path).message
    assert "template fails" in _refusal(ExportError, model, tmp_path, chat_template="{{ x.y.z }}").message
    assert "template fails" in _refusal(ExportError, model, tmp_path, chat_template="{% for %}").message


def test_a_model_without_end_tokens_or_with_too_many_tokens_is_refused(
    tmp_path: Path, make_checkpoint: Callable[..., Path]
) -> None:
    model = make_checkpoint(eos_token_id=None)
    save_tokenizer(model, eos_token=None)
    assert "no token that ends an answer" in _refusal(ExportError, model, tmp_path).message
    save_tokenizer(model, additional_special_tokens=[f"<extra-{i}>" for i in range(5)])
    assert "264 tokens, the model 259" in _refusal(ExportError, model, tmp_path).message


def test_end_tokens_come_from_config_and_tokenizer(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> None:
    model = make_checkpoint()
    for name in ("config.json", "generation_config.json"):
        config = json.loads((model / name).read_text())
        (model / name).write_text(json.dumps(config | {"eos_token_id": [0, 9]}))
    export_model(model, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["tokenizer"]["end_tokens"] == [0, 2, 9]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"rope_scaling": LONGROPE, "original_max_position_embeddings": 32},
            "'longrope' change with the length of the text; export with --max-context 32",
        ),
        ({"hidden_size": 80}, "heads of 20 values"),
        ({"intermediate_size": 80}, "mlp/down_proj/MatMul is 80 wide"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "already quantized"),
    ],
)
def test_a_llama_that_the_kernels_cannot_run_is_refused(
    tmp_path: Path, make_checkpoint: Callable[..., Path], changes: dict, says: str
) -> None:
    quantized = changes.pop("quantization_config", None)
    model = make_checkpoint(**changes)
    if quantized:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"quantization_config": quantized}))
    assert says in _refusal(ExportError, model, tmp_path).message


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"server_dtype": "bfloat16"}, "no server dtype 'bfloat16'"),
        ({"client_dtypes": ("int3",)}, "no client dtype 'int3'"),
        ({"max_context": 1000}, "more than the model's 128"),
        ({"max_context": 8}, "too short"),
        ({"name": "../x"}, "name"),
        ({"name": "a" * 200}, "name"),
    ],
)
def test_options_that_make_no_sense_are_wrong_use(checkpoint: Path, tmp_path: Path, options: dict, says: str) -> None:
    assert says in _refusal(UsageError, checkpoint, tmp_path, **options).message


def test_out_must_be_new_or_empty(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model, out = make_checkpoint(), tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("kept")
    with pytest.raises(UsageError, match="not an empty folder"):
        export_model(model, out)
    with pytest.raises(UsageError, match="not an empty folder"):
        export_model(model, out / "precious")
    assert (out / "precious").read_text() == "kept"
    (out / "precious").unlink()
    export_model(model, out)
    assert (out / "manifest.json").exists()


def _shift_weights(monkeypatch: pytest.MonkeyPatch, change: Callable[[bytearray], None]) -> None:
    """Change the last block's float32 weights after they are written."""
    write = layout.write_graph

    def write_and_change(part: Part, folder: layout.Folder, stem: str) -> dict:
        names = write(part, folder, stem)
        if stem == "block.0.float32":
            data = bytearray((folder.path / f"{stem}.bin").read_bytes())
            change(data)
            (folder.path / f"{stem}.bin").write_bytes(data)
        return names

    monkeypatch.setattr(layout, "write_graph", write_and_change)


def test_a_weight_that_changed_on_the_way_is_caught_by_the_gate(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(data: bytearray) -> None:
        data[4099] ^= 0x10  # the exponent of one weight

    _shift_weights(monkeypatch, change)
    error = _refusal(ExportError, make_checkpoint(), tmp_path)
    assert error.code == "export_mismatch"
    assert "differ from transformers by" in error.message


def test_weights_that_are_not_finite_are_caught_by_the_gate(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(data: bytearray) -> None:
        data[4096:4100] = b"\x00\x00\xc0\x7f"  # NaN

    _shift_weights(monkeypatch, change)
    error = _refusal(ExportError, make_checkpoint(), tmp_path)
    assert (error.code, "not finite" in error.message) == ("export_mismatch", True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError])
def test_nothing_is_left_when_the_work_breaks_off(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def break_off(*_: object, **__: object) -> None:
        raise error

    model = make_checkpoint()
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(exporter, "check_numbers", break_off)
    with pytest.raises(MachineError if isinstance(error, OSError) else error):  # type: ignore[arg-type]
        export_model(model, tmp_path / "deep" / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_verify_against_another_model_fails_and_against_none_is_wrong_use(
    checkpoint: Path, make_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    model = make_checkpoint(rope_theta=77.0)
    export_model(model, tmp_path / "out")
    report = verify_bundle(tmp_path / "out", checkpoint)
    assert (report.ok, "another model" in report.problems[0]) == (False, True)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rope_theta": 78.0}))
    report = verify_bundle(tmp_path / "out", model)
    assert (report.ok, "differ from transformers" in report.problems[0]) == (False, True)
    with pytest.raises(UsageError):
        verify_bundle(tmp_path / "out", tmp_path / "nowhere")
