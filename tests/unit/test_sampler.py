"""Drawing tokens: every setting against arithmetic by hand, and all together against transformers."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitllm.errors import TurnError
from splitllm.sampler import Draw, Sampler, check_sampling, sample
from splitllm.types import Float32Array, SamplingParams
from tests.unit.plain_sampler import plain_sample


class Dice(np.random.Generator):
    """A generator whose next number is known."""

    def __init__(self, number: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.number = number

    def random(self, *args: object, **options: object) -> float:  # type: ignore[override]  # one of many overloads
        return self.number


def floats(*values: float) -> Float32Array:
    return np.array(values, np.float32)


def logs(*probabilities: float) -> Float32Array:
    """Logits whose softmax is these probabilities."""
    return floats(*np.log(probabilities))


def shares(logits: Float32Array, params: SamplingParams, seen: Collection[int] = ()) -> dict[int, float]:
    """How often each token is drawn, when the random numbers are 1000 evenly spaced ones."""
    drawn = [sample(logits, params, seen, Dice((step + 0.5) / 1000)) for step in range(1000)]
    return {token: count / 1000 for token, count in zip(*np.unique(drawn, return_counts=True), strict=True)}


# -- greedy -----------------------------------------------------------------------------------------------------------


def test_temperature_zero_takes_the_likeliest_and_of_equals_the_lowest_id() -> None:
    assert sample(floats(0, 3, 1, 3), SamplingParams(), (), None) == 1


def test_temperature_zero_ignores_filters_and_randomness() -> None:
    params = SamplingParams(temperature=0, top_p=0.1, top_k=1, min_p=1)
    assert {sample(floats(0, 2, 1), params, (), Dice(number)) for number in (0.0, 0.99)} == {1}


def test_the_logits_are_left_as_they_were() -> None:
    logits = floats(1, 2, 3)
    logits.flags.writeable = False
    sample(logits, SamplingParams(1.0, 0.9, 2, 0.1, 1.5), [0, 1], Dice(0.5))
    assert logits.tolist() == [1, 2, 3]


# -- one setting at a time --------------------------------------------------------------------------------------------


def test_temperature_one_draws_by_softmax() -> None:
    assert shares(logs(0.1, 0.2, 0.7), SamplingParams(1.0)) == {0: 0.1, 1: 0.2, 2: 0.7}


def test_temperature_divides_the_logits() -> None:
    squared = np.array([0.1, 0.2, 0.7]) ** 2
    expected = squared / squared.sum()
    drawn = shares(logs(0.1, 0.2, 0.7), SamplingParams(0.5))
    assert [drawn[token] for token in range(3)] == pytest.approx(expected, abs=1.1e-3)


def test_draws_follow_the_distribution() -> None:
    """Pearson's chi-square over 8 tokens; 40 is beyond the 1 - 1e-5 quantile of 7 degrees of freedom."""
    probabilities = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.08, 0.05, 0.02])
    generator = np.random.default_rng(12345)
    drawn = [sample(logs(*probabilities), SamplingParams(1.0), (), generator) for _ in range(5000)]
    counts = np.bincount(drawn, minlength=8)
    assert ((counts - 5000 * probabilities) ** 2 / (5000 * probabilities)).sum() < 40


def test_top_k_keeps_the_k_likeliest() -> None:
    assert shares(logs(0.1, 0.4, 0.1, 0.4), SamplingParams(1.0, top_k=2)) == {1: 0.5, 3: 0.5}
    assert list(shares(logs(0.1, 0.2, 0.7), SamplingParams(1.0, top_k=1))) == [2]


@pytest.mark.parametrize("top_k", [0, 3, 4, 2**31 - 1])
def test_top_k_of_zero_or_of_the_whole_vocabulary_keeps_all(top_k: int) -> None:
    assert list(shares(logs(0.1, 0.2, 0.7), SamplingParams(1.0, top_k=top_k))) == [0, 1, 2]


