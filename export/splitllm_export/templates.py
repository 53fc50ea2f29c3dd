"""Chat templates as every reader of a bundle renders them: plain Jinja, without what transformers adds to it.

transformers knows two things more. `{% generation %}` marks what an assistant wrote, for training: the marks are
taken out, the text stays the same. `strftime_now` gives today's date: readers have none, so a template that can do
without it renders as if there were none, and one that cannot is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import jinja2
import jinja2.sandbox

from splitllm.errors import ExportError

from .quiet import first_line

_MARK: Final = re.compile(r"\{%(-?)\s*(?:end)?generation\s*(-?)%\}")
_DATE: Final = "strftime_now"


def portable(template: str, messages: Sequence[Mapping[str, str]], special: Mapping[str, str | None]) -> str:
    """The template for a bundle; `messages` are a conversation that it must render.

    Raises:
        ExportError: the template needs what only transformers gives it.
    """
    # An empty comment trims white space as the mark did, and prints nothing.
    plain = _MARK.sub(lambda mark: f"{{#{mark[1]} {mark[2]}#}}", template)
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _refuse
    words = {name: token or "" for name, token in special.items()}
    try:
        environment.from_string(plain).render(messages=list(messages), add_generation_prompt=True, **words)
    except Exception as error:  # a template is a program; it may fail in any way
        if _DATE in template:
            raise ExportError(
                f"the chat template asks for today's date ({_DATE}), which browsers do not give it; write the date "
                "into a copy of the template, and give that with --chat-template FILE"
            ) from error
        raise ExportError(
            f"the chat template needs more than plain Jinja ({first_line(error)}); give another with "
            "--chat-template FILE"
        ) from error
    return plain


def _refuse(reason: str) -> str:
    raise jinja2.TemplateError(reason)
