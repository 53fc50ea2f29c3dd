"""A model on the Hugging Face Hub as a folder: only the files that an export reads, through the Hub's own cache.

Cache, token (`HF_TOKEN` or `hf auth login`), endpoint and offline mode (`HF_HUB_OFFLINE=1`) are huggingface_hub's.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub import utils as _utils

from splitllm.errors import ExportError, MachineError, UsageError

from .gate import Progress
from .quiet import first_line

_hub: Any = huggingface_hub
_HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
#: Everything but weights that an export may read; a few megabytes.
_SMALL: Final = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template*",
    _INDEX,
)
_CODE: Final = "*.py"


def find(model: str | Path, *, trust_remote_code: bool = False) -> Path:
    """The folder that holds the model's config and tokenizer: `model` itself, or the Hub's cache of it.

    Raises:
        UsageError: no such folder, or no such model that this person may read.
        MachineError: the Hub cannot be reached.
    """
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f"{model} holds no config.json; give a folder in Hugging Face's layout")
        return path
    if path.exists():
        raise UsageError(f"{model} is a file; give the folder that holds config.json and the weights")
    if not _HUB_ID.fullmatch(str(model)):
        raise UsageError(f"{model}: no such folder")
    patterns = [*_SMALL, _CODE] if trust_remote_code else list(_SMALL)
    folder = Path(_asked(str(model), lambda: _hub.snapshot_download(str(model), allow_patterns=patterns)))
    if not (folder / "config.json").is_file():
        raise UsageError(f"{model} on the Hub holds no config.json that can be read now; {_advice()}")
    return folder


def fetch_weights(model: str | Path, folder: Path, tell: Progress) -> None:
    """Bring the safetensors files of a model of the Hub into its cached folder; nothing to do for a local one.

    Raises:
        ExportError: the model has no safetensors weights.
        MachineError: the Hub cannot be reached.
    """
    if Path(model).is_dir():
        return
    names = [_SINGLE]
    if (folder / _INDEX).is_file():
        names = sorted(set(json.loads((folder / _INDEX).read_text("utf-8"))["weight_map"].values()))
    for done, name in enumerate(names):
        tell("downloading", done, len(names))
        try:
            _asked(str(model), lambda name=name: _hub.hf_hub_download(str(model), name, revision=folder.name))
        except UsageError as error:
            if isinstance(error.__cause__, errors.LocalEntryNotFoundError):
                raise
            raise ExportError(
                f"{model} has no {name} on the Hub; weights stored as pickle are not read, "
                "ask its authors for safetensors or save it again with safe_serialization=True"
            ) from error
    tell("downloading", len(names), len(names))


def _asked(model: str, ask: Any) -> Any:
    try:
        with _no_bars():
            return ask()
    except errors.GatedRepoError as error:
        raise UsageError(
            f"{model} is gated: accept its terms at {constants.ENDPOINT}/{model}, then give a token "
            "(`hf auth login`, or HF_TOKEN in the environment)"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"{model} is neither a folder here nor a model on the Hugging Face Hub that you may read; "
            "check the name, and give a token if it is private (`hf auth login`, or HF_TOKEN)"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise UsageError(
            f"{model} is neither a folder here nor a model that can be fetched from the Hugging Face Hub now; "
            f"{_advice()}"
        ) from error
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError) as error:
        raise UsageError(f"{model} lacks a file on the Hub ({first_line(error)})") from error
    except (errors.HFValidationError, ValueError) as error:
        raise UsageError(f"{model} is no name of a model ({first_line(error)})") from error
    except Exception as error:  # the Hub's client passes on whatever its network library raises
        raise MachineError(f"the Hugging Face Hub did not give {model} ({first_line(error)}); {_advice()}") from error


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Progress is told by the caller."""
    bars: Any = _utils  # its names are not exported for type checkers
    shown = not bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bars()


def _advice() -> str:
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and the model is not in the cache"
    return "check the name and the network"
