"""One turn of a conversation: a question in random words, and the answer that the state decides.

Each answer is decided by the conversation before it, never by chance: a greedy answer then has no close
second, and rounding at a split cannot flip it. Only the user's words are random.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from demo import plain, questions, stories
from demo.facts import CAPITALS, COLOURS, NAME_SYLLABLES, NAMES, NUMBER_WORDS, OTHER_COUNTRY_NAMES, SOUNDS
from demo.grammar import Style, expand, say
from demo.smalltalk import TALKS, Talk
from demo.splitllm_facts import TOPICS
from demo.unknown import (
    REFUSAL,
    REFUSAL_CAPITAL,
    REFUSAL_COLOUR,
    REFUSAL_COUNTRY,
    REFUSAL_SOUND,
    REFUSAL_SUM,
    free_question,
    invented_word,
    unknown_animal,
    unknown_country,
    unknown_thing,
    with_article,
)

_ADJECTIVES = (
    "fresh", "big", "small", "typical", "normal", "real", "new", "nice", "good", "beautiful", "large", "tiny",
)  # fmt: skip

LARGEST_NUMBER = 20
"""Sums and differences are known while every number, the result included, is at most this."""


@dataclass
class State:
    """What an answer may depend on."""

    style: Style
    turns: int = 0
    name: str | None = None
    subject: str | None = None  # table that a follow-up such as "and Italy?" asks in
    told: int | None = None  # index of the known story told last
    cut: str | None = None  # what a stopped answer still had to say
    story_ran: bool = False  # whether the last answer was a story or a part of one
    asked_name: bool = False
    offered_story: bool = False
    asked_how_user_is: bool = False


@dataclass(frozen=True)
class Turn:
    """One question and its answer, before the answer may be cut."""

    user: str
    answer: str


Maker = Callable[[random.Random, State], Turn]


def _capital(rng: random.Random, state: State) -> Turn:
    country = rng.choice(tuple(CAPITALS))
    asked = country
    if country in OTHER_COUNTRY_NAMES and rng.random() < 0.5:
        asked = rng.choice(OTHER_COUNTRY_NAMES[country])
    user = _ask_table(rng, state, "capital", questions.CAPITAL_PATTERNS, {"x": asked})
    return Turn(user, f"The capital of {country} is {CAPITALS[country]}.")


def _capital_unknown(rng: random.Random, state: State) -> Turn:
    user = _ask_table(rng, state, "capital", questions.CAPITAL_PATTERNS, {"x": unknown_country(rng)})
    return Turn(user, REFUSAL_CAPITAL)


def _country(rng: random.Random, state: State) -> Turn:
    state.subject = None
    if rng.random() < 0.25:
        city = rng.choice((invented_word(rng).title(), "Hamburg", "Milan", "Sydney", "Lyon", "Mumbai", "Barcelona"))
        return Turn(say(rng, questions.COUNTRY_PATTERNS, state.style, {"x": city}), REFUSAL_COUNTRY)
    country = rng.choice(tuple(CAPITALS))
    user = say(rng, questions.COUNTRY_PATTERNS, state.style, {"x": CAPITALS[country]})
    return Turn(user, f"{CAPITALS[country]} is the capital of {country}.")


def _colour(rng: random.Random, state: State) -> Turn:
    noun, other, colour = rng.choice(COLOURS)
    bare = noun.split(" ", 1)[-1]
    asked = _described(rng, rng.choice((noun, noun, noun, other, f"the {bare}", bare)))
    user = _ask_table(rng, state, "colour", questions.COLOUR_PATTERNS, {"x": asked, "y": asked})
    return Turn(user, f"{noun[0].upper()}{noun[1:]} is {colour}.")


def _described(rng: random.Random, thing: str) -> str:
    """Sometimes with an adjective that changes nothing: "a banana" -> "a fresh banana"."""
    article, _, noun = thing.partition(" ")
    if article not in {"a", "an", "the"} or not noun or rng.random() > 0.15:
        return thing
    return f"{'the' if article == 'the' else 'a'} {rng.choice(_ADJECTIVES)} {noun}"


def _colour_unknown(rng: random.Random, state: State) -> Turn:
    thing = _described(rng, unknown_thing(rng))
    user = _ask_table(rng, state, "colour", questions.COLOUR_PATTERNS, {"x": thing, "y": thing})
    return Turn(user, REFUSAL_COLOUR)


def _sound(rng: random.Random, state: State) -> Turn:
    animal, plural, sound = rng.choice(SOUNDS)
    slots = {"x": animal, "a": rng.choice((with_article(animal), f"the {animal}")), "p": plural}
    user = _ask_table(rng, state, "sound", questions.SOUND_PATTERNS, slots)
    return Turn(user, f"{with_article(animal).capitalize()} says {sound}.")


def _sound_unknown(rng: random.Random, state: State) -> Turn:
    animal, plural = unknown_animal(rng)
    slots = {"x": animal, "a": rng.choice((with_article(animal), f"the {animal}")), "p": plural}
    return Turn(_ask_table(rng, state, "sound", questions.SOUND_PATTERNS, slots), REFUSAL_SOUND)


def _animal(rng: random.Random, state: State) -> Turn:
    state.subject = None
    if rng.random() < 0.2:
        return Turn(say(rng, questions.ANIMAL_PATTERNS, state.style, {"x": invented_word(rng)}), REFUSAL_SOUND)
    animal, _, sound = rng.choice(SOUNDS)
    user = say(rng, questions.ANIMAL_PATTERNS, state.style, {"x": rng.choice((sound, sound, f"{sound} {sound}"))})
    return Turn(user, f"{with_article(animal).capitalize()} says {sound}.")


def _ask_table(rng: random.Random, state: State, subject: str, patterns: tuple[str, ...], slots: dict[str, str]) -> str:
    """A full question, or a short one such as "and Italy?" where the turn before had the same subject."""
    if state.subject == subject and rng.random() < 0.6:
        patterns = questions.FOLLOW_UP_PATTERNS
        slots = {"x": slots.get("a", slots["x"])}
    state.subject = subject
    return say(rng, patterns, state.style, slots)


def _numbers_as_typed(rng: random.Random, a: int, b: int) -> dict[str, str]:
    if max(a, b) <= LARGEST_NUMBER and rng.random() < 0.1:
        return {"a": NUMBER_WORDS[a], "b": NUMBER_WORDS[b]}
    return {"a": str(a), "b": str(b)}


def _sum(rng: random.Random, state: State) -> Turn:
    state.subject = None
    total = max(rng.randint(0, LARGEST_NUMBER), rng.randint(0, LARGEST_NUMBER))
    a = rng.randint(0, total)
    b = total - a
    if rng.random() < 0.5:
        user = say(rng, questions.SUM_PATTERNS, state.style, _numbers_as_typed(rng, a, b))
        return Turn(user, f"{a} plus {b} is {total}.")
    user = say(rng, questions.DIFFERENCE_PATTERNS, state.style, _numbers_as_typed(rng, total, b))
    return Turn(user, f"{total} minus {b} is {a}.")


def _sum_unknown(rng: random.Random, state: State) -> Turn:
    """Too large, negative, or not a sum at all."""
    state.subject = None
    kind = rng.random()
    patterns = questions.SUM_PATTERNS
    if kind < 0.35:  # both numbers look known, only the result is too large
        a = rng.randint(1, LARGEST_NUMBER)
        b = rng.randint(LARGEST_NUMBER + 1 - a, LARGEST_NUMBER)
    elif kind < 0.65:
        a, b = rng.randint(21, 99), rng.randint(0, 99)
        patterns = rng.choice((questions.SUM_PATTERNS, questions.DIFFERENCE_PATTERNS))
        if patterns is questions.SUM_PATTERNS and rng.random() < 0.5:
            a, b = b, a
    elif kind < 0.77:
        a, b = rng.randint(100, 99999), rng.randint(0, 9999)
        patterns = rng.choice((questions.SUM_PATTERNS, questions.DIFFERENCE_PATTERNS))
    elif kind < 0.85:  # below zero
        b = rng.randint(1, LARGEST_NUMBER)
        a = rng.randint(0, b - 1)
        patterns = questions.DIFFERENCE_PATTERNS[:4]
    else:
        a, b = rng.randint(0, 30), rng.randint(0, 30)
        patterns = questions.HARD_SUM_PATTERNS
    return Turn(say(rng, patterns, state.style, _numbers_as_typed(rng, a, b)), REFUSAL_SUM)


def _pick_name(rng: random.Random) -> str:
    if rng.random() < 0.4:  # most names are made up, so that copying is learned and not a list
        return rng.choice(NAMES)
    name = invented_word(rng) if rng.random() < 0.85 else rng.choice(NAME_SYLLABLES)
    return name.capitalize()


def _tell_name(rng: random.Random, state: State) -> Turn:
    name = state.style.case(_pick_name(rng))
    patterns = questions.NAME_PATTERNS
    if state.name is not None and rng.random() < 0.7:
        patterns = questions.RENAME_PATTERNS
    if state.asked_name and rng.random() < 0.5:
        patterns = questions.BARE_NAME_PATTERNS
    state.name, state.subject = name, None
    return Turn(say(rng, patterns, state.style, {"n": name}), f"Nice to meet you, {name}! How can I help you?")


def _recall_name(rng: random.Random, state: State) -> Turn:
    state.subject = None
    user = say(rng, questions.RECALL_PATTERNS, state.style)
    if state.name is None:
        return Turn(user, "I do not know your name yet. What is your name?")
    return Turn(user, f"Your name is {state.name}.")


def _story(rng: random.Random, state: State) -> Turn:
    """A story about a known hero, about any hero, the next one, or simply a story."""
    state.subject, state.story_ran = None, True
    kind = rng.random()
    if kind < 0.42:
        index = rng.randrange(len(stories.HEROES))
        hero = stories.HEROES[index]
        one = with_article(hero.noun)
        described = f"a [little|big|brave|young] {hero.noun}"
        asked = rng.choice((one, one, hero.told, f"the {hero.noun}", hero.plural, described))
        state.told = index
        user = say(rng, stories.STORY_PATTERNS, state.style, {"hero": expand(rng, asked)})
        return Turn(user, stories.story_of(index))
    if kind < 0.72:
        return _open_story(rng, state)
    patterns = stories.ANY_STORY_PATTERNS
    if state.told is not None and rng.random() < 0.7:
        patterns = stories.ANOTHER_STORY_PATTERNS
    return _next_story(state, say(rng, patterns, state.style))


def _open_story(rng: random.Random, state: State) -> Turn:
    noun = rng.choice(stories.OPEN_HEROES) if rng.random() < 0.75 else invented_word(rng)
    asked = expand(
        rng,
        rng.choice((with_article(noun), with_article(noun), f"the {noun}", f"a [small|brave|big|sad] {noun}")),
    )
    told = asked
    if rng.random() < 0.12:
        asked, told = f"my {noun}", f"your {noun}"
    elif rng.random() < 0.1:
        asked = told = f"{rng.choice(('two', 'three', 'some'))} {noun}s"
    user = say(rng, stories.STORY_PATTERNS, state.style, {"hero": asked}, dressed=False)
    return Turn(user, stories.open_story(state.style.case(told)))


def _next_story(state: State, user: str) -> Turn:
    state.subject, state.story_ran = None, True
    state.told = 0 if state.told is None else (state.told + 1) % len(stories.HEROES)
    return Turn(user, stories.story_of(state.told))


def _continue(rng: random.Random, state: State) -> Turn:
    """Go on with what was cut; say so where nothing was."""
    state.subject = None
    user = say(rng, stories.CONTINUE_PATTERNS, state.style, dressed=rng.random() < 0.3)
    if state.cut:
        return Turn(user, state.cut)
    answer = stories.WHOLE_STORY_TOLD if state.story_ran else stories.NOTHING_TO_CONTINUE
    state.story_ran = False
    return Turn(user, answer)


def accept_or_decline(rng: random.Random, state: State) -> Turn:
    """The answer to an offered story."""
    style = state.style
    if rng.random() < 0.65:
        return _next_story(state, say(rng, questions.ACCEPT_PATTERNS, style, dressed=False))
    state.story_ran = False
    user = say(rng, questions.DECLINE_PATTERNS, style, dressed=False)
    return Turn(user, _talk_answer(next(talk for talk in TALKS if talk.name == "okay"), state))


def _talk(rng: random.Random, state: State) -> Turn:
    state.subject = None
    if state.asked_how_user_is and rng.random() < 0.6:
        talk = next(talk for talk in TALKS if talk.name == "feeling_good")
        return Turn(say(rng, questions.FEELING_PATTERNS, state.style, dressed=False), talk.answer)
    talk = rng.choices(TALKS, [talk.weight for talk in TALKS])[0]
    if talk.name == "okay" and (state.asked_how_user_is or state.offered_story or state.cut):
        talk = TALKS[0]
    return Turn(say(rng, talk.patterns, state.style, dressed=rng.random() < 0.3), _talk_answer(talk, state))


def _talk_answer(talk: Talk, state: State) -> str:
    answer = talk.later if talk.later is not None and state.turns > 0 else talk.answer
    return answer.replace("{name}", f", {state.name}" if state.name else "")


def _splitllm(rng: random.Random, state: State) -> Turn:
    state.subject = None
    topic = rng.choice(TOPICS)
    return Turn(say(rng, topic.patterns, state.style), topic.answer)


def _unknown(rng: random.Random, state: State) -> Turn:
    state.subject = None
    question = free_question(rng)
    text = state.style.case(question) if not question[:1].isalpha() else say(rng, (question,), state.style)
    return Turn(text, REFUSAL)


def _plain(rng: random.Random, state: State) -> Turn:
    """What nearly everybody types, in the words that nearly everybody uses."""
    state.subject = None
    kind = rng.random()
    if kind < 0.5:
        talk = rng.choice(TALKS)
        if talk.name == "okay" and (state.asked_how_user_is or state.offered_story or state.cut):
            talk = TALKS[0]
        return Turn(plain.plainly(rng, plain.PLAIN_TALK[talk.name], state.style), _talk_answer(talk, state))
    if kind < 0.85:
        topic = rng.choice(TOPICS)
        return Turn(plain.plainly(rng, plain.PLAIN_TOPICS[topic.name], state.style), topic.answer)
    return Turn(plain.plainly(rng, plain.PLAIN_UNKNOWN, state.style), REFUSAL)


MAKERS: dict[str, tuple[Maker, int]] = {
    "capital": (_capital, 9),
    "capital_unknown": (_capital_unknown, 5),
    "country": (_country, 4),
    "colour": (_colour, 8),
    "colour_unknown": (_colour_unknown, 4),
    "sound": (_sound, 7),
    "sound_unknown": (_sound_unknown, 4),
    "animal": (_animal, 3),
    "sum": (_sum, 28),
    "sum_unknown": (_sum_unknown, 7),
    "tell_name": (_tell_name, 7),
    "recall_name": (_recall_name, 4),
    "story": (_story, 9),
    "continue": (_continue, 3),
    "talk": (_talk, 13),
    "splitllm": (_splitllm, 20),
    "unknown": (_unknown, 14),
    "plain": (_plain, 0),
}
"""Every intent with its maker and its share of the turns."""

FOCUS: dict[str, int] = {
    "capital": 6,
    "capital_unknown": 3,
    "country": 4,
    "colour": 8,
    "colour_unknown": 3,
    "sound": 7,
    "sound_unknown": 3,
    "animal": 4,
    "sum": 48,
    "sum_unknown": 8,
    "tell_name": 9,
    "recall_name": 5,
    "story": 6,
    "continue": 4,
    "talk": 16,
    "splitllm": 24,
    "unknown": 10,
}
"""Shares of the second phase of training: more of what a small model learns slowly, fewer refusals."""

COPYING: dict[str, int] = {
    **FOCUS, "sum": 30, "tell_name": 24, "recall_name": 8, "continue": 8, "story": 10, "talk": 20,
}  # fmt: skip
"""Shares of the third phase: names and stories that have to be copied letter by letter."""

BALANCED: dict[str, int] = {
    "capital": 8,
    "capital_unknown": 4,
    "country": 5,
    "colour": 8,
    "colour_unknown": 3,
    "sound": 9,
    "sound_unknown": 4,
    "animal": 4,
    "sum": 26,
    "sum_unknown": 7,
    "tell_name": 16,
    "recall_name": 8,
    "story": 7,
    "continue": 8,
    "talk": 22,
    "splitllm": 26,
    "unknown": 14,
}
"""Shares of the fourth phase: everything once more."""

PLAIN: dict[str, int] = {**BALANCED, "plain": 120}
"""Shares of the last phase: everything, and what people type most in the words that they use most."""