def test_top_k_keeps_all_that_are_tied_at_the_border() -> None:
    assert list(shares(logs(0.4, 0.2, 0.2, 0.2), SamplingParams(1.0, top_k=2))) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, kept: list[int]) -> None:
    assert list(shares(logs(0.1, 0.4, 0.2, 0.3), SamplingParams(1.0, top_p=top_p))) == kept


def test_top_p_that_is_reached_exactly_keeps_no_further_token() -> None:
    assert len(shares(floats(0, 0, 0, 0), SamplingParams(1.0, top_p=0.5))) == 2


def test_a_tiny_top_p_still_keeps_the_likeliest() -> None:
    assert list(shares(logs(0.1, 0.4, 0.2, 0.3), SamplingParams(1.0, top_p=1e-300))) == [1]


@pytest.mark.parametrize(("min_p", "kept"), [(0.0, [0, 1, 2]), (0.2, [1, 2]), (0.49, [1, 2]), (0.51, [2]), (1.0, [2])])
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(min_p: float, kept: list[int]) -> None:
    assert list(shares(logs(0.1, 0.3, 0.6), SamplingParams(1.0, min_p=min_p))) == kept


def test_repetition_penalty_divides_positive_logits_and_multiplies_negative_ones() -> None:
    logits = floats(4, -1, 3, -2)
    for penalty, seen, expected in ((2.0, [0], 2), (1.2, [0], 0), (0.5, [2], 2), (0.1, [1, 3], 0)):
        assert sample(logits, SamplingParams(repetition_penalty=penalty), seen, None) == expected
    only_negative = floats(-2, -1, -9)
    assert sample(only_negative, SamplingParams(repetition_penalty=3.0), [1], None) == 0
    penalised = np.exp([4 / 2, -1 * 2, 3, -2])
    drawn = shares(logits, SamplingParams(1.0, repetition_penalty=2.0), [0, 1])
    assert [drawn[token] for token in range(4)] == pytest.approx(penalised / penalised.sum(), abs=1.1e-3)


def test_a_repetition_penalty_of_one_changes_nothing() -> None:
    assert shares(logs(0.1, 0.2, 0.7), SamplingParams(1.0), [2]) == {0: 0.1, 1: 0.2, 2: 0.7}


# -- together ---------------------------------------------------------------------------------------------------------


@given(
    logits=st.lists(st.integers(-4000, 4000), min_size=2, max_size=24, unique=True),
    temperature=st.floats(0.3, 3.0),
    top_k=st.integers(0, 30),
    top_p=st.sampled_from([0.2, 0.5, 0.9, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.02, 0.1, 0.4]),
    penalty=st.sampled_from([0.7, 1.0, 1.3]),
    seen=st.sets(st.integers(0, 23), max_size=6),
)
@settings(max_examples=120, deadline=None)
def test_all_settings_together_equal_transformers(
    logits: list[int], temperature: float, top_k: int, top_p: float, min_p: float, penalty: float, seen: set[int]
) -> None:
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    scores = (np.array(logits) / 1000).astype(np.float32)
    seen_ids = sorted(token for token in seen if token < len(logits))
    processors = process.LogitsProcessorList()  # in the order of GenerationMixin._get_logits_processor
    if seen_ids and penalty != 1:
        processors.append(process.RepetitionPenaltyLogitsProcessor(penalty))
    processors.append(process.TemperatureLogitsWarper(temperature))
    if top_k:
        processors.append(process.TopKLogitsWarper(top_k))
    if top_p < 1:
        processors.append(process.TopPLogitsWarper(top_p))
    if min_p:
        processors.append(process.MinPLogitsWarper(min_p))
    ids = torch.tensor([seen_ids], dtype=torch.long)
    expected = torch.softmax(processors(ids, torch.tensor(scores).double()[None]), -1)[0].numpy()

    params = SamplingParams(temperature, top_p, top_k, min_p, penalty)
    ends = np.cumsum(expected)
    for token in np.flatnonzero(expected > 1e-9):
        middle = ends[token] - expected[token] / 2
        assert sample(scores, params, seen_ids, Dice(float(middle))) == token
    last = int(np.flatnonzero(expected)[-1])
    assert sample(scores, params, seen_ids, Dice(1 - 2**-53)) == last


