"""Every variant of blocks and head: what the manifest says of it, what it computes, and what it costs on a text."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from splitllm.bundle import DTYPES, VARIANTS, Bundle
from splitllm.engines.onnx import OnnxBlocks, OnnxEngine
from splitllm.errors import BundleError, ExportError, UsageError
from splitllm.types import Span
from splitllm.work import Batch, Work
from splitllm_export import quality
from splitllm_export.chain import BlockRun, Plan, Step, embed, open_session
from splitllm_export.exporter import ExportSummary, export_model
from splitllm_export.verifier import verify_bundle

NARROW = {"float16", "int4f16"}


@pytest.fixture(scope="module")
def everything(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, ExportSummary]:
    """`checkpoint` in all variants, for a server that runs int8."""
    out = tmp_path_factory.mktemp("bundles") / "everything"
    summary = export_model(checkpoint, out, server_dtype="int8", client_dtypes=VARIANTS)
    return Bundle.open(out), summary


def test_all_variants_are_there_in_order_with_their_activations(everything: tuple[Bundle, ExportSummary]) -> None:
    bundle, _ = everything
    assert bundle.block_variants == VARIANTS
    for variant in VARIANTS:
        files = bundle.block(0, variant)
        assert files.activations == ("float16" if variant in NARROW else "float32")
        assert bundle.constant("cos_cache", files.activations).dtype == DTYPES[files.activations]
    assert list(bundle.manifest.head) == ["float32", "int8"]
    assert bundle.manifest.server == ("int8", "int8")
    sizes = [bundle.block_bytes(variant) for variant in ("float32", "float16", "int8", "int4", "int4f16")]
    assert sizes == sorted(sizes, reverse=True)
    assert verify_bundle(bundle.folder).ok


def test_fewer_bits_cost_more_and_what_they_cost_stands_in_the_manifest(
    everything: tuple[Bundle, ExportSummary],
) -> None:
    bundle, summary = everything
    figures = bundle.manifest.variants
    assert set(figures) == {*VARIANTS, "head.int8"}
    errors = {variant: float(figures[variant]["max_abs_error"]) for variant in VARIANTS}
    assert errors["float32"] < errors["float16"] < errors["int8"] < errors["int4"]
    for variant in ("float16", "int8", "int4", "int4f16", "head.int8"):
        assert 0 <= float(figures[variant]["top1_agreement"]) <= 1
        assert int(figures[variant]["text_tokens"]) > 200
    costs = [float(figures[variant]["kl_divergence"]) for variant in ("float16", "int8", "int4")]
    assert costs == sorted(costs)
    assert costs[1] < 0.1 * costs[2]
    assert dict(summary.heads["int8"]) == dict(figures["head.int8"])


def test_a_quantized_head_is_stored_in_8_bits(everything: tuple[Bundle, ExportSummary]) -> None:
    bundle, _ = everything
    weights = bundle.manifest.head["int8"].weights
    assert weights is not None
    assert bundle.manifest.files[weights].size < 0.3 * bundle.manifest.files[bundle.manifest.embed["float32"].file].size
    assert float(bundle.manifest.variants["head.int8"]["kl_divergence"]) > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_engine_runs_every_variant_on_the_cpu(everything: tuple[Bundle, ExportSummary], variant: str) -> None:
    bundle, _ = everything
    hidden = np.array(bundle.embedding()[[5, 80, 7, 200]])
    exact = OnnxBlocks(bundle, Span(0, 3), capacity=8).forward(hidden, 0)
    got = OnnxBlocks(bundle, Span(0, 3), variant=variant, capacity=8).forward(hidden, 0)
    scale = float(np.abs(exact).max())
    allowed = {"float32": 0, "float16": 0.01, "int8": 0.05, "int4": 0.5, "int4f16": 0.5}[variant]
    assert np.abs(got.astype(np.float32) - exact).max() <= allowed * scale


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_measured_is_what_a_server_computes(everything: tuple[Bundle, ExportSummary], variant: str) -> None:
    bundle, _ = everything
    tokens = np.array([5, 80, 7, 200], np.int32)
    plan = Plan((tokens,), (Step(0, (0,), 4),), 8)
    states = embed(bundle, plan)
    for index in range(bundle.spec.blocks):
        states = BlockRun(bundle, index, variant).run(plan, states)
    served = OnnxBlocks(bundle, Span(0, 3), variant=variant, capacity=8).forward(
        np.array(bundle.embedding()[tokens]), 0
    )
    np.testing.assert_allclose(states[0][0], served.astype(np.float32), rtol=0, atol=1e-5 * np.abs(served).max())


def test_an_int4_server_runs_graphs_of_its_own_on_the_same_weights_and_they_are_measured(
    checkpoint: Path, tmp_path: Path
) -> None:
    summary = export_model(checkpoint, tmp_path / "out", server_dtype="int4", client_dtypes=("int4",))
    bundle = Bundle.open(tmp_path / "out")
    for block in bundle.manifest.blocks:
        assert (block["float32"].server_graph, block["int4"].server_graph is None) == (None, False)
    for server, level in ((False, 0), (True, 4)):
        graph = onnx.load(bundle.block(1, "int4", server=server).graph, load_external_data=False).graph
        products = [node for node in graph.node if node.op_type == "MatMulNBits"]
        assert len(products) == 7
        assert all(helper.get_node_attr_value(node, "accuracy_level") == level for node in products)

    tokens = np.array([5, 80, 7, 200], np.int32)
    plan = Plan((tokens,), (Step(0, (0,), 4),), 8)
    chains = {name: embed(bundle, plan) for name in ("int4", "server.int4")}
    for index in range(bundle.spec.blocks):
        chains = {name: BlockRun(bundle, index, name).run(plan, states) for name, states in chains.items()}
    head = open_session(bundle.head("int8").graph, packed=True)
    logits = {name: head.run(["logits"], {"hidden_states": states[0]})[0][0, -1] for name, states in chains.items()}
    served = OnnxEngine(bundle, rows=1, capacity=8, device="cpu").run(
        Batch(prefill=(Work(0, 0, 0, tokens, wants_logits=True),))
    )[0]
    np.testing.assert_allclose(served, logits["server.int4"], rtol=0, atol=1e-5 * np.abs(served).max())
    assert np.abs(served - logits["int4"]).max() > 1e-3 * np.abs(served).max()

    measured = bundle.manifest.variants["server.int4"]
    assert measured.keys() == bundle.manifest.variants["int4"].keys()
    assert measured != bundle.manifest.variants["int4"]
    assert dict(summary.served["int4"]) == dict(measured)
    report = verify_bundle(bundle.folder)
    assert (report.ok, report.graphs_loaded) == (True, 3 * 3 + 2)
    assert "server.int4" in report.variants


def test_a_float16_server_gets_a_float16_head(checkpoint: Path, tmp_path: Path) -> None:
    export_model(checkpoint, tmp_path / "out", server_dtype="float16", client_dtypes=())
    bundle = Bundle.open(tmp_path / "out")
    assert bundle.block_variants == ("float32", "float16")
    assert bundle.head("float16").activations == "float16"
    assert bundle.manifest.server == ("float16", "float16")
    assert float(bundle.manifest.variants["head.float16"]["kl_divergence"]) < 1e-3


def test_a_manifest_that_wants_a_variant_it_lacks_is_refused(
    everything: tuple[Bundle, ExportSummary], tmp_path: Path
) -> None:
    manifest = json.loads(everything[0].manifest_bytes)
    manifest["export"]["server"]["head"] = "float16"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"export\.server wants float16 for the head"):
        Bundle.open(tmp_path)


def test_the_text_is_the_one_that_is_given_and_must_say_something(checkpoint: Path, tmp_path: Path) -> None:
    summary = export_model(checkpoint, tmp_path / "out", max_context=64, text="An ordinary text. " * 9)
    assert summary.variants["int4"]["text_tokens"] == 9 * 18
    with pytest.raises(UsageError, match="has 5 tokens; 64 are the least"):
        export_model(checkpoint, tmp_path / "none", text="Short")


def test_divergence_is_that_of_the_definition() -> None:
    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.2, 0.5, 0.3]])
    want = float((p * np.log(p / q)).sum())
    found = quality._compare(iter([np.log(p) + 3]), iter([np.log(q) - 2]))
    assert found.kl_divergence == pytest.approx(want)
    assert (found.top1_agreement, found.tokens) == (0, 1)


def test_a_block_that_overflows_in_float16_is_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from .conftest import llama_config, save_model

    folder = save_model(tmp_path / "model", llama_config(num_hidden_layers=1))
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] *= 3e5
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match="the float16 blocks give logits that are not finite"):
        export_model(folder, tmp_path / "out", client_dtypes=("float16",))
    assert not (tmp_path / "out").exists()
