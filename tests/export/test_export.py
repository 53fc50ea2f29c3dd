"""What an exported bundle is: the format of BUNDLE.md, and at every cut the numbers of transformers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from splitllm.bundle import Bundle
from splitllm.resources import demo_bundle
from splitllm_export import gate
from splitllm_export.chain import BlockRun
from splitllm_export.exporter import export_model
from splitllm_export.verifier import verify_bundle

from .conftest import LLAMA3_ROPE, VOCAB


def _feed(bundle: Bundle, index: int, variant: str, hidden: np.ndarray, cache: tuple, past: int) -> tuple:
    """One step of one block through plain `run`, written apart from the exporter's own chain."""
    files = bundle.block(index, variant)
    session = onnxruntime.InferenceSession(str(files.graph), providers=["CPUExecutionProvider"])
    total = past + hidden.shape[1]
    return session.run(
        ["hidden_states_out", "present_key", "present_value"],
        {
            "hidden_states": hidden,
            "seqlens_k": np.full(hidden.shape[0], total - 1, np.int32),
            "total_sequence_length": np.array(total, np.int32),
            "past_key": cache[0],
            "past_value": cache[1],
            **{name: bundle.constant(constant, "float32") for name, constant in files.constants.items()},
        },
    )


def _logits(bundle: Bundle, ids: np.ndarray, split: int, variant: str, chunks: tuple[int, ...]) -> np.ndarray:
    """Logits [n, vocab] of one row fed in `chunks`, blocks [0, split) in `variant`."""
    spec = bundle.spec
    empty = np.zeros((1, spec.kv_heads, 0, spec.head_dim), np.float32)
    caches = [(empty, empty)] * spec.blocks
    head = onnxruntime.InferenceSession(str(bundle.head().graph), providers=["CPUExecutionProvider"])
    out, past = [], 0
    for chunk in chunks:
        hidden = np.array(bundle.embedding()[ids[past : past + chunk]])[None]
        for index in range(spec.blocks):
            chosen = variant if index < split else "float32"
            hidden, *present = _feed(bundle, index, chosen, hidden, caches[index], past)
            caches[index] = (present[0], present[1])
        out.append(head.run(None, {"hidden_states": hidden})[0][0])
        past += chunk
    return np.concatenate(out)


@pytest.fixture(scope="module")
def ids() -> np.ndarray:
    return np.random.default_rng(7).integers(0, VOCAB, 48)


@pytest.fixture(scope="module")
def expected(checkpoint: Path, ids: np.ndarray) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    with torch.no_grad():
        return model(torch.from_numpy(ids)[None]).logits[0].numpy()


@pytest.mark.parametrize("split", range(4))
def test_float32_chain_equals_transformers_at_every_cut(
    bundle: Bundle, ids: np.ndarray, expected: np.ndarray, split: int
) -> None:
    # 1e-5: ten times what rounding in another order costs on logits of this size
    got = _logits(bundle, ids, split, "float32", (32, 13, 1, 1, 1))
    assert np.abs(got - expected).max() < 1e-5


def test_int4_prefix_stays_near_transformers_and_grows_less_exact_with_the_split(
    bundle: Bundle, ids: np.ndarray, expected: np.ndarray
) -> None:
    errors = [float(np.abs(_logits(bundle, ids, k, "int4", (48,)) - expected).mean()) for k in range(4)]
    assert errors[0] < 1e-5
    assert errors == sorted(errors)
    assert errors[3] < 0.2 * float(expected.std())


def test_the_manifest_tells_sizes_tokens_and_measured_errors(bundle: Bundle, checkpoint: Path) -> None:
    spec, manifest = bundle.spec, bundle.manifest
    assert (spec.name, manifest.architecture, spec.blocks, spec.max_context) == ("tiny-llama", "llama", 3, 128)
    assert (spec.hidden_size, spec.heads, spec.kv_heads, spec.head_dim, spec.vocab_size) == (64, 4, 2, 16, VOCAB)
    assert spec.end_tokens == (2,)
    assert manifest.tokenizer.eos_token == "<|im_end|>"
    assert bundle.block_variants == ("float32", "int4")
    assert manifest.variants["float32"]["max_abs_error"] < 1e-5
    assert manifest.variants["float32"]["top1_agreement"] == 1
    assert 0 < manifest.variants["int4"]["max_abs_error"] < 5
    assert bundle.block_bytes("int4") < 0.25 * bundle.block_bytes("float32")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.chat_template == bundle.chat_template


