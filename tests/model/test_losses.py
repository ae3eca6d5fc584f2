"""Loss terms on numbers worked out by hand."""

import math

import pytest
import torch

from model.losses import class_loss, class_weights, contrastive_loss, distillation_loss, rationale_loss
from model.measures import alert_threshold, calibration_error, token_f1

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


def test_contrastive_loss_of_orthogonal_matches() -> None:
    # logits are the identity: each row's loss is log(e + 1) - 1
    value = contrastive_loss(torch.eye(2), 3 * torch.eye(2), torch.tensor(1.0)).item()
    assert value == pytest.approx(math.log(math.e + 1) - 1, rel=1e-6)


def test_distillation_loss_of_a_uniform_student_is_log_n() -> None:
    assert distillation_loss(torch.zeros(1, 4), torch.tensor([[1.0, 0, 0, 0]])).item() == pytest.approx(2 * LOG_2)


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
