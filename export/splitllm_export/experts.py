"""Mixtures of experts without branches: all experts as one wide MLP whose hidden units are scaled by the router.

What a sparse block computes, Σ_e w_e(x) · down_e(act(gate_e(x)) · up_e(x)), is one gated MLP with the experts' matrices
side by side, its hidden units multiplied by their expert's weight, which is 0 for experts that were not chosen. A
tracer can follow that, kernels and weight-only quantizers see three ordinary matrices, and the result is exact; the
price is that every expert is computed for every token.

Which of the known routers a block has is not looked up by family: each is tried against the block's own forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import nn

from splitllm.errors import ExportError

#: Names of the three matrices of a gated expert (gate, up, down).
_MATRICES: Final = (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2"))


def is_sparse(module: nn.Module) -> bool:
    """Whether a module chooses among experts."""
    return isinstance(getattr(module, "experts", None), nn.Module)


def make_dense(module: nn.Module) -> nn.Module:
    """A module that computes the same for every token without choosing.

    Raises:
        ExportError: the experts or their router are of a kind that is not known.
    """
    kind = type(module).__name__
    experts: Any = module.experts
    names = next((n for n in _MATRICES if isinstance(experts, nn.ModuleList) and _has(experts[0], n)), None)
    gate = getattr(module, "gate", None)
    if names is None or not isinstance(gate, nn.Linear) or not isinstance(getattr(module, "top_k", None), int):
        raise ExportError(f"{kind} keeps its experts in a way that cannot be traced; not supported yet")
    probe = torch.randn(1, 7, gate.in_features, generator=torch.Generator().manual_seed(0)) / gate.in_features**0.5
    with torch.no_grad():
        want = _first(module(probe.to(gate.weight.dtype)))
        for dense in _candidates(module, names):
            have = _first(dense(probe.to(gate.weight.dtype)))
            if torch.allclose(have, want, rtol=1e-4, atol=1e-5 * float(want.abs().max())):
                return dense
    raise ExportError(f"{kind} routes tokens to experts in a way that is not known; not supported yet")


def _has(expert: nn.Module, names: tuple[str, str, str]) -> bool:
    return all(isinstance(getattr(expert, name, None), nn.Linear) for name in names)


def _first(output: Any) -> torch.Tensor:
    states: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return states


def _candidates(module: nn.Module, names: tuple[str, str, str]) -> Iterator[nn.Module]:
    for normalized in (True, False):
        yield DenseExperts(module, names, normalized=normalized)


class DenseExperts(nn.Module):
    """All experts of a block side by side; gives what the block gives: the states, and the router's logits."""

    def __init__(self, block: Any, names: tuple[str, str, str], *, normalized: bool) -> None:
        super().__init__()
        gate, up, down = ([getattr(expert, name) for expert in block.experts] for name in names)
        self.router, self.top_k, self.normalized = block.gate, block.top_k, normalized
        self.activation = block.experts[0].act_fn
        self.gate, self.up = _stacked(gate), _stacked(up)
        self.down = nn.Linear(self.gate.out_features, down[0].out_features, bias=False, device="meta")
        self.down.weight = nn.Parameter(torch.cat([linear.weight for linear in down], 1), requires_grad=False)
        if any(linear.bias is not None for linear in down):
            raise ExportError(f"{type(block).__name__} has experts with biases; not supported yet")
        self.shared, self.shared_gate = (
            getattr(block, "shared_expert", None),
            getattr(block, "shared_expert_gate", None),
        )

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, S, hidden] -> ([B, S, hidden], router logits [B, S, experts])."""
        logits = self.router(hidden_states)
        weights = torch.softmax(logits, -1, dtype=torch.float)
        weights = weights * self._is_chosen(weights)
        if self.normalized:
            weights = weights / weights.sum(-1, keepdim=True)
        units = self.activation(self.gate(hidden_states)) * self.up(hidden_states)
        # Sizes as plain numbers: the tracer computes none of them when the graph runs.
        rows, width = hidden_states.shape[:-1], self.gate.out_features // self.router.out_features
        units = units.reshape(*rows, self.router.out_features, width) * weights.to(units.dtype).unsqueeze(-1)
        states = self.down(units.reshape(*rows, self.gate.out_features))
        if self.shared is not None:
            shared = self.shared(hidden_states)
            states = states + (
                shared if self.shared_gate is None else torch.sigmoid(self.shared_gate(hidden_states)) * shared
            )
        return states, logits

    def _is_chosen(self, weights: torch.Tensor) -> torch.Tensor:
        """1 for the `top_k` largest weights, the first of equal ones, else 0: WebGPU has comparisons but no TopK."""
        mine, others = weights.unsqueeze(-1), weights.unsqueeze(-2)
        experts = self.router.out_features
        before = torch.ones(experts, experts).tril(-1)  # [i, j]: j comes before i
        ahead = (others > mine).to(weights.dtype) + (others == mine).to(weights.dtype) * before
        chosen: torch.Tensor = ahead.sum(-1) < self.top_k
        return chosen.to(weights.dtype)


def _stacked(linears: list[nn.Linear]) -> nn.Linear:
    """Matrices side by side as one; a stand-in of their size is not filled first."""
    stacked = nn.Linear(linears[0].in_features, sum(linear.out_features for linear in linears), device="meta")
    stacked.weight = nn.Parameter(torch.cat([linear.weight for linear in linears]), requires_grad=False)
    if linears[0].bias is None:
        stacked.register_parameter("bias", None)
    else:
        stacked.bias = nn.Parameter(torch.cat([linear.bias for linear in linears]), requires_grad=False)
    return stacked
