"""The checkpoint and its tokenizer: what they are, whether they may be exported, and one line when they may not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from splitllm.errors import ExportError, UsageError
from splitllm.types import SamplingParams

from .quiet import first_line
from .templates import portable
from .weights import compute_in_float32, stored_types_kept

_hub: Any = transformers  # only half of it has types
#: Names that tokenizers are stored under; transformers fails without a reason where there is none.
_TOKENIZER_FILES: Final = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "tekken.json")
_LAYER: Final = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
_DECODERS: Final = ("ForCausalLM", "LMHeadModel")
#: What the numeric gate reads besides random tokens: an ordinary conversation.
_CONVERSATION: Final = [
    {"role": "user", "content": "Hello! My name is Anna. What is the capital of France?"},
    {"role": "assistant", "content": "The capital of France is Paris."},
    {"role": "user", "content": "Thank you. Now tell me a short story about a fox, and then say my name."},
]


@dataclass(frozen=True, slots=True)
class Texts:
    """What turns messages into token ids and back. `prompt` is a short rendered conversation as ids."""

    tokenizer_json: str
    chat_template: str
    bos_token: str | None
    eos_token: str | None
    end_tokens: tuple[int, ...]
    prompt: tuple[int, ...]


def read_config(source: str | Path, *, trust_remote_code: bool = False) -> Any:
    """The model's config, if its family is supported; no weight is read.

    Raises:
        UsageError: no such folder, file or model.
        ExportError: a model that is known but cannot be exported.
    """
    try:
        config = _hub.AutoConfig.from_pretrained(str(source), trust_remote_code=trust_remote_code)
    except OSError as error:
        raise UsageError(f"{source}: config.json cannot be read ({first_line(error)})") from error
    except Exception as error:  # what a foreign config raises is up to transformers
        raise ExportError(
            f"{source}: config.json is not one that transformers can read ({first_line(error)})"
        ) from error
    architectures = config.architectures or []
    if config.is_encoder_decoder or (architectures and not any(a.endswith(_DECODERS) for a in architectures)):
        kind = architectures[0] if architectures else config.model_type
        raise ExportError(
            f"{source} is a {kind}, not a decoder that generates text; nothing in it can be split by blocks"
        )
    if getattr(config, "quantization_config", None):
        raise ExportError(
            f"{source} is already quantized; export the original weights, --client-dtype int4 quantizes them"
        )
    return config


def load_model(source: str | Path, config: Any, *, trust_remote_code: bool = False) -> Any:
    """The model, from safetensors only; every weight must be there. Weights are mapped, and computed with in float32.

    Raises:
        ExportError: the weights are missing, incomplete, damaged or stored as pickle.
    """
    if Path(source).is_dir() and not any(Path(source).glob("*.safetensors")):
        raise ExportError(
            f"{source} has no *.safetensors; weights stored as pickle are not read, "
            "save the model with safe_serialization=True"
        )
    try:
        with stored_types_kept():
            model, report = _hub.AutoModelForCausalLM.from_pretrained(
                str(source),
                config=config,
                dtype=torch.float32,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told below, in one line
            )
    except OSError as error:
        raise ExportError(f"{source}: no safetensors weights can be read ({first_line(error)})") from error
    except Exception as error:  # damaged weights raise whatever the reader of that part raises
        raise ExportError(f"{source}: the weights cannot be read ({first_line(error)})") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ExportError(
            f"{source}: the checkpoint lacks {len(missing)} weights, {missing[0]} for one; it is incomplete"
        )
    _check_shapes(source, config, report)
    return compute_in_float32(model.eval())


def _check_shapes(source: str | Path, config: Any, report: Any) -> None:
    """Raises ExportError where the checkpoint is of another model than its config."""
    for name in sorted(report["mismatched_keys"]):
        raise ExportError(
            f"{source}: config and weights disagree on the size of {name if isinstance(name, str) else name[0]}; "
            "they are of different models"
        )
    for name in sorted(report["unexpected_keys"]):
        layer = _LAYER.search(name)
        if layer and int(layer[1]) >= config.num_hidden_layers:
            raise ExportError(
                f"{source}: config and weights disagree: the checkpoint holds {name}, "
                f"the config says {config.num_hidden_layers} layers; they are of different models"
            )


def read_texts(source: str | Path, config: Any, chat_template: str | None, *, trust_remote_code: bool = False) -> Texts:
    """Tokenizer, chat template and end tokens. `chat_template` replaces the tokenizer's own.

    Raises:
        ExportError: there is no fast tokenizer, no chat template, or no token that ends an answer.
    """
    folder = Path(source)
    if folder.is_dir() and not any(any(folder.glob(names)) for names in _TOKENIZER_FILES):
        raise ExportError(
            f"{source} has no tokenizer; put the model's tokenizer.json and tokenizer_config.json into it"
        )
    try:
        tokenizer = _hub.AutoTokenizer.from_pretrained(str(source), trust_remote_code=trust_remote_code, use_fast=True)
    except Exception as error:  # the same as for configs
        raise ExportError(f"{source}: no tokenizer can be read ({first_line(error)})") from error
    if not tokenizer.is_fast:
        raise ExportError(f"{source} has no fast tokenizer (tokenizer.json), which the browser needs; convert it first")
    if len(tokenizer) > config.vocab_size:
        raise ExportError(f"{source}: the tokenizer knows {len(tokenizer)} tokens, the model {config.vocab_size}")
    template = chat_template or tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise ExportError(
            f"{source} has no chat template; give one with --chat-template FILE (Jinja, see docs/exporting.md)"
        )
    try:
        prompt = tokenizer.apply_chat_template(_CONVERSATION, chat_template=template, add_generation_prompt=True)
    except Exception as error:  # a template is a program; it may fail in any way
        raise ExportError(f"{source}: the chat template fails on a short conversation ({first_line(error)})") from error
    special = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
    template = portable(template, _CONVERSATION, special)
    ends = _end_tokens(source, config, tokenizer)
    return Texts(
        tokenizer_json=tokenizer.backend_tokenizer.to_str(),
        chat_template=template,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        end_tokens=ends,
        prompt=tuple(prompt),
    )


def read_generation(source: str | Path, config: Any) -> SamplingParams:
    """How the model's authors sample; greedy unless they say otherwise."""
    generation = _generation(source, config)
    penalty = float(generation.repetition_penalty or 1.0)
    if not generation.do_sample:
        return SamplingParams(repetition_penalty=penalty)
    return SamplingParams(
        temperature=float(generation.temperature if generation.temperature is not None else 1.0),
        top_p=float(generation.top_p or 1.0),
        top_k=int(generation.top_k or 0),
        repetition_penalty=penalty,
    )


def _generation(source: str | Path, config: Any) -> Any:
    try:
        return _hub.GenerationConfig.from_pretrained(str(source))
    except (OSError, ValueError):  # most models have none; then the config says it
        return _hub.GenerationConfig.from_model_config(config)


def _end_tokens(source: str | Path, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """What generation_config.json (else config.json) ends on, and the tokenizer's own end."""
    stated = _generation(source, config).eos_token_id
    ends = list(stated) if isinstance(stated, list | tuple) else [stated]
    ends = sorted({int(token) for token in [*ends, tokenizer.eos_token_id] if token is not None})
    ends = [token for token in ends if token < config.vocab_size]
    if not ends:
        raise ExportError(f"{source} names no token that ends an answer; set eos_token_id in generation_config.json")
    return tuple(ends)
