"""Chat templates that use what only transformers knows are made plain, or refused with the way out."""

import jinja2
import pytest
from transformers.utils.chat_template_utils import _compile_jinja_template

from splitllm.errors import ExportError
from splitllm_export.templates import portable

MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
SPECIAL = {"bos_token": "<s>", "eos_token": None}


def test_marks_for_training_go_and_the_text_stays() -> None:
    marked = (
        "{% for m in messages %}{{ m.role }}: {%- generation -%} {{ m.content }}\n{%- endgeneration %}|{% endfor %}"
    )
    plain = portable(marked, MESSAGES, SPECIAL)
    assert "generation" not in plain
    expected = _compile_jinja_template(marked).render(messages=MESSAGES)
    assert (
        jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(plain).render(messages=MESSAGES)
        == expected
    )


def test_a_date_is_done_without_or_refused() -> None:
    able = "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% else %}1 May{% endif %}"
    assert portable(able, MESSAGES, SPECIAL) == able
    with pytest.raises(ExportError, match=r"today's date .* --chat-template FILE"):
        portable("{{ strftime_now('%d') }}", MESSAGES, SPECIAL)


def test_what_plain_jinja_cannot_render_is_refused() -> None:
    with pytest.raises(ExportError, match="needs more than plain Jinja"):
        portable("{{ messages[0].content | tojson_of_my_own }}", MESSAGES, SPECIAL)
