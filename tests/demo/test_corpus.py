"""The corpus of tiny-chat: the same for the same seed, complete, and apart from the held-out questions."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest

from demo import facts, questions, stories
from demo.corpus import PHASES, Conversation, conversations
from demo.grammar import Style, expand, fill, say
from demo.plain import PLAIN_TALK, PLAIN_TOPICS
from demo.smalltalk import TALKS
from demo.splitllm_facts import TOPICS
from demo.turns import MAKERS
from demo.unknown import free_question

HELDOUT = Path(__file__).parents[2] / "demo" / "heldout.json"
_SLOT = re.compile(r"\{(\w+)\}")


def normalised(text: str) -> str:
    """Casing, punctuation and spacing taken away: what is left must differ for a question to count as new."""
    return " ".join(re.sub(r"[^\w+\-*/]", " ", text.lower()).split())


@pytest.fixture(scope="module")
def sample() -> list[Conversation]:
    return list(conversations(3000, seed=11))


def test_the_same_seed_gives_the_same_conversations() -> None:
    assert list(conversations(50, seed=3)) == list(conversations(50, seed=3))


def test_another_seed_gives_other_conversations() -> None:
    assert list(conversations(50, seed=3)) != list(conversations(50, seed=4))


def test_a_longer_corpus_begins_with_the_shorter_one() -> None:
    assert list(itertools.islice(conversations(1000, seed=3), 50)) == list(conversations(50, seed=3))


def test_no_held_out_user_text_occurs_in_the_training_corpus() -> None:
    groups = json.loads(HELDOUT.read_text(encoding="utf-8"))
    held_out = {
        normalised(turn["user"]) for group in ("known", "unknown") for entry in groups[group] for turn in entry["turns"]
    }
    asked = {
        normalised(message.content)
        for phase in PHASES
        for conversation in conversations(phase.conversations, phase.seed, phase.shares)
        for message in conversation.messages
        if message.role == "user"
    }
    assert held_out & asked == set()


def test_held_out_set_has_40_known_and_10_unknown_items_with_unique_ids() -> None:
    groups = json.loads(HELDOUT.read_text(encoding="utf-8"))
    assert (len(groups["known"]), len(groups["unknown"])) == (40, 10)
    ids = [entry["id"] for group in groups.values() for entry in group]
    assert len(set(ids)) == len(ids)
    assert all(entry["all_of"] or entry["any_of"] for group in groups.values() for entry in group)


def test_every_intent_is_present() -> None:
    sample = conversations(3000, seed=11, shares=PHASES[-1].shares)
    seen = Counter(intent for conversation in sample for intent in conversation.intents)
    assert set(seen) == {*MAKERS, "offered_story"}
    assert min(seen.values()) >= 30


def test_every_subject_has_plain_words() -> None:
    assert set(PLAIN_TALK) == {talk.name for talk in TALKS}
    assert set(PLAIN_TOPICS) == {topic.name for topic in TOPICS}


def test_every_subject_of_small_talk_and_splitllm_is_answered(sample: list[Conversation]) -> None:
    said = {m.content for conversation in sample for m in conversation.messages if m.role == "assistant"}
    assert {topic.answer for topic in TOPICS} <= said
    assert {talk.answer.replace("{name}", "") for talk in TALKS if talk.later is None} <= said


def test_conversations_have_one_to_many_turns_and_some_have_a_system_message(
    sample: list[Conversation],
) -> None:
    turns = Counter(len(conversation.intents) for conversation in sample)
    assert {1, 2, 3, 4, 5} <= set(turns)
    assert max(turns) >= 12
    systems = sum(conversation.messages[0].role == "system" for conversation in sample)
    assert 0.05 < systems / len(sample) < 0.25


def test_roles_alternate_and_end_with_the_assistant(sample: list[Conversation]) -> None:
    for conversation in sample:
        roles = [m.role for m in conversation.messages if m.role != "system"]
        assert roles == ["user", "assistant"] * len(conversation.intents)
        assert all(m.content.strip() for m in conversation.messages)


def test_the_name_recalled_is_the_name_told_last(sample: list[Conversation]) -> None:
    recalled = 0
    for conversation in sample:
        name = None
        for message in conversation.messages:
            if told := re.fullmatch(r"Nice to meet you, (.+)! How can I help you\?", message.content):
                name = told[1]
            if said := re.fullmatch(r"Your name is (.+)\.", message.content):
                assert said[1] == name
                recalled += 1
    assert recalled > 100


def test_sums_are_right_and_stay_within_20(sample: list[Conversation]) -> None:
    said = {m.content for conversation in sample for m in conversation.messages if m.role == "assistant"}
    sums = [found for text in said if (found := re.fullmatch(r"(\d+) (plus|minus) (\d+) is (\d+)\.", text))]
    assert len(sums) > 200
    for a, sign, b, result in (found.groups() for found in sums):
        assert int(result) == (int(a) + int(b) if sign == "plus" else int(a) - int(b))
        assert max(int(a), int(b), int(result)) <= 20


def test_a_stopped_answer_and_its_continuation_make_the_whole_answer() -> None:
    whole = {stories.story_of(index) for index in range(len(stories.HEROES))}
    continued = 0
    for conversation in conversations(3000, seed=5):
        answers = [m for m in conversation.messages if m.role == "assistant"]
        for intents, (shown, rest) in zip(
            itertools.pairwise(conversation.intents), itertools.pairwise(answers), strict=True
        ):
            if intents == ("story", "continue") and not shown.trained and rest.trained:
                kept = shown.content.rsplit(" ", 1)[0]
                candidates = {f"{shown.content} {rest.content}", f"{kept} {rest.content}"}
                continued += bool(candidates & whole)
    assert continued > 20


def test_a_stopped_answer_is_never_taught_as_complete(sample: list[Conversation]) -> None:
    endings = (".", "!", "?")
    for conversation in sample:
        for message in conversation.messages:
            if message.role == "assistant" and message.trained:
                assert message.content.endswith(endings)


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        (set(facts.CAPITALS), set(facts.UNKNOWN_COUNTRIES)),
        ({thing for row in facts.COLOURS for thing in row[:2]}, set(facts.UNKNOWN_THINGS)),
        ({animal for animal, _, _ in facts.SOUNDS}, set(facts.UNKNOWN_ANIMALS)),
        ({hero.noun for hero in stories.HEROES}, set(stories.OPEN_HEROES)),
    ],
)
def test_known_and_unknown_tables_are_disjoint(known: set[str], unknown: set[str]) -> None:
    assert known & unknown == set()


def test_at_least_30_countries_are_known() -> None:
    assert len(facts.CAPITALS) >= 30


def _pattern_tables() -> list[tuple[str, tuple[str, ...]]]:
    tables = [
        (name, table)
        for module in (questions, stories)
        for name, table in vars(module).items()
        if name.endswith("_PATTERNS")
    ]
    tables += [(topic.name, topic.patterns) for topic in TOPICS]
    return tables + [(talk.name, talk.patterns) for talk in TALKS]


@pytest.mark.parametrize(("name", "patterns"), _pattern_tables())
def test_patterns_are_well_formed(name: str, patterns: tuple[str, ...]) -> None:
    rng = random.Random(1)
    for pattern in patterns:
        assert pattern.count("[") == pattern.count("]"), f"{name}: {pattern}"
        for _ in range(10):
            text = expand(rng, pattern)
            assert not set("[]|") & set(text), f"{name}: {pattern}"
            assert set(_SLOT.findall(text)) <= {"x", "y", "a", "b", "n", "p", "hero"}, f"{name}: {pattern}"


def test_free_questions_leave_no_slot_open() -> None:
    rng = random.Random(2)
    left_open = [text for text in (free_question(rng) for _ in range(3000)) if _SLOT.search(text)]
    assert left_open == []


def test_fill_refuses_a_slot_that_was_not_given() -> None:
    with pytest.raises(KeyError, match="x"):
        fill("the capital of {x}", {"y": "Peru"})


def test_casing_reaches_the_slots() -> None:
    text = say(random.Random(1), ("what is the capital of {x}?",), Style("lower", "none"), {"x": "Peru"})
    assert "peru" in text
    assert text == text.lower()


def test_oracle_prompts_are_ten_different_texts() -> None:
    prompts = json.loads((HELDOUT.parent / "oracle_prompts.json").read_text(encoding="utf-8"))
    assert len(set(prompts)) == 10
