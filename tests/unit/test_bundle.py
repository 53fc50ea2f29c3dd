"""A bundle made by hand of tiny files; every kind of damage is refused in one line that names the file."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from splitllm.bundle import Bundle, manifest_from_json
from splitllm.errors import BundleError, UsageError
from splitllm.types import SamplingParams

VOCAB, HIDDEN, BLOCKS, CONTEXT = 10, 8, 2, 16
TABLE = np.arange(VOCAB * HIDDEN, dtype="<f4").reshape(VOCAB, HIDDEN)
ROPE = np.arange(2 * CONTEXT * 2, dtype="<f4").reshape(2, CONTEXT, 2)


def _graph(part: str, variant: str, *, constants: bool) -> dict[str, object]:
    entry: dict[str, object] = {
        "graph": f"{part}.{variant}.onnx",
        "weights": f"{part}.{variant}.bin",
        "activations": "float32",
    }
    if constants:
        entry["constants"] = {"cos_cache": "cos_cache", "sin_cache": "sin_cache"}
    return entry


def _write_manifest(folder: Path, manifest: dict) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole bundle: 2 blocks in float32 and int4, 10 tokens of 8 numbers, chunks of 4 rows."""
    root = tmp_path / "bundle"
    root.mkdir()
    table = TABLE.tobytes()
    chunks = [table[i : i + 4 * 32] for i in range(0, len(table), 4 * 32)]
    contents = {
        "tokenizer.json": b"{}",
        "embed.float32.bin": table,
        "embed.float32.sha256": b"".join(hashlib.sha256(chunk).digest() for chunk in chunks),
        "rope.float32.bin": ROPE.tobytes(),
        "head.float32.onnx": b"head graph",
        "head.float32.bin": b"head weights",
    }
    for block in range(BLOCKS):
        for variant, size in (("float32", 100 + block), ("int4", 20)):
            contents[f"block.{block}.{variant}.onnx"] = b"graph"
            contents[f"block.{block}.{variant}.bin"] = bytes(size)
    for name, data in contents.items():
        (root / name).write_bytes(data)
    tensor = {"file": "rope.float32.bin", "shape": [CONTEXT, 2]}
    _write_manifest(
        root,
        {
            "format": "splitllm-bundle",
            "format_version": 1,
            "model": {
                "name": "tiny",
                "architecture": "llama",
                "blocks": BLOCKS,
                "hidden_size": HIDDEN,
                "heads": 2,
                "kv_heads": 1,
                "head_dim": 4,
                "vocab_size": VOCAB,
                "max_context": CONTEXT,
            },
            "tokenizer": {
                "file": "tokenizer.json",
                "chat_template": "{{ messages }}",
                "bos_token": None,
                "eos_token": "<end>",
                "end_tokens": [2, 3],
            },
            "generation": {"temperature": 0.5},
            "constants": {
                "cos_cache": {"float32": {**tensor, "offset": 0}},
                "sin_cache": {"float32": {**tensor, "offset": ROPE[0].nbytes}},
            },
            "embed": {
                "float32": {
                    "file": "embed.float32.bin",
                    "row_bytes": 4 * HIDDEN,
                    "rows_per_chunk": 4,
                    "hashes": "embed.float32.sha256",
                }
            },
            "blocks": [
                {variant: _graph(f"block.{i}", variant, constants=True) for variant in ("float32", "int4")}
                for i in range(BLOCKS)
            ],
            "head": {"float32": _graph("head", "float32", constants=False)},
            "files": {
                name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()
            },
            "export": {"tool": "by hand", "variants": {"float32": {"max_abs_error": 0.0}}},
        },
    )
    return root


def _manifest(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text("utf-8"))


def _set(manifest: dict, path: str, value: object) -> dict:
    *parents, last = path.split("/")
    place = manifest
    for key in parents:
        place = place[int(key)] if isinstance(place, list) else place[key]
    if value is KeyError:
        del place[last]
    else:
        place[last] = value
    return manifest


