"""`export_model`: a Hugging Face model becomes a bundle that is whole, verified and computes the same, or nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from splitllm.bundle import VARIANTS, Bundle
from splitllm.errors import ExportError, UsageError
from splitllm.types import SamplingParams

from . import hub, layout, source
from .chain import SERVER
from .decoder import find_parts
from .estimate import Estimate, estimate
from .gate import Progress, check_numbers
from .parts import write_parts
from .probe import check_family
from .publish import check_space, published_whole
from .quality import measure_text
from .quiet import quiet_libraries
from .reference import reference_of
from .variants import HEADS

#: What browsers are offered unless asked otherwise.
CLIENT_DTYPES: Final = ("float32", "int4")
#: Unless asked otherwise a bundle promises no more than this: rotary tables and KV memory grow with it.
DEFAULT_MAX_CONTEXT: Final = 8192
#: Fewer positions than this leave the numeric gate nothing to chunk and batch.
MIN_CONTEXT: Final = 16
#: Fewer tokens than this say nothing about a variant.
MIN_TEXT: Final = 64

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was published. Sizes in bytes; `variants` holds the bytes of the largest block, of all, and the figures.

    `heads` has the figures of quantized heads; `head_bytes` counts all heads, 0 where the embedding's file is the head.
    `served` has those of variants that servers run in graphs of their own.
    """

    folder: str
    name: str
    identity: str
    architecture: str
    blocks: int
    parameters: int
    max_context: int
    total_bytes: int
    embedding_bytes: int
    head_bytes: int
    variants: Mapping[str, Mapping[str, float]]
    heads: Mapping[str, Mapping[str, float]]
    served: Mapping[str, Mapping[str, float]]

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for. `text` is what variants are measured on; `trust_remote_code` runs the model's own code."""

    server_dtype: str = "float32"
    client_dtypes: Sequence[str] = CLIENT_DTYPES
    max_context: int | None = None
    chat_template: str | None = None
    name: str | None = None
    text: str | None = None
    trust_remote_code: bool = False

    @property
    def variants(self) -> list[str]:
        """Variants of the blocks, in the manifest's order."""
        return [v for v in VARIANTS if v in {"float32", self.server_dtype, *self.client_dtypes}]

    @property
    def heads(self) -> list[str]:
        """Variants of the head."""
        return [v for v in VARIANTS if v in ("float32", HEADS[self.server_dtype])]


def plan_export(model: str | Path, out: Path, **options: Any) -> Estimate:
    """What `export_model` with the same arguments would write and need; no weight is downloaded or read.

    Raises:
        UsageError, ExportError, MachineError: as `export_model`, as far as it shows in config and tokenizer.
    """
    asked = Options(**options)
    _check_options(Path(out), asked)
    with quiet_libraries():
        return _prepare(model, asked).estimate


def export_model(model: str | Path, out: Path, *, progress: Progress | None = None, **options: Any) -> ExportSummary:
    """Export `model`, a folder or a Hugging Face id, to the bundle `out`; `options` are those of `Options`.

    `progress(what, done, of)` is called as the work goes on. Nothing appears at `out` until the bundle is complete,
    its hashes are checked and its blocks compute what transformers computes; on any error nothing is left behind.

    Raises:
        UsageError: `out` is in use, the model is not there, or an option makes no sense.
        ExportError: the model cannot become a correct bundle; code `export_mismatch` if its numbers differ.
        MachineError: the disk is full or cannot be written, or the Hub cannot be reached.
    """
    out, asked = Path(out), Options(**options)
    _check_options(out, asked)
    tell = progress or (lambda *_: None)
    with quiet_libraries(), torch.no_grad():
        tell("reading the model", 0, 1)
        ready = _prepare(model, asked)
        check_space(out, ready.estimate.total_bytes)
        hub.fetch_weights(model, ready.folder, tell)
        loaded = source.load_model(ready.folder, ready.config, trust_remote_code=asked.trust_remote_code)
        decoder = find_parts(loaded, ready.context)
        tell("reading the model", 1, 1)
        with published_whole(out) as folder:
            files = layout.Folder(folder)
            files.write("tokenizer.json", ready.texts.tokenizer_json.encode())
            manifest = {
                "name": asked.name or _name_of(model),
                "architecture": ready.config.model_type,
                "sizes": decoder.sizes,
                "texts": ready.texts,
                "generation": ready.generation,
                "parts": write_parts(decoder, asked.variants, asked.heads, asked.server_dtype, files, tell),
                "server": (asked.server_dtype, HEADS[asked.server_dtype]),
            }
            layout.write_manifest(files, **manifest, figures={})
            unchecked = Bundle.open(folder, verify=False)
            checked = check_numbers(unchecked, reference_of(loaded), prompt=ready.texts.prompt, progress=tell)
            figures = {variant: dict(found.as_manifest()) for variant, found in checked.items()}
            if len(asked.variants) + len(asked.heads) > 2:
                for variant, quality in measure_text(unchecked, ready.text_ids, progress=tell).items():
                    figures.setdefault(variant, {}).update(quality.as_manifest())
            layout.write_manifest(files, **manifest, figures=figures)
            bundle = Bundle.open(folder, verify=True)
        return _summary(out, bundle, ready.estimate.parameters)


