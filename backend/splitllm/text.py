"""Text to token ids and back: tokenizer, chat template, and decoding while tokens still arrive."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.sandbox
from tokenizers import Tokenizer

from .bundle import Bundle
from .errors import BundleError, UsageError

_REPLACEMENT = "\ufffd"


class TextCodec:
    """Tokenizer and chat template of one model."""

    def __init__(self, tokenizer_file: Path, chat_template: str, special: Mapping[str, str | None]) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        except Exception as error:  # the library raises bare Exception
            raise BundleError(
                f"{tokenizer_file.name} cannot be read as a tokenizer ({error}); export the bundle again"
            ) from None
        self._special = {key: value or "" for key, value in special.items()}
        try:
            self._template = _environment().from_string(chat_template)
        except jinja2.TemplateError as error:
            raise BundleError(f"the chat template cannot be read ({error}); export the bundle again") from None

    @classmethod
    def of(cls, bundle: Bundle) -> TextCodec:
        """The codec of a bundle."""
        tokenizer = bundle.manifest.tokenizer
        special = {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token}
        return cls(bundle.tokenizer_path, bundle.chat_template, special)

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """The conversation as the model was trained to read it."""
        try:
            return self._template.render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **self._special
            )
        except Exception as error:  # a stranger's template fails in any way that a program can
            raise UsageError(f"the chat template refuses this conversation: {error}") from None

    def encode(self, text: str) -> list[int]:
        """Token ids; nothing is added that the text does not hold."""
        # A batch of one: `encode` would hold the interpreter's lock all the while, seconds for a megabyte of text.
        [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        return list(encoding.ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; special tokens are left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def token_text(self, token: int) -> str:
        """Text of one token by itself, a special one's name included; U+FFFD stands for a part of a character."""
        return str(self._tokenizer.decode([token], skip_special_tokens=False))

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Token ids of a conversation whose next message is the assistant's."""
        return self.encode(self.render(messages))


class StreamDecoder:
    """Decodes token by token; gives text only once its characters are complete."""

    def __init__(self, codec: TextCodec) -> None:
        self._codec = codec
        self._ids: list[int] = []
        self._start = 0  # first id of the window that is decoded again; it begins a character
        self._given = 0  # ids whose text was given

    def push(self, token: int) -> str:
        """Text that this token completes, possibly none."""
        self._ids.append(token)
        before = self._codec.decode(self._ids[self._start : self._given])
        now = self._codec.decode(self._ids[self._start :])
        if len(now) <= len(before) or now.endswith(_REPLACEMENT):
            return ""
        self._start, self._given = self._given, len(self._ids)
        return now[len(before) :]

    def finish(self) -> str:
        """What is left: text of tokens that never became a whole character."""
        before = self._codec.decode(self._ids[self._start : self._given])
        now = self._codec.decode(self._ids[self._start :])
        self._given = len(self._ids)
        return now[len(before) :]


def visible_length(text: str, stop: Sequence[str]) -> int:
    """Characters of a growing text that can be shown already, since no stop string can begin in them."""
    found = [text.index(word) for word in stop if word in text]
    if found:
        return min(found)
    longest = max(
        (length for word in stop for length in range(1, len(word)) if text.endswith(word[:length])), default=0
    )
    return len(text) - longest


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """Refuses what is unsafe; Jinja's own would print nothing in its place."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> jinja2.Undefined:
        """See Jinja.

        Raises:
            SecurityError: always.
        """
        raise jinja2.exceptions.SecurityError(f"{attribute!r} of {type(obj).__name__} is not for templates")


@functools.cache
def _environment() -> jinja2.Environment:
    """Templates come with models from strangers, hence the sandbox; the settings are those templates expect."""
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], autoescape=False
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    return environment


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise_exception(message: str) -> Any:
    raise jinja2.TemplateError(message)