def _refusal(folder: Path, *, verify: bool = True) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder, verify=verify)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_whole_bundle_opens_and_hands_out_everything(folder: Path) -> None:
    bundle = Bundle.open(folder)
    data = (folder / "manifest.json").read_bytes()
    assert bundle.identity == hashlib.sha256(data).hexdigest()
    assert bundle.manifest_bytes == data
    assert (bundle.spec.blocks, bundle.spec.hidden_size, bundle.spec.end_tokens) == (BLOCKS, HIDDEN, (2, 3))
    assert bundle.block_variants == ("float32", "int4")
    block = bundle.block(1, "int4")
    assert (block.graph.name, block.activations) == ("block.1.int4.onnx", "float32")
    assert block.weights is not None
    assert block.weights.name == "block.1.int4.bin"
    assert block.constants == {"cos_cache": "cos_cache", "sin_cache": "sin_cache"}
    assert bundle.head().graph.read_bytes() == b"head graph"
    assert bundle.block_bytes("float32") == 101 + len(b"graph")
    assert bundle.generation == SamplingParams(temperature=0.5)
    assert bundle.chat_template == "{{ messages }}"
    assert bundle.end_tokens == (2, 3)
    assert bundle.tokenizer_path.read_bytes() == b"{}"


def test_a_server_reads_its_own_graph_of_the_same_weights_where_there_is_one(folder: Path) -> None:
    manifest = _manifest(folder)
    for index, block in enumerate(manifest["blocks"]):
        block["int4"]["server_graph"] = f"block.{1 - index}.float32.onnx"  # any file that is there
    _write_manifest(folder, manifest)
    with pytest.raises(BundleError, match=r"server\.int4 .* not measured; .*export"):
        Bundle.open(folder)
    manifest["export"]["variants"]["server.int4"] = {"top1_agreement": 1.0}
    _write_manifest(folder, manifest)
    bundle = Bundle.open(folder)
    assert [bundle.block(1, "int4", server=s).graph.name for s in (False, True)] == [
        "block.1.int4.onnx",
        "block.0.float32.onnx",
    ]
    assert bundle.block(1, "int4", server=True).weights == bundle.block(1, "int4").weights
    assert bundle.block(1, "float32", server=True) == bundle.block(1, "float32")


