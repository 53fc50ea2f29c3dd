"""The table of families in docs/exporting.md. `python -m tests.export.table` writes it anew from small models."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from transformers import AutoModelForCausalLM

from splitllm.bundle import Bundle
from splitllm_export import exporter
from splitllm_export.chain import BlockRun, embed, make_plan, run_head
from splitllm_export.quiet import quiet_libraries
from splitllm_export.reference import reference_of

from .families import FAMILIES, save_family

PAGE = Path(__file__).parents[2] / "docs" / "exporting.md"
BEGIN, END = "<!-- families: python -m tests.export.table -->\n", "<!-- end of families -->\n"
HEADER = (
    "| family | `model_type` | float32: prefill | decode | float16 | nodes of a block | rotation "
    "| norms, activation |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def errors(bundle: Bundle, model: Path, variant: str) -> tuple[float, float]:
    """Largest difference of a logit in steps of several positions, and in steps of one, all blocks in `variant`."""
    reference = reference_of(AutoModelForCausalLM.from_pretrained(model).eval())
    plan = make_plan(bundle.spec.vocab_size, bundle.spec.max_context)
    expected = [reference(tokens) for tokens in plan.tokens]
    hidden = embed(bundle, plan)
    for index in range(bundle.spec.blocks):
        hidden = BlockRun(bundle, index, variant).run(plan, hidden)
    worst = {True: 0.0, False: 0.0}
    for step, logits in zip(plan.steps, run_head(bundle, hidden), strict=True):
        for index, (row, past) in enumerate(step.positions()):
            difference = np.abs(logits[index] - expected[row][past : past + step.count]).max()
            worst[step.count > 1] = max(worst[step.count > 1], float(difference))
    return worst[True], worst[False]


def describe(bundle: Bundle) -> tuple[int, str, str]:
    """Nodes of the last block, how it rotates, and its fused nodes."""
    paths = [bundle.block(index, "float32").graph for index in range(bundle.spec.blocks)]
    graphs = [onnx.load(path, load_external_data=False).graph for path in paths]
    rotation = ", ".join(dict.fromkeys(_rotation(graph) for graph in graphs))
    graph = graphs[-1]
    kinds = Counter(node.op_type for node in graph.node)
    names = ("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "LayerNormalization")
    names += ("SkipLayerNormalization", "QuickGelu", "FastGelu", "Gelu")
    short = {n: n.replace("SimplifiedLayerNormalization", "RMSNorm") for n in names}
    short = {n: s.replace("LayerNormalization", "LayerNorm") for n, s in short.items()}
    parts = [f"{kinds[name]} {short[name]}" if kinds[name] > 1 else short[name] for name in names if kinds[name]]
    return len(graph.node), rotation, ", ".join(parts)


def _rotation(graph: onnx.GraphProto) -> str:
    attention = next(node for node in graph.node if node.op_type == "GroupQueryAttention")
    if any(attribute.name == "do_rotary" for attribute in attention.attribute):
        return "in attention"
    return "in the graph" if any(value.name.startswith("cos_cache") for value in graph.input) else "none"


def rows() -> Iterator[str]:
    """A line of the table for each family."""
    for family, (model_type, _) in FAMILIES.items():
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            model, out = save_family(Path(folder) / "model", family), Path(folder) / "out"
            exporter.export_model(model, out, client_dtypes=("float32", "float16"))
            bundle = Bundle.open(out)
            (prefill, decode), half = errors(bundle, model, "float32"), max(errors(bundle, model, "float16"))
            nodes, rotation, fused = describe(bundle)
        cells = (
            family,
            f"`{model_type}`",
            f"{prefill:.0e}",
            f"{decode:.0e}",
            f"{half:.0e}",
            str(nodes),
            rotation,
            fused,
        )
        yield f"| {' | '.join(cells)} |\n"


def put(begin: str, text: str, end: str) -> None:
    """Write the page anew with `text` between two of its marks."""
    page = PAGE.read_text("utf-8")
    before, rest = page.split(begin)
    PAGE.write_text(before + begin + text + end + rest.split(end)[1], "utf-8")


def main() -> None:
    """Put the table between its two marks."""
    put(BEGIN, HEADER + "".join(rows()), END)


if __name__ == "__main__":
    main()