@dataclass(frozen=True, slots=True)
class _Ready:
    """What is known of a model before its weights are touched."""

    folder: Path
    config: Any
    context: int
    texts: source.Texts
    generation: SamplingParams
    text_ids: Sequence[int]
    estimate: Estimate


def _prepare(model: str | Path, asked: Options) -> _Ready:
    trust = asked.trust_remote_code
    folder = hub.find(model, trust_remote_code=trust)
    config = source.read_config(folder, trust_remote_code=trust)
    context = _context(config, asked.max_context)
    texts = source.read_texts(folder, config, asked.chat_template, trust_remote_code=trust)
    generation = source.read_generation(folder, config)
    check_family(config, context, trust_remote_code=trust)
    expected = estimate(config, context, asked.variants, asked.heads, trust)
    return _Ready(folder, config, context, texts, generation, _text_ids(asked.text, texts), expected)


def _text_ids(text: str | None, texts: source.Texts) -> Sequence[int]:
    """Ids of the text that variants are measured on; the short conversation and a page of prose unless one is given.

    Raises:
        UsageError: the text is too short to say anything.
    """
    given = text if text is not None else (Path(__file__).parent / "prose.txt").read_text("utf-8")
    ids: list[int] = Tokenizer.from_str(texts.tokenizer_json).encode(given).ids
    if text is not None and len(ids) < MIN_TEXT:
        raise UsageError(f"the text given with --text has {len(ids)} tokens; {MIN_TEXT} are the least to measure on")
    return ids if text is not None else [*texts.prompt, *ids]


def _check_options(out: Path, asked: Options) -> None:
    name = asked.name
    for side, dtype in (("server", asked.server_dtype), *(("client", dtype) for dtype in asked.client_dtypes)):
        if dtype not in VARIANTS:
            raise UsageError(f"there is no {side} dtype {dtype[:40]!r}; use one of {', '.join(VARIANTS)}")
    if name is not None and not _NAME.fullmatch(name):
        raise UsageError(f"the name {name[:140]!r} must be of letters, digits, '.', '_' and '-', at most 128")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder; choose another --out or remove it")
    if out.is_symlink():
        raise UsageError(f"{out} is a link; give the folder itself as --out")


def _context(config: Any, max_context: int | None) -> int:
    most = getattr(config, "max_position_embeddings", None)
    if not isinstance(most, int) or most < 1:
        raise ExportError(f"{config.model_type} models state no number of positions; not supported yet")
    context = min(most, DEFAULT_MAX_CONTEXT) if max_context is None else max_context
    if context > most:
        raise UsageError(f"--max-context {context} is more than the model's {most} positions")
    if context < MIN_CONTEXT:
        raise UsageError(f"a context of {context} positions is too short; {MIN_CONTEXT} is the least")
    return context


def _name_of(model: str | Path) -> str:
    base = Path(model).resolve().name if Path(model).is_dir() else str(model).rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", base).lstrip("._-")[:128] or "model"


def _summary(out: Path, bundle: Bundle, parameters: int) -> ExportSummary:
    files, manifest = bundle.manifest.files, bundle.manifest

    def size(*names: str | None) -> int:
        return sum(files[name].size for name in names if name)

    variants = {
        variant: {
            "block_bytes": bundle.block_bytes(variant),
            "bytes": sum(size(block[variant].graph, block[variant].weights) for block in manifest.blocks),
            **{k: float(v) for k, v in manifest.variants[variant].items()},
        }
        for variant in bundle.block_variants
    }
    figures = {name: {k: float(v) for k, v in found.items()} for name, found in manifest.variants.items()}
    table = manifest.embed["float32"].file  # is the head's matrix too where they are tied
    heads = [name for head in manifest.head.values() for name in (head.graph, head.weights) if name != table]
    return ExportSummary(
        folder=str(out),
        name=bundle.spec.name,
        identity=bundle.identity,
        architecture=manifest.architecture,
        blocks=bundle.spec.blocks,
        parameters=parameters,
        max_context=bundle.spec.max_context,
        total_bytes=sum(entry.size for entry in files.values()) + len(bundle.manifest_bytes),
        embedding_bytes=size(manifest.embed["float32"].file),
        head_bytes=size(*heads),
        variants=variants,
        heads={name.removeprefix("head."): found for name, found in figures.items() if name.startswith("head.")},
        served={name.removeprefix(SERVER): found for name, found in figures.items() if name.startswith(SERVER)},
    )
