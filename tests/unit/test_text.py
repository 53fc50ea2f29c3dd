"""Text to ids and back, whole and token by token."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, processors
from tokenizers.models import BPE

from splitllm.bundle import Bundle
from splitllm.errors import BundleError, UsageError
from splitllm.resources import demo_bundle
from splitllm.text import StreamDecoder, TextCodec, visible_length

BROKEN = "\ufffd"
#: None of these is one token in a tokenizer of this size.
WIDE = "日本語の文字、🙂🎉👩‍👩‍👧é𓀀"  # the wide comma is meant
TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"

Make = Callable[[str], TextCodec]


@pytest.fixture(scope="module")
def codec() -> TextCodec:
    return TextCodec.of(Bundle.open(demo_bundle()))


@pytest.fixture(scope="module")
def byte_fallback(tmp_path_factory: pytest.TempPathFactory) -> TextCodec:
    """A tokenizer as Llama 2 has it: pieces with ▁ for a blank, and single bytes for what no piece holds."""
    pieces = ["<unk>", "▁", "▁a", "▁b", "a", "b", "c", ".", "日"]
    vocabulary = {piece: index for index, piece in enumerate([*pieces, *(f"<0x{byte:02X}>" for byte in range(256))])}
    tokenizer = Tokenizer(BPE(vocabulary, [("▁", "a"), ("▁", "b")], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", len(vocabulary))])
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(file))
    return TextCodec(file, TEMPLATE, {})


@pytest.fixture
def make(codec: TextCodec) -> Make:
    """Makes a codec with another chat template."""
    file = Bundle.open(demo_bundle()).tokenizer_path
    return lambda template: TextCodec(file, template, {"bos_token": "<s>", "eos_token": None})


def streamed(codec: TextCodec, ids: list[int]) -> list[str]:
    """What is shown after each token, and at the end."""
    decoder = StreamDecoder(codec)
    return [*map(decoder.push, ids), decoder.finish()]


# -- ids and back -----------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@settings(max_examples=100, deadline=None)
def test_text_comes_back_as_it_was(codec: TextCodec, text: str) -> None:
    assert codec.decode(codec.encode(text)) == text


def test_nothing_is_added_that_the_text_does_not_hold(byte_fallback: TextCodec) -> None:
    assert byte_fallback.encode("ab") == byte_fallback.encode("a") + byte_fallback.encode("b")


def test_special_tokens_are_left_out_of_the_text(codec: TextCodec) -> None:
    end = Bundle.open(demo_bundle()).manifest.tokenizer.eos_token
    assert end
    assert codec.decode([*codec.encode("a"), *codec.encode(end), *codec.encode("b")]) == "ab"


# -- token by token ---------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8", exclude_characters=BROKEN), max_size=40))
@settings(max_examples=100, deadline=None)
def test_pieces_add_up_to_the_whole_and_hold_whole_characters_only(codec: TextCodec, text: str) -> None:
    pieces = streamed(codec, codec.encode(text))
    assert "".join(pieces) == text
    assert BROKEN not in "".join(pieces)
    assert pieces[-1] == ""


@given(
    st.lists(st.sampled_from(["日", "🙂", "é", "𓀀", "▁", "▁a", "b", "c", ".", "\n", "語", "<s>"]), max_size=30).map(
        "".join
    )
)
@settings(max_examples=100, deadline=None)
def test_pieces_of_a_byte_fallback_tokenizer_add_up_too(byte_fallback: TextCodec, text: str) -> None:
    ids = byte_fallback.encode(text)
    pieces = streamed(byte_fallback, ids)
    assert "".join(pieces) == byte_fallback.decode(ids)
    assert BROKEN not in "".join(pieces)


def test_a_long_text_is_not_decoded_anew_with_each_token(codec: TextCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = codec.encode(WIDE * 20)
    lengths: list[int] = []
    whole = codec.decode

    def decode(some: Sequence[int]) -> str:
        lengths.append(len(some))
        return whole(some)

    monkeypatch.setattr(codec, "decode", decode)
    streamed(codec, ids)
    assert max(lengths) < 20


def test_characters_appear_as_soon_as_they_are_whole(codec: TextCodec) -> None:
    decoder = StreamDecoder(codec)
    shown = ""
    for character in WIDE:
        ids = codec.encode(character)
        for token in ids[:-1]:
            shown += decoder.push(token)
        assert BROKEN not in shown
        shown += decoder.push(ids[-1])
        assert shown.endswith(character)
    assert shown == WIDE


def test_what_stays_broken_is_shown_at_the_end(codec: TextCodec) -> None:
    half = codec.encode("𓀀")[:-1]
    assert half
    *shown, rest = streamed(codec, [*codec.encode("ab"), *half])
    assert "".join(shown) == "ab"
    assert rest == codec.decode([*codec.encode("ab"), *half])[2:]
    assert BROKEN in rest


def test_a_half_character_that_something_else_follows_is_shown_broken(codec: TextCodec) -> None:
    ids = [*codec.encode("𓀀")[:-1], *codec.encode("ab")]
    assert "".join(streamed(codec, ids)) == codec.decode(ids)
    assert codec.decode(ids).endswith("ab")


def test_a_special_token_shows_nothing(codec: TextCodec) -> None:
    end = Bundle.open(demo_bundle()).spec.end_tokens[0]
    assert streamed(codec, [*codec.encode("a"), end, *codec.encode("b")]) == ["a", "", "b", ""]


@given(st.lists(st.integers(0, 250), max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_ids_add_up_to_their_text(codec: TextCodec, ids: list[int]) -> None:
    assert "".join(streamed(codec, ids)) == codec.decode(ids)


# -- stop strings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stop", "length"),
    [
        ("hello", [], 5),
        ("hello", ["\n\n"], 5),
        ("hello\n", ["\n\n"], 5),
        ("hello\n\n", ["\n\n"], 5),
        ("hello\n\nmore", ["\n\n"], 5),
        ("a", ["ab", "xyz"], 0),
        ("zzxy", ["ab", "xyz"], 2),
        ("an end, and an end", ["end", ", and"], 3),
        ("aab", ["aaab"], 3),
        ("aa", ["aab", "aac"], 0),
        ("", ["stop"], 0),
    ],
)
def test_text_is_shown_up_to_where_a_stop_string_may_begin(text: str, stop: list[str], length: int) -> None:
    assert visible_length(text, stop) == length


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_what_was_shown_is_never_taken_back(text: str, stop: list[str]) -> None:
    shown = 0
    for end in range(len(text) + 1):
        visible = visible_length(text[:end], stop)
        assert visible >= shown
        shown = visible
        if any(word in text[:end] for word in stop):
            assert visible == min(text[:end].index(word) for word in stop if word in text[:end])
            break


# -- chat templates ---------------------------------------------------------------------------------------------------


def test_a_conversation_is_rendered_by_the_template(make: Make) -> None:
    codec = make("{{ bos_token }}" + TEMPLATE + "{% if add_generation_prompt %}assistant:{% endif %}{{ eos_token }}")
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert codec.render(messages) == "<s>user: Hi\nassistant: Ho\nassistant:"
    assert codec.render(messages, add_generation_prompt=False) == "<s>user: Hi\nassistant: Ho\n"
    assert codec.decode(codec.encode_chat(messages)) == codec.render(messages)


def test_a_template_may_use_what_templates_of_transformers_use(make: Make) -> None:
    template = "{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}"
    messages = [{"content": "é"}, {"content": "<b>"}, {"content": "no"}]
    assert make(template).render(messages) == '{"content": "é"}{"content": "<b>"}'
    indented = make("{{ messages[0] | tojson(indent=2) }}").render(messages)
    assert indented == json.dumps(messages[0], indent=2, ensure_ascii=False)
    assert make("{{ messages[0] | tojson(ensure_ascii=True) }}").render(messages) == '{"content": "\\u00e9"}'


def test_text_is_not_escaped_for_html(make: Make) -> None:
    assert make(TEMPLATE).render([{"role": "user", "content": "<b> & 'c'"}]) == "user: <b> & 'c'\n"


def test_a_template_s_own_refusal_reaches_the_user(make: Make) -> None:
    with pytest.raises(UsageError, match="roles must alternate"):
        make("{{ raise_exception('roles must alternate') }}").render([])


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ (messages | attr('__class__')).__base__ }}",
        "{{ messages.append.__self__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ '{0.__class__}'.format('') }}",
        "{{ messages.append('more') }}",
        "{{ cycler.__init__.__globals__ }}",
    ],
)
def test_a_template_cannot_reach_out_of_its_sandbox(make: Make, template: str) -> None:
    with pytest.raises(UsageError, match="template"):
        make(template).render([{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{{ messages + 1 }}",
        "{{ unknown.member }}",
        "{{ range(10**9) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ '%d' % 'a' }}",
        "{{ messages | tojson(indent=[]) }}",
    ],
)
def test_a_template_that_fails_is_a_wrong_use_and_not_a_fault(make: Make, template: str) -> None:
    with pytest.raises(UsageError, match="the chat template refuses this conversation"):
        make(template).render([{"role": "user", "content": "Hi"}])


def test_a_template_that_cannot_be_parsed_is_a_damaged_bundle(make: Make) -> None:
    with pytest.raises(BundleError, match="the chat template cannot be read"):
        make("{% for %}")


def test_a_tokenizer_that_cannot_be_read_is_a_damaged_bundle(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read"):
        TextCodec(tmp_path / "tokenizer.json", "", {})


def test_a_long_text_is_encoded_without_holding_up_other_threads(bundle: Bundle) -> None:
    """The server encodes in a thread, while its event loop must go on."""
    codec = TextCodec.of(bundle)
    thread = threading.Thread(target=codec.encode, args=("word and more " * 40_000,))
    thread.start()
    rounds = 0
    while thread.is_alive():
        time.sleep(0.001)  # gives the lock away; who keeps it until the text is encoded leaves us one or two rounds
        rounds += 1
    assert rounds > 20
