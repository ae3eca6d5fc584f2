"""Loss terms: pure functions from tensors to one scalar."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def rationale_loss(token_logits: Tensor, targets: Tensor, token_mask: Tensor) -> Tensor:
    """Class-balanced BCE per post, averaged over its real tokens, then over posts; all (B, T).

    The paper's weights are n/n1 and n/n0; here each is halved so that a post's weights average to one,
    and padding counts in none of n, n1, n0.
    """
    mask = token_mask.to(token_logits.dtype)
    n = mask.sum(1, keepdim=True)  # (B, 1)
    n_on = (targets * mask).sum(1, keepdim=True)
    weights = torch.where(targets > 0.5, n / (2 * n_on.clamp(min=1)), n / (2 * (n - n_on).clamp(min=1)))
    terms = F.binary_cross_entropy_with_logits(token_logits, targets, reduction="none")
    return ((terms * weights * mask).sum(1) / n.squeeze(1).clamp(min=1)).mean()


def class_loss(
    class_logits: Tensor, labels: Tensor, class_weights: Tensor | None = None, label_smoothing: float = 0.05
) -> Tensor:
    """Cross-entropy over the rows whose label is known (label >= 0); zero if none is."""
    known = labels >= 0
    if not known.any():
        return class_logits.sum() * 0.0
    return F.cross_entropy(class_logits[known], labels[known], weight=class_weights, label_smoothing=label_smoothing)


def distillation_loss(hard_terms: Tensor, class_logits: Tensor, soft_labels: Tensor, soft_share: float) -> Tensor:
    """Per row, (1 - s) of its own loss (B,) and s of the cross-entropy with a teacher's probabilities (B, C).

    Rows whose soft labels are all zero have no teacher: their own loss stays as it is (Hinton et al. 2015, at T = 1).
    """
    soft_terms = -(soft_labels * class_logits.log_softmax(1)).sum(1)
    share = soft_share * soft_labels.sum(1)
    return (1 - share) * hard_terms + share * soft_terms


def contrastive_loss(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE over matching rows of two (B, E) sets of vectors."""
    logits = F.normalize(left, dim=1) @ F.normalize(right, dim=1).T * scale  # (B, B)
    targets = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def class_weights(labels: Tensor, n_classes: int, power: float = 0.5) -> Tensor:
    """Inverse frequency to a power, mean one over the classes."""
    counts = torch.bincount(labels[labels >= 0], minlength=n_classes).clamp(min=1).float()
    weights = counts.pow(-power)
    return weights / weights.mean()


def weighted_rationale_loss(
    token_logits: Tensor, targets: Tensor, token_mask: Tensor, *, over_tokens: str, over_posts: str
) -> Tensor:
    """The paper's L_r = -sum_j (n / n_j) BCE(y_j, p_j) per post; all (B, T), "sum" or "mean" over each axis.

    n, n_1 and n_0 count real tokens only. Posts without a real token add nothing and do not count.
    """
    mask = token_mask.to(token_logits.dtype)
    n = mask.sum(1, keepdim=True)  # (B, 1)
    n_on = ((targets > 0.5) * mask).sum(1, keepdim=True)
    weights = torch.where(targets > 0.5, n / n_on.clamp(min=1), n / (n - n_on).clamp(min=1))
    terms = F.binary_cross_entropy_with_logits(token_logits, targets, reduction="none")
    posts = (terms * weights * mask).sum(1)  # (B,)
    if over_tokens == "mean":
        posts = posts / n.squeeze(1).clamp(min=1)
    return posts.sum() if over_posts == "sum" else posts.sum() / (n > 0).sum().clamp(min=1)


def late_interaction_loss(
    words: Tensor, patches: Tensor, word_mask: Tensor, patch_mask: Tensor, scale: Tensor
) -> Tensor:
    """Symmetric InfoNCE over matching rows of words (B, W, E) and patches (B, P, E), compared piece by piece.

    A post and an image are as near as the mean, over the one's pieces, of the best cosine among the other's
    (FILIP, Yao et al. 2022); pooled vectors would leave single words and patches unaligned.
    """
    words, patches = F.normalize(words, dim=2), F.normalize(patches, dim=2)
    near = torch.einsum("awe,bpe->abwp", words, patches)  # (B, B, W, P)
    lowest = torch.finfo(near.dtype).min
    best_patch = near.masked_fill(~patch_mask[None, :, None, :], lowest).amax(3)  # (B, B, W)
    best_word = near.masked_fill(~word_mask[:, None, :, None], lowest).amax(2)  # (B, B, P)
    from_words = _row_means(best_patch, word_mask[:, None, :])
    from_patches = _row_means(best_word, patch_mask[None, :, :])
    targets = torch.arange(len(near), device=near.device)
    by_post = F.cross_entropy(from_words * scale, targets)
    by_image = F.cross_entropy((from_patches * scale).T, targets)
    return (by_post + by_image) / 2


def _row_means(values: Tensor, mask: Tensor) -> Tensor:
    kept = torch.where(mask, values, torch.zeros_like(values))
    return kept.sum(2) / mask.sum(2).clamp(min=1)