def test_embedding_and_constants_are_read_only_views_of_the_files(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert np.array_equal(bundle.embedding(), TABLE)
    assert np.array_equal(bundle.constant("cos_cache", "float32"), ROPE[0])
    assert np.array_equal(bundle.constant("sin_cache", "float32"), ROPE[1])
    for array in (bundle.embedding(), bundle.constant("cos_cache", "float32")):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_what_the_bundle_does_not_have_is_refused_with_a_code(folder: Path) -> None:
    bundle = Bundle.open(folder)
    for ask in (
        lambda: bundle.block(0, "float16"),
        lambda: bundle.head("int4"),
        lambda: bundle.embedding("float16"),
        lambda: bundle.constant("cos_cache", "float16"),
        lambda: bundle.constant("tan_cache", "float32"),
        lambda: bundle.block_bytes("int8"),
    ):
        with pytest.raises(BundleError) as caught:
            ask()
        assert caught.value.code == "variant_unavailable"
    with pytest.raises(IndexError):
        bundle.block(BLOCKS, "float32")


@pytest.mark.parametrize("name", ["manifest.json", "../secret", "/etc/passwd", "", "block.0.float32.bin\n"])
def test_only_listed_files_have_a_path(folder: Path, name: str) -> None:
    bundle = Bundle.open(folder)
    assert bundle.path("block.0.float32.bin").is_file()
    with pytest.raises(BundleError):
        bundle.path(name)


def test_a_folder_that_is_missing_or_no_bundle_is_named(folder: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", folder / "tokenizer.json"):
        with pytest.raises(UsageError, match=f"{path.name} is not a folder; give"):
            Bundle.open(path)
    (tmp_path / "empty").mkdir()
    assert "no manifest.json" in _refusal(tmp_path / "empty")


@pytest.mark.parametrize(
    "data",
    [b"", b"[", b"\xff\xfe", b"[" * 100_000, b'{"format": NaN}', b"[]", b"{}", b'{"format": "other"}'],
    ids=["empty", "cut", "not utf-8", "deep", "nan", "list", "no format", "foreign"],
)
def test_a_manifest_that_is_none_is_refused(folder: Path, data: bytes) -> None:
    (folder / "manifest.json").write_bytes(data)
    assert "manifest.json" in _refusal(folder)


def test_a_newer_format_asks_for_an_update(folder: Path) -> None:
    _write_manifest(folder, {"format": "splitllm-bundle", "format_version": 2, "news": True})
    assert "update splitllm" in _refusal(folder)


@pytest.mark.parametrize("name", sorted(["tokenizer.json", "embed.float32.sha256", "block.1.int4.bin"]))
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"{name} is missing" in _refusal(folder, verify=False)


def test_a_file_of_the_wrong_size_is_named_even_without_hashing(folder: Path) -> None:
    with (folder / "block.0.int4.bin").open("ab") as file:
        file.write(b"x")
    assert "block.0.int4.bin has 21 bytes" in _refusal(folder, verify=False)


def test_one_flipped_bit_is_found_by_its_hash(folder: Path) -> None:
    data = bytearray((folder / "block.1.float32.bin").read_bytes())
    data[50] ^= 1
    (folder / "block.1.float32.bin").write_bytes(data)
    Bundle.open(folder, verify=False)
    assert "block.1.float32.bin is damaged" in _refusal(folder)


def test_chunk_hashes_that_do_not_fit_the_table_are_found(folder: Path) -> None:
    hashes = folder / "embed.float32.sha256"
    data = bytes(32) + hashes.read_bytes()[32:]
    hashes.write_bytes(data)
    manifest = _manifest(folder)
    manifest["files"][hashes.name]["sha256"] = hashlib.sha256(data).hexdigest()
    _write_manifest(folder, manifest)
    assert "embed.float32.sha256 does not fit embed.float32.bin at chunk 0" in _refusal(folder)


@pytest.mark.parametrize("name", ["block.0.float32.bin", "manifest.json"])
def test_a_link_that_leads_out_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "outside")
    (folder / name).symlink_to(tmp_path / "outside")
    assert f"{name} is a link that leads out" in _refusal(folder)


def test_a_link_to_itself_and_a_pipe_are_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("tokenizer.json")
    assert "tokenizer.json" in _refusal(folder)
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    assert "tokenizer.json" in _refusal(folder)


def test_a_bundle_reached_by_a_link_opens(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(folder)
    assert Bundle.open(tmp_path / "alias").folder == folder.resolve()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("model/blocks", 3, "3"),
        ("model/blocks", "2", "model.blocks"),
        ("model/blocks", True, "model.blocks"),
        ("model/kv_heads", 3, "kv_heads"),
        ("model/kv_heads", 0, "kv_heads"),
        ("model/name", "../x", "name"),
        ("model/name", "x\n", "name"),
        ("model/extra", 1, "extra"),
        ("tokenizer/end_tokens", [], "end_tokens"),
        ("tokenizer/end_tokens", [VOCAB], "end_tokens"),
        ("tokenizer/file", "other.json", "other.json"),
        ("generation/temperature", -1, "temperature"),
        ("generation/temperature", 1e999, "finite"),
        ("embed/float32/row_bytes", 33, "row_bytes"),
        ("embed/float32/rows_per_chunk", 10_000, "chunks"),
        ("embed/float32/rows_per_chunk", 2, "embed.float32.sha256"),
        ("embed/float32/file", "rope.float32.bin", "rope.float32.bin"),
        ("embed/float32/hashes", "../x", "hashes"),
        ("constants/sin_cache/float32/offset", 130, "sin_cache"),
        ("constants/sin_cache/float32/offset", 132, "sin_cache"),
        ("constants/cos_cache/float32", KeyError, "cos_cache"),
        ("constants/sin_cache", KeyError, "sin_cache"),
        ("blocks/1/int4", KeyError, "blocks[1]"),
        ("blocks/1/int4/server_graph", "block.1.int4.onnx", "blocks[1].int4 and blocks[0].int4 do not both have"),
        ("blocks/0/int4/server_graph", "absent.onnx", "'absent.onnx', which is not in files"),
        ("blocks/1/float32", KeyError, "float32"),
        ("blocks/0/int4/graph", "/etc/passwd", "graph"),
        ("blocks/0/int4/weights", "nothing.bin", "nothing.bin"),
        ("blocks/0/int4/activations", "float16", "float16"),
        ("blocks/0/float32/constants", {"past_key": "cos_cache"}, "past_key"),
        ("head/float32", KeyError, "float32"),
        ("head/float32/activations", "float16", "head.float32.onnx"),
        ("files/tokenizer.json", KeyError, "tokenizer.json"),
        ("files/tokenizer.json/sha256", "AB", "sha256"),
        ("files/manifest.json", {"size": 1, "sha256": "0" * 64}, "manifest.json"),
        ("files/..", {"size": 1, "sha256": "0" * 64}, ".."),
        ("files/a\n", {"size": 1, "sha256": "0" * 64}, "a"),
        ("export", KeyError, "export"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(folder: Path, path: str, value: object, says: str) -> None:
    manifest = _set(_manifest(folder), path, value)
    with pytest.raises(BundleError) as caught:
        manifest_from_json(manifest)
    assert says in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 600


def test_whole_numbers_written_as_floats_become_integers(folder: Path) -> None:
    manifest = manifest_from_json(_set(_manifest(folder), "model/max_context", 16.0))
    assert isinstance(manifest.model.max_context, int)
