"""Which block size and accuracy level int8 and int4 get: what each costs in likelihood, and in time.

    python bench/weight_variants.py [--model DIR] [--text FILE] [--out bench/results/weight_variants.json]

Likelihood: all blocks of the model in each format, prefill over the text, against its float32 blocks (`quality.py`).
Time: one matrix of a gate or up projection, one thread, the fastest of several runs, all formats in one run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import helper
from tokenizers import Tokenizer

from splitllm.bundle import BlockFiles, Bundle, HeadFiles
from splitllm_export import graph, layout, source, tracing
from splitllm_export.decoder import find_parts
from splitllm_export.exporter import export_model
from splitllm_export.half import to_float16
from splitllm_export.modules import BlockModule, HeadModule
from splitllm_export.quality import measure_text
from splitllm_export.quantize import Format, quantize
from splitllm_export.quiet import quiet_libraries
from splitllm_export.variants import as_stored
from splitllm_export.weightless import Part, Weight, placeholder

FORMATS = {
    f"int{bits} block {block} level {level}": Format(bits, block, level)
    for bits in (8, 4)
    for block in (32, 64, 128)
    for level in (0, 4)
}
SHAPES = {"SmolLM2-135M": (576, 1536), "Llama-3.2-1B": (2048, 8192)}
ROWS = (1, 64)
#: 8 bits without integer products take a second a matrix on this runtime: timed at the smallest shape only.
SLOW = (8, 0)


@dataclass(frozen=True)
class Formats:
    """A bundle whose variants are formats; the rest is that of a real bundle of the model."""

    real: Bundle
    folder: Path
    names: tuple[str, ...]

    @property
    def spec(self) -> Any:
        """Sizes of the model."""
        return self.real.spec

    @property
    def block_variants(self) -> tuple[str, ...]:
        """Float32 and every format."""
        return ("float32", *self.names)

    @property
    def manifest(self) -> Any:
        """The variants of the head; no format has a graph that only servers run."""
        return argparse.Namespace(head=("float32", *self.names), blocks=({},))

    def embedding(self) -> Any:
        """The real table."""
        return self.real.embedding()

    def constant(self, name: str, dtype: str) -> Any:
        """The real constants."""
        return self.real.constant(name, dtype)

    def block(self, index: int, variant: str, *, server: bool = False) -> BlockFiles:  # noqa: ARG002  # as Bundle's
        """Files of a block."""
        if variant == "float32":
            return self.real.block(index, variant)
        path = self.folder / f"{variant.replace(' ', '-')}.{index}.onnx"
        return BlockFiles(path, path.with_suffix(".bin"), "float32", self.real.block(index, "float32").constants)

    def head(self, variant: str) -> HeadFiles:
        """Files of a head."""
        if variant == "float32":
            return self.real.head()
        path = self.folder / f"{variant.replace(' ', '-')}.head.onnx"
        return HeadFiles(path, path.with_suffix(".bin"), "float32")


def likelihood(model: Path, text: Path | None) -> dict[str, Any]:
    """Top-1 agreement and divergence of every format, for the blocks and for the head alone."""
    with tempfile.TemporaryDirectory() as scratch, quiet_libraries(), torch.no_grad():
        folder = Path(scratch)
        export_model(model, folder / "bundle", client_dtypes=(), max_context=128)
        real = Bundle.open(folder / "bundle", verify=False)
        config = source.read_config(model)
        decoder = find_parts(source.load_model(model, config), real.spec.max_context)
        for index in range(real.spec.blocks):
            traced = tracing.trace(BlockModule(decoder, index), tracing.BLOCK_AXES, tracing.BLOCK_OUT_AXES)
            block = graph.finish_block(traced, decoder.sizes)
            for name, form in FORMATS.items():
                layout.write_graph(quantize(block, form), layout.Folder(folder), f"{name.replace(' ', '-')}.{index}")
        traced = tracing.trace(HeadModule(decoder), tracing.HEAD_AXES, tracing.HEAD_OUT_AXES)
        head = graph.finish_head(traced, decoder.sizes)
        for name, form in FORMATS.items():
            layout.write_graph(quantize(head, form), layout.Folder(folder), f"{name.replace(' ', '-')}.head")
        words = (text or Path(source.__file__).with_name("prose.txt")).read_text("utf-8")
        ids = Tokenizer.from_file(str(real.tokenizer_path)).encode(words).ids
        found = measure_text(Formats(real, folder, tuple(FORMATS)), ids)  # type: ignore[arg-type]  # as far as it is read
        return {name: asdict(quality) for name, quality in found.items()}


def matrix(k: int, n: int) -> Part:
    """A graph of one product, x [rows, k] with a random matrix."""
    weight = torch.randn(n, k, generator=torch.Generator().manual_seed(0)).mul_(k**-0.5).t()
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "proj")
    values = [helper.make_tensor_value_info("x", 1, ["rows", k]), helper.make_tensor_value_info("y", 1, ["rows", n])]
    main = helper.make_graph([node], "main", values[:1], values[1:], [placeholder("w", (k, n), "w")])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return Part(helper.make_model(main, opset_imports=opsets, ir_version=8), {"w": Weight((k, n), lambda: weight)})


def _milliseconds(part: Part, rows: int, k: int, repeats: int) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        layout.write_graph(part, layout.Folder(Path(scratch)), "part")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(f"{scratch}/part.onnx", options, providers=["CPUExecutionProvider"])
        narrow = part.model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
        x = np.random.default_rng(0).standard_normal((rows, k)).astype(np.float16 if narrow else np.float32)
        times = []
        for _ in range(repeats):
            begin = time.perf_counter()
            session.run(None, {"x": x})
            times.append(1000 * (time.perf_counter() - begin))
        return min(times)


def times() -> dict[str, Any]:
    """Milliseconds of one product, by shape, format and rows."""
    result: dict[str, Any] = {}
    for shape, (k, n) in SHAPES.items():
        exact = matrix(k, n)
        parts = {"float32 MatMul": exact, "float32 FusedMatMul": as_stored(exact), "float16 MatMul": to_float16(exact)}
        for name, form in FORMATS.items():
            if (form.bits, form.accuracy_level) != SLOW or shape == next(iter(SHAPES)):
                parts[name] = quantize(exact, form)
        result[shape] = {
            name: {f"{rows} rows": round(_milliseconds(part, rows, k, 7), 4) for rows in ROWS}
            for name, part in parts.items()
        }
    return result


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("demo/checkpoint"))
    parser.add_argument("--text", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bench/results/weight_variants.json"))
    args = parser.parse_args()
    result = {
        "command": "python bench/weight_variants.py" + (f" --text {args.text.name}" if args.text else ""),
        "model": args.model.name,
        "text": args.text.name if args.text else "prose.txt",
        "onnxruntime": onnxruntime.__version__,
        "likelihood": likelihood(args.model, args.text),
        "milliseconds": times(),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, figures in result["likelihood"].items():
        print(f"{name:32} top-1 {figures['top1_agreement']:.3f}  KL {figures['kl_divergence']:.2e}")
    for shape, formats in result["milliseconds"].items():
        for name, row in formats.items():
            print(f"{shape:14} {name:24} " + "  ".join(f"{rows} {ms:9.3f} ms" for rows, ms in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
