"""A causal language model with its parts found, and a copy of its base with only one layer, or none, left in it."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from splitllm.errors import ExportError

from .attention import ATTENTION, PassThroughCache, table_names
from .experts import is_sparse, make_dense
from .operators import as_one_node
from .rotary import MOST_TABLES, RotaryTable, Table, is_rotary, read_tables
from .weights import widened

#: Heads of another size cannot be computed by the attention kernels.
_HEAD_MULTIPLE: Final = 8


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the model; `max_context` is what the bundle promises, not what the model could do."""

    blocks: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_context: int


@dataclass(frozen=True, slots=True)
class Decoder:
    """A causal language model with its parts found: the base model, from there its layers, its rotary tables."""

    model: Any
    base_name: str
    layers_path: str
    sizes: Sizes
    tables: tuple[RotaryTable, ...]

    @property
    def base(self) -> Any:
        """The model without its head."""
        return self.model.get_submodule(self.base_name)

    @property
    def layers(self) -> nn.ModuleList:
        """The decoder layers, in order."""
        layers: nn.ModuleList = self.base.get_submodule(self.layers_path)
        return layers

    @property
    def unique_tables(self) -> list[RotaryTable]:
        """Tables that differ."""
        unique: list[RotaryTable] = []
        for table in self.tables:
            if not any(_same_table(table, other) for other in unique):
                unique.append(table)
        return unique


def find_parts(model: Any, max_context: int) -> Decoder:
    """Find layers, rotary tables and sizes of a transformers model.

    Raises:
        ExportError: the model is not built as decoder layers and a head, or its rotation cannot be put into a table.
    """
    config, kind = model.config, type(model).__name__
    blocks = config.num_hidden_layers
    lists = [n for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == blocks]
    base_name, _, path = min(lists, key=lambda name: name.count("."), default="").partition(".")
    if not path or model.get_output_embeddings() is None or model.get_input_embeddings() is None:
        raise ExportError(f"{kind} is not built of an embedding, decoder layers and a head")
    base = model.get_submodule(base_name)
    heads = config.num_attention_heads
    if not isinstance(heads, int):
        raise ExportError(f"{kind} has layers of different numbers of heads; not supported yet")
    sizes = Sizes(
        blocks=blocks,
        hidden_size=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        vocab_size=model.get_input_embeddings().weight.shape[0],
        max_context=max_context,
    )
    if sizes.head_dim % _HEAD_MULTIPLE:
        raise ExportError(
            f"heads of {sizes.head_dim} values are not supported: the attention kernels want multiples of 8"
        )
    if not isinstance(sizes.kv_heads, int) or heads % sizes.kv_heads:
        raise ExportError(f"{heads} attention heads cannot share {sizes.kv_heads} key-value heads evenly")
    if model.get_output_embeddings().weight.shape[0] != sizes.vocab_size:
        raise ExportError("the head and the embedding know different numbers of tokens")
    decoder = Decoder(model, base_name, path, sizes, tuple(read_tables(base, sizes.hidden_size, max_context)))
    if len(decoder.unique_tables) > MOST_TABLES:
        raise ExportError(f"{kind} has {len(decoder.unique_tables)} kinds of rotary embeddings; not supported yet")
    return decoder


def _same_table(a: RotaryTable, b: RotaryTable) -> bool:
    return torch.equal(a.cos, b.cos) and torch.equal(a.sin, b.sin)


def rotary_tables(decoder: Decoder) -> dict[str, torch.Tensor]:
    """The tables that blocks share, `float32[max_context, width]` each, by the name of the graphs' inputs."""
    named = [(table_names(number), table) for number, table in enumerate(decoder.unique_tables)]
    return {name: values for (cos, sin), table in named for name, values in ((cos, table.cos), (sin, table.sin))}


def _share(module: nn.Module) -> Any:
    """A copy of a module tree whose modules may be replaced and configured; parameters and buffers are shared."""
    twin = copy.copy(module)
    for name in (
        "_modules",
        "_parameters",
        "_buffers",
        "_forward_hooks",
        "_forward_pre_hooks",
        "_forward_pre_hooks_with_kwargs",
    ):
        vars(twin)[name] = copy.copy(vars(module)[name])
    for name, child in module._modules.items():
        twin._modules[name] = None if child is None else _share(child)
    return twin


def cut(decoder: Decoder, index: int | None) -> Any:
    """The base model with layer `index` only, or none, rotary tables and mixtures of experts made traceable."""
    layers = decoder.layers
    kept = [] if index is None else [layers[index]]
    parent_path, _, name = decoder.layers_path.rpartition(".")
    hidden_layers = decoder.base.get_submodule(parent_path)._modules[name]
    decoder.base.get_submodule(parent_path)._modules[name] = nn.ModuleList(kept)
    try:
        base = _share(decoder.base)
    finally:
        decoder.base.get_submodule(parent_path)._modules[name] = hidden_layers
    config = config_of_layers(decoder.model.config, [] if index is None else [index])
    numbers = {t.path: _number(decoder, t) for t in decoder.tables}
    for path, module in list(base.named_modules()):
        if hasattr(module, "config"):
            module.config = config
        if is_rotary(module):
            table = next(t for t in decoder.tables if t.path == _old_path(path, decoder.layers_path, index))
            replace(base, path, Table(numbers[table.path], table.layout))
        elif is_sparse(module):
            with widened(module):
                replace(base, path, make_dense(module))
    for path, module in list(base.named_modules()):
        fused = as_one_node(module)
        if fused is not None:
            replace(base, path, fused)
    return base


def _number(decoder: Decoder, table: RotaryTable) -> int:
    return next(i for i, other in enumerate(decoder.unique_tables) if _same_table(table, other))


def _old_path(path: str, layers_path: str, index: int | None) -> str:
    """Where a module of the cut base stands in the whole one: its only layer has the number 0 here."""
    start = f"{layers_path}.0."
    return f"{layers_path}.{index}.{path.removeprefix(start)}" if path.startswith(start) else path


def replace(root: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` in the place that `path` names under `root`."""
    parent, _, name = path.rpartition(".")
    root.get_submodule(parent)._modules[name] = module


def config_of_layers(config: Any, layers: list[int]) -> Any:
    """The config with what it says layer by layer reduced to `layers`."""
    reduced, blocks = copy.deepcopy(config), config.num_hidden_layers
    for name, value in vars(reduced).items():
        if isinstance(value, list) and len(value) == blocks and name != "architectures":
            setattr(reduced, name, [value[i] for i in layers])
    reduced.num_hidden_layers = len(layers)
    reduced._attn_implementation = ATTENTION
    return reduced


def run_base(base: Any, **inputs: Any) -> Any:
    """Call a base model with whatever of the inputs it knows, without masks or a cache of its own."""
    known = inspect.signature(base.forward).parameters
    inputs |= {"use_cache": True, "past_key_values": PassThroughCache()}
    return base(**{name: value for name, value in inputs.items() if name in known and value is not None})
