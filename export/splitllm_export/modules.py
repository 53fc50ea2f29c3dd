"""The parts of a bundle as torch modules, cut out of the model's own class: its quirks stay transformers' code.

A block is the model's own base class with one layer left in it: the base prepares whatever its layers are given
(positions, rotary tables), then the hidden states it would hand over are replaced by the block's input, and what
the layer returns is the block's output. The head is the whole model with no layers left in it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import torch
from torch import nn

from splitllm.errors import ExportError

from .attention import AttentionStep, Heads, Recorder, Stop, running
from .decoder import Decoder, config_of_layers, cut, replace, rotary_tables, run_base
from .operators import positions
from .quiet import first_line
from .rotary import Table, find_rotation, rotation_left_out

#: Rows of the embedding that are made at a time.
_ROWS_AT_ONCE: Final = 1024


class BlockModule(nn.Module):
    """One decoder block with the inputs and outputs of BUNDLE.md.

    The first block of a model whose embeddings depend on the position also computes what comes before its layer.

    Raises:
        ExportError: the layer cannot be run alone, or its attention is none that the kernel computes.
    """

    def __init__(self, decoder: Decoder, index: int) -> None:
        super().__init__()
        self.block = cut(decoder, index)
        self.config = self.block.config
        self.sizes = decoder.sizes
        self.heads = Heads(decoder.sizes.heads, decoder.sizes.kv_heads, decoder.sizes.head_dim)
        self._layer = self.block.get_submodule(decoder.layers_path)[0]
        self._from_base = index == 0 and embeds_positions(decoder)
        self._tables = rotary_tables(decoder)
        stubs = [module for module in self.block.modules() if isinstance(module, Table)]
        self._left_out, self._rotation = find_rotation(
            self._layer, stubs, self._tables, self.sizes.head_dim, self._queries_and_keys
        )

    def _queries_and_keys(self, recorder: Recorder) -> tuple[torch.Tensor, ...]:
        """What reaches the layer's attention on a few random positions."""
        random = torch.Generator().manual_seed(0)
        states = torch.randn(1, recorder.position_ids.shape[1], self.sizes.hidden_size, generator=random)
        with torch.no_grad(), running(recorder):
            try:
                self._run_layer(states, recorder.position_ids)
            except Stop as stop:
                return stop.values
            except ExportError:
                raise
            except Exception as error:  # a foreign layer fails in its own way
                raise ExportError(
                    f"{type(self._layer).__name__} cannot be run alone ({first_line(error)}); not supported yet"
                ) from error
        raise ExportError(
            f"{type(self._layer).__name__} does not use transformers' attention interface; not supported yet"
        )

    def _run_layer(self, states: torch.Tensor, position_ids: torch.Tensor) -> torch.Tensor:
        def substitute(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if "hidden_states" in kwargs:
                return args, kwargs | {"hidden_states": states}
            return (states, *args[1:]), kwargs

        def stop(_: nn.Module, __: Any, output: Any) -> None:
            raise Stop(output[0] if isinstance(output, tuple) else output)

        hooks = [self._layer.register_forward_hook(stop)]
        if not self._from_base:
            hooks.append(self._layer.register_forward_pre_hook(substitute, with_kwargs=True))
        try:
            run_base(self.block, inputs_embeds=states, position_ids=position_ids, cache_position=position_ids[0])
        except Stop as done:
            if len(done.values) > 1:
                raise  # a recorder's
            return done.values[0]
        finally:
            for hook in hooks:
                hook.remove()
        raise ExportError(f"{type(self.block).__name__} does not call its layers; not supported yet")

    def forward(
        self,
        hidden_states: torch.Tensor,
        seqlens_k: torch.Tensor,
        total_sequence_length: torch.Tensor,
        past_key: torch.Tensor,
        past_value: torch.Tensor,
        cos_cache: torch.Tensor | None = None,
        sin_cache: torch.Tensor | None = None,
        cos_cache_1: torch.Tensor | None = None,
        sin_cache_1: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Shapes as in BUNDLE.md, "Graph of a block"."""
        given = {"cos_cache": cos_cache, "sin_cache": sin_cache, "cos_cache_1": cos_cache_1, "sin_cache_1": sin_cache_1}
        position_ids = positions(hidden_states, seqlens_k)
        step = AttentionStep(
            self.heads,
            seqlens_k,
            total_sequence_length,
            past_key,
            past_value,
            {name: table for name, table in given.items() if table is not None},
            position_ids,
            self._rotation,
        )
        with running(step):
            if self._left_out:
                with rotation_left_out(self._layer):
                    states = self._run_layer(hidden_states, position_ids)
            else:
                states = self._run_layer(hidden_states, position_ids)
        if len(step.present) != 1:
            raise ExportError(
                f"{type(self._layer).__name__} computes attention {len(step.present)} times; not supported yet"
            )
        key, value = step.present[0]
        return {"hidden_states_out": states, "present_key": key, "present_value": value}

    def example(self) -> dict[str, torch.Tensor]:
        """Inputs to trace with: 3 rows on a past of 5 (the kernel wants batch 1 there)."""
        s, rows, past = self.sizes, 3, 5
        return {
            "hidden_states": torch.zeros(1, rows, s.hidden_size),
            "seqlens_k": torch.full((1,), past + rows - 1, dtype=torch.int32),
            "total_sequence_length": torch.tensor(past + rows, dtype=torch.int32),
            "past_key": torch.zeros(1, s.kv_heads, past, s.head_dim),
            "past_value": torch.zeros(1, s.kv_heads, past, s.head_dim),
            **self._tables,
        }


class _Substitute(nn.Module):
    """In place of a layer; whatever the base model asks it about itself, the layer answers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        vars(self)["layer"] = layer  # not a child: nothing of it is traced

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(vars(self)["layer"], name)


class _Give(_Substitute):
    """Gives the hidden states that it was told last, as a layer of the model would."""

    def __init__(self, layer: nn.Module, *, as_tuple: bool) -> None:
        super().__init__(layer)
        self.as_tuple = as_tuple
        self.states = torch.zeros(0)

    def forward(self, *_: Any, **__: Any) -> Any:
        return (self.states,) if self.as_tuple else self.states


class _Take(_Substitute):
    """Stops the model with the hidden states that its first layer would receive."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise Stop(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])


class HeadModule(nn.Module):
    """Whatever the model does after its last layer: hidden states [B, S, hidden] -> logits [B, S, vocab].

    Raises:
        ExportError: the model cannot be run without its layers.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.config = config_of_layers(decoder.model.config, [0])
        self.head = copy.copy(decoder.model)
        self.head._modules = dict(decoder.model._modules)
        base = cut(decoder, None)
        self.head._modules[decoder.base_name] = base
        self.head.config = base.config = self.config
        self._hidden, self._vocab = decoder.sizes.hidden_size, decoder.sizes.vocab_size
        self._tables = rotary_tables(decoder)
        self._give: Any = None
        for as_tuple in (False, True):
            self._give = _Give(decoder.layers[0], as_tuple=as_tuple)
            replace(base, decoder.layers_path, nn.ModuleList([self._give]))
            if self._works():
                return
        raise ExportError(f"{type(decoder.model).__name__} cannot be run without its layers; not supported yet")

    def _works(self) -> bool:
        try:
            with torch.no_grad():
                return self.forward(torch.zeros(2, 3, self._hidden))["logits"].shape == (2, 3, self._vocab)
        except Exception:  # a model that expects the other kind of layer may fail in any way
            return False

    def forward(self, hidden_states: torch.Tensor) -> dict[str, torch.Tensor]:
        """`logits` for every row."""
        self._give.states = hidden_states
        positions = torch.arange(hidden_states.shape[1], dtype=torch.int32)[None]
        with running(Recorder(self._tables, positions)):
            out = self.head(inputs_embeds=hidden_states, use_cache=False)
        return {"logits": out.logits}

    def example(self) -> dict[str, torch.Tensor]:
        """Inputs to trace with."""
        return {"hidden_states": torch.zeros(2, 3, self._hidden)}


def embedding_rows(decoder: Decoder) -> Iterator[torch.Tensor]:
    """What the first block receives for each token, `float32[vocab, hidden]`, a thousand rows at a time.

    Whatever a family does to its embeddings on the way (a scale, say) is in the table, unless it depends on the
    position; then the first block does it.
    """
    vocab = decoder.sizes.vocab_size
    read = decoder.model.get_input_embeddings() if embeds_positions(decoder) else _entry(decoder)
    for start in range(0, vocab, _ROWS_AT_ONCE):
        with torch.no_grad():
            yield read(torch.arange(start, min(start + _ROWS_AT_ONCE, vocab))[None])[0].float()


def embeds_positions(decoder: Decoder) -> bool:
    """Whether what the first layer receives for a token depends on the token's position."""
    with torch.no_grad():
        states = _entry(decoder)(torch.full((1, 4), decoder.sizes.vocab_size // 2))[0]
    return not torch.equal(states, states[:1].expand_as(states))


def _entry(decoder: Decoder) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function from token ids [1, n] to what the first layer receives for them, [1, n, hidden]."""

    base = cut(decoder, None)
    base.config = config_of_layers(decoder.model.config, [0])
    replace(base, decoder.layers_path, nn.ModuleList([_Take(decoder.layers[0])]))
    tables: Mapping[str, torch.Tensor] = rotary_tables(decoder)

    def read(ids: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(ids.shape[1]).clamp(max=decoder.sizes.max_context - 1)[None]
        try:
            with running(Recorder(tables, positions)):
                run_base(base, input_ids=ids, position_ids=positions, cache_position=positions[0])
        except Stop as stop:
            return stop.values[0]
        raise ExportError(f"{type(base).__name__} does not call its layers; not supported yet")

    return read
