"""`verify_bundle`: is a folder a whole bundle, do its graphs keep their contract, and do they compute the same?

Needs onnxruntime; torch and transformers only to compare `against` a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from splitllm.bundle import BLOCK_INPUTS, BLOCK_OUTPUTS, Bundle
from splitllm.errors import BundleError, VerificationError

from .chain import open_session
from .gate import Figures, Progress, check_numbers

_TYPES: Final = {"float32": "tensor(float)", "float16": "tensor(float16)", "int32": "tensor(int32)"}
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found. Without `against` there are no numbers: `max_abs_error` is null and no split is checked."""

    ok: bool
    name: str | None
    identity: str | None
    blocks: int
    files: int
    graphs_loaded: int
    splits_checked: int
    max_abs_error: float | None
    variants: Mapping[str, Mapping[str, float]]
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def verify_bundle(folder: Path, against: str | Path | None = None, *, progress: Progress | None = None) -> VerifyReport:
    """Check schema, sizes and hashes, then every graph's inputs and outputs, then, with `against`, the numbers.

    What is wrong with the bundle stands in `problems`. With `against` each variant is run at every split.

    Raises:
        UsageError: `against` is no model.
    """
    try:
        bundle = Bundle.open(Path(folder), verify=True)
    except BundleError as error:
        return VerifyReport(False, None, None, 0, 0, 0, 0, None, {}, (error.message,))
    problems: list[str] = []
    figures: Mapping[str, Figures] = {}
    graphs = 0
    try:
        graphs = _check_graphs(bundle, progress)
        if against is not None:
            figures = _compare(bundle, against, progress)
    except VerificationError as error:
        problems.append(error.message)
    return VerifyReport(
        ok=not problems,
        name=bundle.spec.name,
        identity=bundle.identity,
        blocks=bundle.spec.blocks,
        files=len(bundle.manifest.files) + 1,
        graphs_loaded=graphs,
        splits_checked=bundle.spec.blocks + 1 if figures else 0,
        max_abs_error=figures["float32"].max_abs_error if figures else None,
        variants={
            v: {"max_abs_error": f.max_abs_error, "top1_agreement": f.top1_agreement} for v, f in figures.items()
        },
        problems=tuple(problems),
    )


def _compare(bundle: Bundle, against: str | Path, progress: Progress | None) -> Mapping[str, Figures]:
    from . import source  # torch and transformers are heavy, and only this needs them
    from .exporter import reference_of
    from .quiet import quiet_libraries

    with quiet_libraries():
        config = source.read_config(against)
        texts = source.read_texts(against, config, bundle.chat_template)
        model = source.load_model(against, config)
        rows = model.get_input_embeddings().weight.shape[0]
        if (config.num_hidden_layers, rows) != (bundle.spec.blocks, bundle.spec.vocab_size):
            raise VerificationError(
                f"{against} has {config.num_hidden_layers} blocks and {rows} tokens, "
                f"the bundle {bundle.spec.blocks} and {bundle.spec.vocab_size}: another model"
            )
        return check_numbers(bundle, reference_of(model), prompt=texts.prompt, every_split=True, progress=progress)


def _check_graphs(bundle: Bundle, progress: Progress | None) -> int:
    """Load every graph in ONNX Runtime, compare its inputs and outputs with BUNDLE.md; how many there were."""
    s, loaded = bundle.spec, 0
    for index, variants in enumerate(bundle.manifest.blocks):
        for variant, entry in variants.items():
            t = entry.activations
            states, cache = (None, None, s.hidden_size), (None, s.kv_heads, None, s.head_dim)
            fixed = [(t, states), ("int32", (None,)), ("int32", ()), (t, cache), (t, cache)]
            inputs = dict(zip(BLOCK_INPUTS, fixed, strict=True))
            for name, constant in entry.constants.items():
                inputs[name] = (t, bundle.manifest.constants[constant][t].shape)
            outputs = dict(zip(BLOCK_OUTPUTS, [(t, states), (t, cache), (t, cache)], strict=True))
            _check_graph(bundle.block(index, variant).graph, inputs, outputs)
            loaded += 1
        if progress:
            progress("loading block", index + 1, s.blocks)
    for variant, entry in bundle.manifest.head.items():
        t = entry.activations
        _check_graph(
            bundle.head(variant).graph,
            {"hidden_states": (t, (None, None, s.hidden_size))},
            {"logits": (t, (None, None, s.vocab_size))},
        )
        loaded += 1
    return loaded


def _check_graph(path: Path, inputs: Mapping[str, tuple[str, Shape]], outputs: Mapping[str, tuple[str, Shape]]) -> None:
    session = open_session(path)
    for kind, have, want in (("input", session.get_inputs(), inputs), ("output", session.get_outputs(), outputs)):
        found = {value.name: value for value in have}
        if set(found) != set(want):
            raise BundleError(f"{path.name} has the {kind}s {', '.join(found)}; BUNDLE.md wants {', '.join(want)}")
        for name, (dtype, shape) in want.items():
            sizes = [size if isinstance(size, int) else None for size in found[name].shape]
            if found[name].type != _TYPES[dtype] or tuple(sizes) != tuple(shape):
                raise BundleError(f"{path.name}: {kind} {name} is {found[name].type}{sizes}, not {dtype}{list(shape)}")
