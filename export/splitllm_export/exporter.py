"""`export_model`: a Hugging Face model becomes a bundle that is whole, verified and computes the same, or nothing."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from splitllm.bundle import Bundle
from splitllm.errors import ExportError, MachineError, UsageError
from splitllm.types import Float32Array, TokenArray

from . import layout, source
from .gate import Progress, Reference, check_numbers
from .modules import find_parts
from .parts import write_parts
from .quiet import quiet_libraries
from .variants import HEADS, VARIANTS

#: What browsers are offered unless asked otherwise.
CLIENT_DTYPES: Final = ("float32", "int4")
#: Unless asked otherwise a bundle promises no more than this: rotary tables and KV memory grow with it.
DEFAULT_MAX_CONTEXT: Final = 8192
#: Fewer positions than this leave the numeric gate nothing to chunk and batch.
MIN_CONTEXT: Final = 16

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What was published. Sizes in bytes; `variants` holds the bytes of the largest block, of all, and the figures."""

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

    def as_json(self) -> dict[str, Any]:
        """The summary as JSON values."""
        return asdict(self)


def export_model(
    model: str | Path,
    out: Path,
    *,
    server_dtype: str = "float32",
    client_dtypes: Sequence[str] = CLIENT_DTYPES,
    max_context: int | None = None,
    chat_template: str | None = None,
    name: str | None = None,
    progress: Progress | None = None,
) -> ExportSummary:
    """Export `model`, a folder or a Hugging Face id, to the bundle `out`.

    `progress(what, done, of)` is called as the work goes on. Nothing appears at `out` until the bundle is complete,
    its hashes are checked and its blocks compute what transformers computes; on any error nothing is left behind.

    Raises:
        UsageError: `out` is in use, the model is not there, or an option makes no sense.
        ExportError: the model cannot become a correct bundle; code `export_mismatch` if its numbers differ.
        MachineError: the disk cannot be written.
    """
    out = Path(out)
    _check_options(out, server_dtype, client_dtypes, name)
    wanted = {"float32", server_dtype, *client_dtypes}
    variants = [variant for variant in VARIANTS if variant in wanted]
    heads = [variant for variant in VARIANTS if variant in ("float32", HEADS[server_dtype])]
    tell = progress or (lambda *_: None)
    with quiet_libraries(), torch.no_grad():
        tell("reading the model", 0, 1)
        config = source.read_config(model)
        context = _context(config, max_context)
        texts = source.read_texts(model, config, chat_template)
        generation = source.read_generation(model, config)
        decoder = find_parts(source.load_model(model, config), context)
        tell("reading the model", 1, 1)
        with _published_whole(out) as folder:
            files = layout.Folder(folder)
            files.write("tokenizer.json", texts.tokenizer_json.encode())
            parts = write_parts(decoder, variants, heads, files, tell)
            manifest = {
                "name": name or _name_of(model),
                "architecture": config.model_type,
                "sizes": decoder.sizes,
                "texts": texts,
                "generation": generation,
                "parts": parts,
            }
            layout.write_manifest(files, **manifest, figures={})
            found = check_numbers(
                Bundle.open(folder, verify=False), reference_of(decoder.model), prompt=texts.prompt, progress=tell
            )
            layout.write_manifest(files, **manifest, figures={v: f.as_manifest() for v, f in found.items()})
            bundle = Bundle.open(folder, verify=True)
        return _summary(out, bundle, sum(p.numel() for p in decoder.model.parameters()))


def reference_of(model: Any) -> Reference:
    """Logits of a transformers model, without a cache: the whole row at once."""

    def logits(tokens: TokenArray) -> Float32Array:
        chosen = model.config._attn_implementation
        model.config._attn_implementation = "eager"  # the others leave out what they cannot do, softcaps for one
        try:
            with torch.no_grad():
                out = model(input_ids=torch.from_numpy(tokens.astype(np.int64))[None], use_cache=False)
        finally:
            model.config._attn_implementation = chosen
        return np.asarray(out.logits[0].float().numpy(), np.float32)

    return logits


@contextlib.contextmanager
def _published_whole(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when the context ends well, and disappears when it does not."""
    made: list[Path] = []
    folder: Path | None = None
    try:
        for parent in reversed([p for p in out.parents if not p.exists()]):
            parent.mkdir()
            made.append(parent)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        yield folder
        folder.chmod(0o755)
        if out.exists():
            out.rmdir()  # empty, or this fails
        folder.rename(out)
    except BaseException as error:  # Ctrl-C too
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for parent in reversed(made):
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise MachineError(f"{out} cannot be written ({error.strerror or error}); check the disk") from error
        raise


def _check_options(out: Path, server_dtype: str, client_dtypes: Sequence[str], name: str | None) -> None:
    for side, dtype in (("server", server_dtype), *(("client", dtype) for dtype in client_dtypes)):
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
    if not isinstance(most, int):
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
    head = manifest.head["float32"]
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
        head_bytes=size(head.graph, head.weights),
        variants=variants,
    )
