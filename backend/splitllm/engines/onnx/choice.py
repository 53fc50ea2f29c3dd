"""Which device an engine computes on, and which variants of blocks and head it runs there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ...bundle import Bundle
from ...errors import BundleError
from .runtime import resolve_device

#: The head beside blocks that the manifest does not name for servers, where it is not the one of their activations.
_HEADS: Final = {"int8": "int8", "int4": "int8"}


@dataclass(frozen=True, slots=True)
class Choice:
    """`device` is `cpu` or `cuda`; `note` tells an operator what is not as they may expect, or is empty.

    joined: whether blocks run in groups (joined.py). Not on a card, where that has never run and where the computer
    would have to tell it for each block whether it runs; and not in float16, which the CPU turns into float32: within a
    joined graph at each step, for blocks by themselves when they are loaded.
    """

    device: str
    blocks: str
    head: str
    joined: bool
    note: str = ""


def choose(bundle: Bundle, device: str = "auto", variant: str | None = None, head: str | None = None) -> Choice:
    """What runs on `device` (`auto`, `cpu` or `cuda`): what is asked for, else what the bundle's manifest says.

    A card runs float16 activations only, so there it is float16 blocks where the manifest says others. The CPU computes
    float16 in float32 and takes longer for it (docs/decisions/weight-variants.md), so there it is float32 blocks where
    the manifest says float16.

    Raises:
        BundleError: the bundle lacks the variant, or a head that fits it; on CUDA, whatever computes in float16.
        MachineError: the device was asked for by name and cannot be used.
    """
    wide, narrow = _runnable(bundle, "float32"), _runnable(bundle, "float16")
    wanted = variant or bundle.manifest.server[0]
    activations = bundle.block(0, wanted).activations
    if variant is not None:
        if device == "cuda" and activations == "float32":
            raise BundleError(
                f"CUDA runs float16 activations only, {variant} blocks have float32; give --variant float16, "
                "or --device cpu",
                code="variant_unavailable",
            )
        wide, narrow = (tuple(v for v in kind if v == variant) for kind in (wide, narrow))
    device = resolve_device(device, ("float16",) if narrow else ())
    note = ""
    if device == "cuda":
        blocks = wanted if wanted in narrow else narrow[0]
    elif variant is None and wanted not in wide:
        blocks = "float32"
        note = (
            f"the bundle is made for servers that run {wanted} on a card; on the CPU float32 is as exact and faster "
            f"(--variant {wanted} runs it all the same)"
        )
    else:
        blocks = wanted
        if activations == "float16":
            note = f"the CPU computes {blocks} in float32, up to three times slower than float32 blocks"
    joined = device == "cpu" and bundle.block(0, blocks).activations == "float32"
    return Choice(device, blocks, head or _head(bundle, blocks), joined, note)


def _runnable(bundle: Bundle, activations: str) -> tuple[str, ...]:
    """Variants of blocks with these activations for which there is a head."""
    heads = {entry.activations for entry in bundle.manifest.head.values()}
    blocks = bundle.manifest.blocks[0]
    return tuple(v for v, entry in blocks.items() if entry.activations == activations and activations in heads)


def _head(bundle: Bundle, blocks: str) -> str:
    """The manifest's head for the blocks it names, else the one of their kind that is there."""
    heads, activations = bundle.manifest.head, bundle.block(0, blocks).activations
    server_blocks, server_head = bundle.manifest.server
    first: str = server_head if blocks == server_blocks else _HEADS.get(blocks, activations)
    for name in (first, *heads):
        if name in heads and heads[name].activations == activations:
            return name
    raise BundleError(
        f"{bundle.spec.name} has no head for {blocks} blocks; export it with `--server-dtype {blocks}`",
        code="variant_unavailable",
    )
