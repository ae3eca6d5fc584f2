"""Ties words and patches to one space, so that transport between them means something; one rule for all encoders."""

from __future__ import annotations

from torch import Tensor

from model.joint.states import JointStates
from model.losses import late_interaction_loss


def alignment(states: JointStates, word_mask: Tensor, log_scale: Tensor) -> Tensor | None:
    """Posts find their own image among the batch's and the other way round; None with fewer than two pairs."""
    paired = word_mask.any(1) & states.patch_mask.any(1)
    if int(paired.sum()) < 2:
        return None
    return late_interaction_loss(
        states.token_space[paired],
        states.patch_space[paired],
        word_mask[paired],
        states.patch_mask[paired],
        log_scale.exp().clamp(max=100.0),
    )
