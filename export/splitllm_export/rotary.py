"""Rotary embeddings: tables made by the model's own module, turned by the attention kernel where it turns alike.

Every rotary module of the model is replaced by a `Table`, which reads rows of a table that all blocks share. Whether
the kernel may rotate is not looked up by family: queries and keys are taken from the real layer with and without its
own rotation, and the kernel's formula must lead from the one to the other. Where it does not, the model's rotation
stays in the graph.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from splitllm.errors import ExportError

from .attention import Recorder, Rotation, current_step, table_names

#: More kinds of rotation than this in one model are not known; graphs have so many inputs for tables.
MOST_TABLES: Final = 2
#: The kernel takes tables of a width that is a multiple of 8, and rotates heads whose size is a multiple of 16.
_TABLE_MULTIPLE, _HEAD_MULTIPLE = 8, 16
#: How a rotary module lays out a table for its model: twice side by side, each value twice, or as it is.
_HALVES, _NEIGHBOURS, _PLAIN = "halves", "neighbours", "plain"


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """cos and sin of one rotary module of a model, `float32[max_context, width]`, and where the module stands."""

    path: str
    cos: torch.Tensor
    sin: torch.Tensor
    layout: str


def read_tables(base: nn.Module, hidden_size: int, max_context: int) -> list[RotaryTable]:
    """The tables of every rotary module under `base`, equal ones once.

    Raises:
        ExportError: a module gives no table, or one that changes with the length of the text.
    """
    tables: list[RotaryTable] = []
    for path, module in base.named_modules():
        if is_rotary(module):
            cos, sin, layout = _read(module, hidden_size, max_context)
            tables.append(RotaryTable(path, cos, sin, layout))
    return tables


def is_rotary(module: nn.Module) -> bool:
    """Whether a module makes rotary tables; every family calls it so."""
    return "RotaryEmbedding" in type(module).__name__


def _read(module: nn.Module, hidden_size: int, max_context: int) -> tuple[torch.Tensor, torch.Tensor, str]:
    name = type(module).__name__
    short = min(max_context, 8)

    def rows(positions: int) -> tuple[torch.Tensor, ...]:
        rotary = copy.deepcopy(module)  # some remember how far they have been asked
        with torch.no_grad():
            return tuple(
                table[0].float() for table in rotary(torch.zeros(1, 1, hidden_size), torch.arange(positions)[None])
            )

    try:
        tables, beginning = rows(max_context), rows(short)
    except Exception as error:  # whatever a foreign module raises when it is not called as it wants
        raise ExportError(f"{name} gives no tables of cos and sin by position; not supported yet") from error
    if len(tables) != 2 or any(t.ndim != 2 or len(t) != max_context or t.is_complex() for t in tables):
        raise ExportError(f"{name} gives no tables of cos and sin by position; not supported yet")
    if not all(torch.equal(t[:short], b) for t, b in zip(tables, beginning, strict=True)):
        limit = getattr(getattr(module, "config", None), "original_max_position_embeddings", None)
        advice = f"; export with --max-context {limit}" if limit else "; a shorter --max-context may do"
        kind = getattr(module, "rope_type", name)
        raise ExportError(f"rotary embeddings of type {kind!r} change with the length of the text{advice}")
    half = tables[0].shape[-1] // 2
    if all(torch.equal(t[:, :half], t[:, half:]) for t in tables):
        return (*(t[:, :half].contiguous() for t in tables), _HALVES)  # type: ignore[return-value]  # two tables
    if all(torch.equal(t[:, ::2], t[:, 1::2]) for t in tables):
        return (*(t[:, ::2].contiguous() for t in tables), _NEIGHBOURS)  # type: ignore[return-value]  # the same
    return tables[0].contiguous(), tables[1].contiguous(), _PLAIN


class Table(nn.Module):
    """Stands for a rotary module: rows of a shared table at the positions of the step, laid out as the model wants."""

    def __init__(self, number: int, layout: str) -> None:
        super().__init__()
        self.number, self.layout = number, layout
        self.last: tuple[torch.Tensor, ...] = ()

    def forward(self, x: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, ...]:
        """(cos, sin), each [B, S, width of the model's own table]."""
        step = current_step()
        self.last = tuple(
            self._rows(step.tables[name], step.position_ids, x.dtype) for name in table_names(self.number)
        )
        return self.last

    def _rows(self, table: torch.Tensor, positions: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        rows = torch.nn.functional.embedding(positions, table).to(dtype)
        if self.layout == _HALVES:
            return torch.cat((rows, rows), -1)
        if self.layout == _NEIGHBOURS:
            return torch.stack((rows, rows), -1).flatten(-2)
        return rows


@contextmanager
def rotation_left_out(layer: nn.Module, tables: Sequence[Table] = (), used: set[int] | None = None) -> Iterator[None]:
    """Within this context the model code of `layer` leaves queries and keys unrotated.

    `used` takes the numbers of the `tables` that would have turned them; -1 stands for one that is none of them.
    """
    code: Any = sys.modules[type(layer).__module__]
    rotate = getattr(code, "apply_rotary_pos_emb", None)

    def pass_through(query: torch.Tensor, key: torch.Tensor, cos: Any, *_: Any, **__: Any) -> Any:
        if used is not None:
            numbers = {table.number for table in tables if table.last and table.last[0] is cos}
            used.update(numbers or {-1})
        return query, key

    if rotate is None or list(inspect.signature(rotate).parameters)[:3] != ["q", "k", "cos"]:
        yield  # no such function, or another one of the same name
        return
    code.apply_rotary_pos_emb = pass_through
    try:
        yield
    finally:
        code.apply_rotary_pos_emb = rotate


#: Runs a layer up to its attention on a few positions and gives the queries and keys that arrive there.
QueriesAndKeys = Callable[[Recorder], tuple[torch.Tensor, ...]]


def find_rotation(
    layer: nn.Module, stubs: Sequence[Table], tables: Mapping[str, torch.Tensor], head_dim: int, run: QueriesAndKeys
) -> tuple[bool, Rotation | None]:
    """(whether the layer's own rotation is left out, what the kernel does instead).

    (True, a rotation): the kernel rotates. (True, None): nothing rotates. (False, None): the model's own code rotates,
    in the graph.
    """
    positions = torch.arange(3, 8, dtype=torch.int32)[None]
    used: set[int] = set()
    with rotation_left_out(layer, stubs, used):
        plain = run(Recorder(tables, positions))
    rotated = run(Recorder(tables, positions))
    if _all_close(plain, rotated):
        return True, None
    if len(used) != 1 or -1 in used:
        return False, None
    number = used.pop()
    cos, sin = (tables[name] for name in table_names(number))
    width = cos.shape[-1]
    if head_dim % _HEAD_MULTIPLE or width % _TABLE_MULTIPLE or 2 * width > head_dim:
        return False, None
    cos, sin = cos[positions[0].long()], sin[positions[0].long()]
    for interleaved in (False, True):
        if _all_close([_rotate(states, cos, sin, interleaved=interleaved) for states in plain], rotated):
            return True, Rotation(number, interleaved)
    return False, None


def _rotate(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *, interleaved: bool) -> torch.Tensor:
    """What the kernel does to [B, heads, S, D] with tables [S, width]: 2 · width values are turned in pairs."""
    width = cos.shape[-1]
    turned, rest = states[..., : 2 * width], states[..., 2 * width :]
    first, second = (turned[..., ::2], turned[..., 1::2]) if interleaved else (turned[..., :width], turned[..., width:])
    a, b = first * cos - second * sin, second * cos + first * sin
    turned = torch.stack((a, b), -1).flatten(-2) if interleaved else torch.cat((a, b), -1)
    return torch.cat((turned, rest), -1)


def _all_close(have: Sequence[torch.Tensor], want: Sequence[torch.Tensor]) -> bool:
    return all(
        torch.allclose(h, w, rtol=1e-4, atol=1e-5 * float(w.abs().max())) for h, w in zip(have, want, strict=True)
    )
