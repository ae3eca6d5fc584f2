"""Loss terms on numbers worked out by hand."""

import math

import pytest
import torch

from model.evaluation.measures import alert_threshold, calibration_error, token_f1
from model.losses import (
    class_loss,
    class_weights,
    contrastive_loss,
    distillation_loss,
    late_interaction_loss,
    rationale_loss,
    weighted_rationale_loss,
)

LOG_2 = math.log(2.0)


def test_rationale_loss_balances_classes_and_ignores_padding() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0, 99.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, True, False]])
    # weights: 4/2 for the one, 4/6 for each of three; their mean is one, every term is log 2
    assert rationale_loss(logits, targets, mask).item() == pytest.approx(LOG_2, rel=1e-6)


def test_a_post_with_one_kind_of_target_keeps_half_weight() -> None:
    logits, mask = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool)
    assert rationale_loss(logits, torch.ones(1, 3), mask).item() == pytest.approx(LOG_2 / 2, rel=1e-6)


def test_class_loss_skips_unknown_labels() -> None:
    logits = torch.tensor([[0.0, 0.0], [5.0, -5.0]])
    assert class_loss(logits, torch.tensor([1, -1])).item() == pytest.approx(LOG_2, rel=1e-6)
    assert class_loss(logits, torch.tensor([-1, -1])).item() == 0.0


def test_distillation_loss_mixes_where_there_is_a_teacher() -> None:
    """Even logits: any teacher's cross-entropy is ln 2. Sharper ones: 0.25 and 0.75 of two known logarithms."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0], [math.log(3.0), 0.0]])
    soft = torch.tensor([[0.9, 0.1], [0.25, 0.75], [0.0, 0.0]])
    hard = torch.tensor([1.0, 2.0, 3.0])

    made = distillation_loss(hard, logits, soft, 0.7)

    second = -(0.25 * math.log(0.75) + 0.75 * math.log(0.25))
    torch.testing.assert_close(made, torch.tensor([0.3 + 0.7 * math.log(2), 0.6 + 0.7 * second, 3.0]))


def test_contrastive_loss_of_orthogonal_matches() -> None:
    # logits are the identity: each row's loss is log(e + 1) - 1
    value = contrastive_loss(torch.eye(2), 3 * torch.eye(2), torch.tensor(1.0)).item()
    assert value == pytest.approx(math.log(math.e + 1) - 1, rel=1e-6)


@pytest.mark.parametrize("over_posts", ["sum", "mean"])
@pytest.mark.parametrize("over_tokens", ["sum", "mean"])
def test_weighted_rationale_loss_is_the_papers(over_tokens: str, over_posts: str) -> None:
    """L_r = -sum_j (n / n_j) BCE(y_j, p_j) over real tokens; a post without any is in no sum and no mean."""
    log_3 = math.log(3.0)  # the logit of 3/4
    logits = torch.tensor([[log_3, log_3, 0.0, 0.0], [0.0, log_3, 99.0, -99.0], [7.0, -7.0, 7.0, -7.0]])
    targets = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0]])
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    # n 4, n_1 1, n_0 3: weights 4 for the one, 4/3 for each other
    first = 4 * math.log(4 / 3) + 4 / 3 * (math.log(4) + LOG_2 + LOG_2)
    second = LOG_2 + math.log(4 / 3)  # n 2, n_1 2: weight 1
    posts = [first / 4, second / 2] if over_tokens == "mean" else [first, second]
    expected = sum(posts) / (2 if over_posts == "mean" else 1)

    value = weighted_rationale_loss(logits, targets, mask, over_tokens=over_tokens, over_posts=over_posts)

    assert value.item() == pytest.approx(expected, rel=1e-6)


def test_weighted_rationale_loss_without_any_token_is_zero() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    for over_posts in ("sum", "mean"):
        value = weighted_rationale_loss(
            torch.ones(2, 3), torch.ones(2, 3), nothing, over_tokens="mean", over_posts=over_posts
        )
        assert value.item() == 0.0


def test_late_interaction_loss_of_two_posts_and_two_images() -> None:
    """The mean over one's real pieces of the best cosine among the other's, both ways, against the own partner."""
    words = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [3.0, 0.0]]])
    patches = torch.tensor([[[1.0, 0.0], [0.0, 5.0]], [[0.0, 1.0], [1.2, 1.6]]])
    word_mask = torch.tensor([[True, False], [True, True]])
    patch_mask = torch.tensor([[True, False], [True, True]])
    by_post = [[1.0, 0.6], [0.5, 0.8]]  # of post a's words among image b's patches
    by_image = [[1.0, 1.0], [0.3, 0.9]]  # of image b's patches among post a's words
    scale = 2.0
    terms = [
        math.log(1 + math.exp(scale * (row[1 - k] - row[k]))) for m in (by_post, by_image) for k, row in enumerate(m)
    ]

    value = late_interaction_loss(words, patches, word_mask, patch_mask, torch.tensor(scale))

    assert value.item() == pytest.approx(sum(terms) / 4, rel=1e-6)


def test_class_weights_have_mean_one_and_favour_the_rare() -> None:
    weights = class_weights(torch.tensor([0, 0, 0, 0, 1, -1]), 2)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 4 / 3]))


def test_measures_on_hand_counted_rows() -> None:
    import numpy as np

    assert token_f1([True, True, False], [True, False, False]) == pytest.approx(2 / 3)
    probs = np.array([[0.95, 0.05], [0.95, 0.05]])
    assert calibration_error(np.array([0, 1]), probs) == pytest.approx(0.45)
    labels = np.array([1] * 10 + [0] * 10)
    scores = np.linspace(0.99, 0.01, 20)
    assert alert_threshold(labels, np.stack([1 - scores, scores], 1), 1, 0.9) == pytest.approx(scores[10])