def test_a_seed_makes_the_draws_repeatable() -> None:
    logits = np.random.default_rng(1).normal(size=100).astype(np.float32)
    params = SamplingParams(1.3, 0.95, 40, 0.01)
    first, again, other = (np.random.default_rng(seed) for seed in (7, 7, 8))
    answers = [[sample(logits, params, (), generator) for _ in range(50)] for generator in (first, again, other)]
    assert answers[0] == answers[1]
    assert answers[0] != answers[2]


def test_a_vocabulary_of_150_000_tokens_works() -> None:
    logits = np.random.default_rng(2).normal(size=150_000).astype(np.float32)
    logits[[149_999, 70_000]] = 30.0
    params = SamplingParams(1.0, 0.9, 50, 0.05, 1.1)
    assert {sample(logits, params, range(50_000), Dice(number)) for number in (0.0, 0.4, 0.6, 0.999)} == {
        70_000,
        149_999,
    }


def test_top_p_over_a_large_vocabulary_equals_a_full_sort() -> None:
    logits = np.random.default_rng(3).normal(scale=3, size=4000).astype(np.float32)
    weights = np.exp(logits.astype(np.float64) - logits.max())
    order = np.argsort(-weights)
    mass = np.cumsum(weights[order]) / weights.sum()
    for top_p in (0.05, 0.5, 0.9, 0.999):
        kept = set(order[: int(np.searchsorted(mass, top_p)) + 1].tolist())
        drawn = {sample(logits, SamplingParams(1.0, top_p), (), Dice(number)) for number in np.linspace(0, 0.99999, 60)}
        assert drawn <= kept
        assert sample(logits, SamplingParams(1.0, top_p), (), Dice(0.0)) == min(kept)
        assert sample(logits, SamplingParams(1.0, top_p), (), Dice(1 - 1e-12)) == max(kept)


# -- extremes ---------------------------------------------------------------------------------------------------------

HUGE = float(np.finfo(np.float32).max)


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-300, 1e-9, 1.0, 100.0])
@pytest.mark.parametrize(
    ("logits", "possible"),
    [
        (floats(-np.inf, 0, -np.inf), {1}),
        (floats(-HUGE, HUGE, -HUGE), {1}),
        (floats(0, np.inf, HUGE), {1}),
        (floats(5, 5, 5), {0, 1, 2}),
        (floats(-np.inf, -np.inf, -np.inf), {0, 1, 2}),
        (floats(np.nan, 1, 2), {0, 1, 2}),
    ],
)
@pytest.mark.parametrize("penalty", [1.0, 5e-324, 100.0])
@pytest.mark.filterwarnings("error")
def test_extreme_logits_draw_a_token_that_is_possible(
    logits: Float32Array, possible: set[int], temperature: float, penalty: float
) -> None:
    for top_p, top_k, min_p in ((1.0, 0, 0.0), (0.5, 2, 0.1)):
        params = SamplingParams(temperature, top_p, top_k, min_p, penalty)
        for number in (0.0, 0.5, 1 - 2**-53):
            assert sample(logits, params, [1], Dice(number)) in (possible if penalty == 1 else {0, 1, 2})


@given(st.lists(st.floats(width=32), min_size=1, max_size=9), st.floats(0, 100), st.floats(5e-324, 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_any_logits_draw_a_token_of_the_vocabulary(
    logits: list[float], temperature: float, top_p: float, number: float
) -> None:
    token = sample(
        floats(*logits), SamplingParams(temperature, top_p, 3, 0.01, 1.1), [0], Dice(min(number, 1 - 2**-53))
    )
    assert 0 <= token < len(logits)


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "name"),
    [
        (SamplingParams(temperature=-0.1), "temperature"),
        (SamplingParams(temperature=float("inf")), "temperature"),
        (SamplingParams(temperature=float("nan")), "temperature"),
        (SamplingParams(top_p=0), "top_p"),
        (SamplingParams(top_p=1.01), "top_p"),
        (SamplingParams(top_k=-1), "top_k"),
        (SamplingParams(min_p=-0.1), "min_p"),
        (SamplingParams(min_p=1.1), "min_p"),
        (SamplingParams(repetition_penalty=0), "repetition_penalty"),
        (SamplingParams(repetition_penalty=float("inf")), "repetition_penalty"),
    ],
)
def test_settings_without_meaning_are_refused_by_name(params: SamplingParams, name: str) -> None:
    with pytest.raises(TurnError, match=name) as refusal:
        check_sampling(params)
    assert refusal.value.code == "turn_refused"