def test_the_embedding_and_rotary_tables_are_the_models_own(bundle: Bundle, checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    assert np.array_equal(bundle.embedding(), model.model.embed_tokens.weight.detach().numpy())
    cos, sin = model.model.rotary_emb(torch.zeros(1), torch.arange(128)[None])
    assert np.array_equal(bundle.constant("cos_cache", "float32"), cos[0, :, :8].numpy())
    assert np.array_equal(bundle.constant("sin_cache", "float32"), sin[0, :, :8].numpy())


def test_graphs_keep_the_contract_and_carry_no_trace_of_the_machine(bundle: Bundle) -> None:
    for variant in bundle.block_variants:
        path = bundle.block(1, variant).graph
        model = onnx.load(path, load_external_data=False)
        assert [value.name for value in model.graph.input] == [
            "hidden_states",
            "seqlens_k",
            "total_sequence_length",
            "past_key",
            "past_value",
            "cos_cache",
            "sin_cache",
        ]
        assert [value.name for value in model.graph.output] == ["hidden_states_out", "present_key", "present_value"]
        kinds = [node.op_type for node in model.graph.node]
        assert kinds.count("GroupQueryAttention") == 1
        assert kinds.count("SimplifiedLayerNormalization") == 1
        assert kinds.count("SkipSimplifiedLayerNormalization") == 1
        assert len(kinds) == 13
        assert kinds.count("MatMulNBits" if variant == "int4" else "MatMul") == 7
        assert not {"Reshape", "Transpose", "Cast", "Shape", "Concat"} & set(kinds)
        assert {(o.domain, o.version) for o in model.opset_import} == {("", 18), ("com.microsoft", 1)}
        data = path.read_bytes()
        assert len(data) < 16_000
        for trace in (b"/home", b"site-packages", b".py", b"pytorch", b"Traceback", str(Path.cwd()).encode()):
            assert trace not in data


def test_weights_lie_outside_the_graph_and_aligned(bundle: Bundle) -> None:
    for files in (bundle.block(0, "float32"), bundle.block(0, "int4"), bundle.head()):
        assert files.weights is not None
        for tensor in onnx.load(files.graph, load_external_data=False).graph.initializer:
            place = {entry.key: entry.value for entry in tensor.external_data}
            assert place["location"] == files.weights.name
            assert int(place["offset"]) % (4096 if int(place["length"]) >= 65536 else 64) == 0


def test_exporting_twice_gives_the_same_bytes(bundle: Bundle, checkpoint: Path, tmp_path: Path) -> None:
    summary = export_model(checkpoint, tmp_path / "again")
    assert summary.identity == bundle.identity
    for name in (*bundle.manifest.files, "manifest.json"):
        assert (tmp_path / "again" / name).read_bytes() == (bundle.folder / name).read_bytes()


def test_verify_agrees_with_the_model_at_every_split(bundle: Bundle, checkpoint: Path) -> None:
    report = verify_bundle(bundle.folder, checkpoint)
    assert report.ok
    assert (report.splits_checked, report.graphs_loaded, report.files) == (4, 7, 19)
    assert report.max_abs_error is not None
    assert report.max_abs_error < 1e-5
    assert set(report.variants) == {"float32", "int4"}


def test_verify_without_a_model_compares_every_split_with_the_bundles_own_float32(bundle: Bundle) -> None:
    report = verify_bundle(bundle.folder)
    assert report.ok
    assert (report.splits_checked, report.graphs_loaded, report.top1_agreement) == (4, 7, 1)
    assert report.max_abs_error is not None
    assert report.max_abs_error < 1e-5
    assert {"max_abs_error", "top1_agreement", "text_kl_divergence"} <= set(report.variants["int4"])
    alone = verify_bundle(bundle.folder, files_only=True)
    assert (alone.ok, alone.splits_checked, alone.max_abs_error, alone.graphs_loaded) == (True, 0, None, 7)


@pytest.mark.parametrize(("most", "whole", "runs"), [(8, 8, 29), (2, 2, 14)])
def test_every_split_is_handed_over_and_some_of_a_deep_model_are_run_to_the_logits(
    monkeypatch: pytest.MonkeyPatch, most: int, whole: int, runs: int
) -> None:
    seen = []
    run = BlockRun.run
    monkeypatch.setattr(gate, "MOST_WHOLE", most)
    monkeypatch.setattr(BlockRun, "run", lambda *given: seen.append(given) or run(*given))
    report = verify_bundle(demo_bundle())
    assert report.ok
    assert (report.splits_checked, report.splits_run_whole) == (9, whole + 1)
    assert 0.01 < report.variants["int4"]["handover_error"] < 0.5
    assert len(seen) == 3 * 8 + 8 + 8 + runs  # the rows of the reference, float32, int4, and what follows the splits


def test_states_that_are_handed_over_are_measured_in_their_own_spread() -> None:
    want = [np.array([0.0, 2.0]), np.array([[4.0, -2.0]])]
    assert gate.relative_error(want, want) == 0
    assert gate.relative_error([want[0] + 1, want[1] - 1], want) == pytest.approx(1 / np.std([0, 2, 4, -2]))
    assert np.isnan(gate.relative_error([want[0] * np.nan, want[1]], want))


def test_one_flipped_bit_is_found_in_any_file(bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    for path in sorted(copy.iterdir()):
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        report = verify_bundle(copy, files_only=True)
        path.write_bytes(data)
        if path.name == "manifest.json":  # which has no hash of its own: its identity differs, or it is malformed
            assert (report.ok, report.identity) != (True, bundle.identity)
        else:
            assert not report.ok, path.name
            assert path.name in report.problems[0]
    assert verify_bundle(copy, files_only=True).ok


def test_a_graph_that_breaks_the_contract_is_found(bundle: Bundle, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle.folder, tmp_path / "copy"))
    manifest = json.loads((copy / "manifest.json").read_text())
    entry = manifest["blocks"][0]["float32"]
    entry["graph"], entry["weights"] = manifest["head"]["float32"]["graph"], manifest["head"]["float32"]["weights"]
    (copy / "manifest.json").write_text(json.dumps(manifest))
    report = verify_bundle(copy)
    assert not report.ok
    assert "head.float32.onnx has the inputs hidden_states" in report.problems[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_scaling": LLAMA3_ROPE, "tie_word_embeddings": True},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}},
        {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True},
        {"num_key_value_heads": 1, "head_dim": 32, "rms_norm_eps": 1e-3, "hidden_act": "gelu"},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 500.0},
    ],
    ids=["llama3 rope, tied", "yarn", "biases, no groups", "one kv head", "linear rope"],
)
def test_every_kind_of_llama_passes_the_gate(
    make_checkpoint: Callable[..., Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    summary = export_model(make_checkpoint(num_hidden_layers=2, **changes), tmp_path / "out")
    assert summary.variants["float32"]["max_abs_error"] < 1e-5


def test_options_shape_the_bundle(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    summary = export_model(
        make_checkpoint(num_hidden_layers=2),
        tmp_path / "new" / "folders" / "out",
        client_dtypes=("float32",),
        max_context=40,
        chat_template="{{ messages[0]['content'] }}",
        name="my-model",
        progress=lambda *step: seen.append(step),
    )
    bundle = Bundle.open(tmp_path / "new" / "folders" / "out")
    assert (bundle.spec.name, bundle.spec.max_context, bundle.block_variants) == ("my-model", 40, ("float32",))
    assert bundle.constant("cos_cache", "float32").shape == (40, 8)
    assert bundle.chat_template == "{{ messages[0]['content'] }}"
    assert ("exporting block", 2, 2) in seen
    assert ("checking block", 2, 2) in seen
    assert summary.total_bytes == sum(path.stat().st_size for path in bundle.folder.iterdir())
