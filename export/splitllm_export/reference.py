"""What a bundle is compared with: transformers' own logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from splitllm.types import Float32Array, TokenArray

from .gate import Reference


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