def test_settings_at_the_ends_of_their_ranges_are_taken() -> None:
    check_sampling(SamplingParams(0, 1, 0, 0, 1))
    check_sampling(SamplingParams(100, 1e-9, 2**31 - 1, 1, 100))


# -- batches ----------------------------------------------------------------------------------------------------------

PARAMS = [
    SamplingParams(),
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.7, top_p=0.9),
    SamplingParams(temperature=1.3, top_k=40),
    SamplingParams(temperature=0.8, top_k=50, top_p=0.95, min_p=0.02, repetition_penalty=1.1),
    SamplingParams(temperature=1.0, min_p=0.1),
    SamplingParams(temperature=2.0, top_p=0.999),
    SamplingParams(repetition_penalty=1.3),
    SamplingParams(temperature=1e-3, top_p=0.5, top_k=3),
    SamplingParams(temperature=0.9, top_k=1500, top_p=0.8),
]


@pytest.mark.parametrize("vocab", [1, 2, 7, 300, 743, 49152, 150001])
@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
def test_a_batch_draws_what_each_row_alone_draws_by_the_plain_definition(vocab: int, spread: float) -> None:
    chance = np.random.default_rng([vocab, int(100 * spread)])
    logits = (spread * chance.standard_normal((len(PARAMS), vocab))).astype(np.float32)
    logits[::3] = logits[::3].round(1)  # with ties
    seen = [chance.integers(0, vocab, count % (vocab + 1)).tolist() for count in range(len(PARAMS))]
    ours, theirs = ([np.random.default_rng(row) for row in range(len(PARAMS))] for _ in range(2))
    draws = [Draw(*row) for row in zip(PARAMS, seen, ours, strict=True)]
    sampler = Sampler()
    for _ in range(1 if vocab > 10000 else 20):
        expected = [plain_sample(*row) for row in zip(logits, PARAMS, seen, theirs, strict=True)]
        assert sampler.draw(logits, draws) == expected


@given(
    st.integers(1, 6000),
    st.sampled_from([0.0, 0.05, 1.0, 4.0, 30.0]),
    st.floats(0.05, 5.0),
    st.sampled_from([0.001, 0.3, 0.9, 0.99, 1.0]),
    st.sampled_from([0, 1, 5, 64, 2000]),
    st.sampled_from([0.0, 0.01, 1.0]),
    st.integers(0, 2**32),
)
@settings(max_examples=120, deadline=None)
def test_whatever_the_settings_the_draw_is_that_of_the_plain_definition(
    vocab: int, spread: float, temperature: float, top_p: float, top_k: int, min_p: float, seed: int
) -> None:
    logits = (spread * np.random.default_rng(seed).standard_normal(vocab)).astype(np.float32)
    params = SamplingParams(temperature, top_p, top_k, min_p)
    for number in (0.0, 0.2, 0.7, 0.999):
        assert sample(logits, params, (), Dice(number)) == plain_sample(logits, params, (), Dice(number))


def test_rows_without_a_finite_best_score_do_not_disturb_their_neighbours() -> None:
    logits = np.array([[np.nan, 1, 2], [1, np.inf, 0], [0, 5, 1], [-np.inf] * 3], np.float32)
    draws = [Draw(SamplingParams(temperature=1.0), (), Dice(0.5)) for _ in range(4)]
    assert Sampler().draw(logits, draws) == [0, 1, 1, 0]
