"""The profiles against what others have published about the same models."""

from __future__ import annotations

import pytest

from splitllm.bench.paper_models import MODELS, Model, Stage


def stages(name: str, length: int) -> list[Stage]:
    return next(model for model in MODELS if model.name == name).profile(length)


# Vaswani et al. 2017, table 3: 65M; Devlin et al. 2019: 110M; GPT-2's released weights: 124M (the paper's 117M was
# corrected by its authors in the repository's README); Dosovitskiy et al. 2021, table 1: 86M.
@pytest.mark.parametrize(
    ("name", "length", "millions", "tolerance"),
    [
        ("Transformer (base)", 128, 65, 0.04),
        ("BERT-base", 128, 110, 0.01),
        ("GPT-2", 128, 124.4, 0.001),
        ("ViT-B/16", 224, 86, 0.01),
    ],
)
def test_the_parameters_add_up_to_the_published_number(
    name: str, length: int, millions: float, tolerance: float
) -> None:
    assert sum(stage.parameters for stage in stages(name, length)) == pytest.approx(millions * 1e6, rel=tolerance)


# Sun et al. 2020 (MobileBERT), table 4: BERT-base takes 22.5 billion FLOPs at 128 tokens. Touvron et al. 2021 (DeiT)
# and timm: ViT-B/16 takes 17.6 billion multiply-adds at 224 pixels and 55.4 at 384.
@pytest.mark.parametrize(
    ("name", "length", "billions"), [("BERT-base", 128, 22.5), ("ViT-B/16", 224, 35.2), ("ViT-B/16", 384, 110.8)]
)
def test_the_operations_add_up_to_the_published_number(name: str, length: int, billions: float) -> None:
    assert sum(stage.operations for stage in stages(name, length)) == pytest.approx(billions * 1e9, rel=0.02)


def test_one_attention_and_one_feed_forward_by_hand() -> None:
    _, attention, feed_forward, *_ = stages("BERT-base", 10)
    # 8 · 10 · 768² + 4 · 10² · 768 and 4 · 10 · 768 · 3072.
    assert attention.operations == 47_185_920 + 307_200
    assert feed_forward.operations == 94_371_840
    # 10 positions of 768 values of 2 bytes.
    assert attention.input_bytes == feed_forward.input_bytes == 15_360


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_stage_has_its_own_name_and_work(model: Model) -> None:
    for length in model.lengths:
        profile = model.profile(length)
        assert len({stage.name for stage in profile}) == len(profile)
        assert all(stage.operations > 0 and stage.memory_bytes > 0 and stage.input_bytes > 0 for stage in profile)


def test_attention_grows_with_the_square_of_the_length_and_the_rest_in_proportion() -> None:
    short, long = stages("GPT-2", 256), stages("GPT-2", 1024)
    assert long[2].operations == 4 * short[2].operations
    assert long[1].operations > 4 * short[1].operations
    assert long[-1].operations == short[-1].operations  # the head sees the last position alone
