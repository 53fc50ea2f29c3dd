"""What a walk through a session may do at each state, and how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from splitllm.session import State
from tests.unit.session_talk import BLOCKS, HIDDEN, MAX_ROWS, VOCAB

MAX_TOKENS = 32  # what OPEN asks for
SPLIT = st.integers(0, BLOCKS)

#: What may be wrong with a turn or a frame, or right in a way that is rare.
TURN_TWISTS = {
    "step": st.sampled_from([0, -1, 5]),
    "back": st.sampled_from([1, 2, 99, -1, -(2**30)]),
    "prompt": st.sampled_from([31, 32, 2**31 - 1]),
    "limit": st.sampled_from([1, 2**31 - 1]),
    "seen": st.lists(st.sampled_from([1, VOCAB - 1, VOCAB, 2**31 - 1]), max_size=40),
}
FRAME_TWISTS = {
    "turn": st.sampled_from([1, -1]),
    "skip": st.sampled_from([1, -1, -2, -5, 2**30]),
    "rows": st.sampled_from([1, 2, MAX_ROWS, MAX_ROWS + 1, MAX_ROWS + 1]),
    "fits": st.just(False),
    "columns": st.sampled_from([1, HIDDEN + 1]),
    "fill": st.sampled_from([float("nan"), float("inf"), float("-inf"), -65504.0]),
    "token": st.sampled_from([VOCAB - 1, VOCAB, -1, 2**31 - 1]),
}


def twisted(twists: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Nothing, one or two of these; nothing half of the times, so that a walk gets on."""
    one = st.one_of([st.fixed_dictionaries({name: twist}) for name, twist in twists.items()])
    return st.sampled_from([0, 0, 0, 1, 1, 2]).flatmap(
        lambda number: st.tuples(*[one] * number).map(lambda made: {k: v for some in made for k, v in some.items()})
    )


def move(**strategies: st.SearchStrategy[Any]) -> Callable[[Any], Any]:
    """Marks a step of the walk, and says what its arguments are drawn from."""

    def mark(method: Any) -> Any:
        method.strategies = strategies
        return method

    return mark


#: Steps by state, repeated by weight: what gets on is taken often, what ends the session once in a while, or no walk
#: gets far.
ENDING = ["say", "say_nonsense", "send_nonsense", "fail", "close"]
STEPS = {
    State.NEW: ["hello"] * 12 + ["say_turn", "name_a_turn", "send", *ENDING],
    State.GREETED: ["open"] * 12 + ["say_turn", "name_a_turn", "send", *ENDING],
    State.IDLE: [
        *["say_turn"] * 40,
        *["report", "send", "name_a_turn", "change_the_plan", "hear_of_an_old_turn", "come_back"] * 4,
        *ENDING,
    ],
    State.IN_TURN: [
        *["send"] * 80,
        *["draw"] * 40,
        *["carry_out", "adopt"] * 12,
        *["report", "change_the_plan", "name_a_turn", "hear_of_an_old_turn", "end", "come_back"] * 5,
        *ENDING,
        "say_turn",
    ],
    State.CLOSED: [*ENDING, "say_turn", "send", "name_a_turn", "hear_of_an_old_turn", "change_the_plan"],
}
