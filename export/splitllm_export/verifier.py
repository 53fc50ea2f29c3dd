"""`verify_bundle`: is a folder a whole bundle, do its graphs keep their contract, and do they compute the same?

Needs onnxruntime; torch and transformers only to compare `against` a model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from splitllm.bundle import BLOCK_INPUTS, BLOCK_OUTPUTS, Bundle
from splitllm.errors import BundleError, VerificationError
from splitllm.signature import TrustedKey
from splitllm.types import Float32Array, TokenArray

from .chain import BlockRun, Plan, Step, embed, open_session, run_head
from .gate import Figures, Progress, Reference, check_numbers, whole_splits

_TYPES: Final = {"float32": "tensor(float)", "float16": "tensor(float16)", "int32": "tensor(int32)"}
Shape = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found. `signer` is the id of the signature's key; it was checked if `signature_trusted`.

    `max_abs_error` and `top1_agreement` are those of the float32 blocks against `reference`.

    `splits_checked` counts the splits at which the states were handed over to the next block and compared there,
    `splits_run_whole` those that were run on to the logits (gate.py). `variants` has the worst figures of each variant,
    and what the export measured on a text. Where no numbers were wanted, or the files are damaged, there are none, and
    no split was checked.
    """

    ok: bool
    name: str | None
    identity: str | None
    signer: str | None
    signature_trusted: bool
    blocks: int
    files: int
    graphs_loaded: int
    splits_checked: int
    splits_run_whole: int
    max_abs_error: float | None
    top1_agreement: float | None
    reference: str | None
    variants: Mapping[str, Mapping[str, float]]
    problems: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)


def verify_bundle(
    folder: Path,
    against: str | Path | None = None,
    *,
    files_only: bool = False,
    trusted: Collection[TrustedKey] = (),
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check schema, sizes and hashes, then every graph's inputs and outputs, then the numbers at every split.

    The numbers are compared with transformers' if `against` is the model. Without it they are compared with those of
    the bundle's own float32 blocks, run on whole rows: chunks, decode steps and batches must agree with these. With
    `trusted` keys one of them must have signed the bundle. What is wrong with the bundle stands in `problems`.

    Raises:
        UsageError: `against` is no model.
    """
    try:
        bundle = Bundle.open(Path(folder), verify=True, trusted=trusted)
        signer = bundle.signer
    except BundleError as error:
        return VerifyReport(False, None, None, None, False, 0, 0, 0, 0, 0, None, None, None, {}, (error.message,))
    problems: list[str] = []
    figures: Mapping[str, Figures] = {}
    graphs = 0
    try:
        graphs = _check_graphs(bundle, progress)
        if against is not None:
            figures = _compare(bundle, against, trust_remote_code, progress)
        elif not files_only:
            figures = check_numbers(bundle, _own_reference(bundle), every_split=True, progress=progress)
    except VerificationError as error:
        problems.append(error.message)
    exact = figures.get("float32")
    return VerifyReport(
        ok=not problems,
        name=bundle.spec.name,
        identity=bundle.identity,
        signer=signer,
        signature_trusted=bool(trusted),
        blocks=bundle.spec.blocks,
        files=len(bundle.manifest.files) + 1,
        graphs_loaded=graphs,
        splits_checked=bundle.spec.blocks + 1 if figures else 0,
        splits_run_whole=len(whole_splits(bundle.spec.blocks)) + 1 if figures else 0,
        max_abs_error=exact.max_abs_error if exact else None,
        top1_agreement=exact.top1_agreement if exact else None,
        reference=(str(against) if against is not None else "the bundle's own float32 blocks") if figures else None,
        variants={variant: _figures(bundle, variant, found) for variant, found in figures.items()},
        problems=tuple(problems),
    )


def _figures(bundle: Bundle, variant: str, found: Figures) -> dict[str, float]:
    """What was found now, and what the export measured on a text."""
    stored = bundle.manifest.variants.get(variant, {})
    figures = {"max_abs_error": found.max_abs_error, "top1_agreement": found.top1_agreement}
    if variant != "float32":
        figures["handover_error"] = found.handover_error
    for name in ("top1_agreement", "kl_divergence") if "text_tokens" in stored else ():
        value = stored.get(name)
        if isinstance(value, int | float):
            figures[f"text_{name}"] = float(value)
    return figures


def _own_reference(bundle: Bundle) -> Reference:
    """Logits of the bundle's float32 blocks, a whole row as one prefill."""

    def logits(tokens: TokenArray) -> Float32Array:
        plan = Plan((tokens,), (Step(0, (0,), len(tokens)),), len(tokens))
        states = embed(bundle, plan)
        for index in range(bundle.spec.blocks):
            states = BlockRun(bundle, index, "float32").run(plan, states)
        return np.asarray(run_head(bundle, states)[0][0], np.float32)

    return logits


def _compare(bundle: Bundle, against: str | Path, trust: bool, progress: Progress | None) -> Mapping[str, Figures]:
    from . import hub, source  # torch and transformers are heavy, and only this needs them
    from .quiet import quiet_libraries
    from .reference import reference_of

    with quiet_libraries():
        folder = hub.find(against, trust_remote_code=trust)
        config = source.read_config(folder, trust_remote_code=trust)
        texts = source.read_texts(folder, config, bundle.chat_template, trust_remote_code=trust)
        hub.fetch_weights(against, folder, progress or (lambda *_: None))
        model = source.load_model(folder, config, trust_remote_code=trust)
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
            for graph in {bundle.block(index, variant, server=server).graph for server in (False, True)}:
                _check_graph(graph, inputs, outputs)
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
