"""Which words a training post's rationale should be: those people marked, or those its class rests on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.data.rationales import RationaleRow, marked_words
from model.joint.archive import Post
from model.joint.config import WordLimits
from model.joint.evidence import Kit, Reading
from model.joint.network import Selector
from model.records import HUMANITARIAN
from model.selection import best_piece, choose_words


def human_posts(rows: Sequence[RationaleRow], kit: Kit) -> tuple[list[Post], list[list[float] | None]]:
    """Tweets with people's rationales as posts without images, and the words people marked."""
    posts = [
        Post(row_id=row.row_id, text=row.text, labels={HUMANITARIAN: row.label}, splits={HUMANITARIAN: "train"})
        for row in rows
    ]
    marked = [marked_words(row, kit.tokenizer.split(row.text)) for row in rows]
    return posts, [[float(word) for word in words] for words in marked]


def evidence_targets(
    selector: Selector, readings: Sequence[Reading], labels: Sequence[int], kit: Kit, share: float, *, taught: bool
) -> list[list[float] | None]:
    """Each post's top words by class evidence; half of it the selector's own score where people have taught it.

    Evidence is the first-order drop of the class's log-probability if a word became `*`: (x - star) * gradient.
    Posts of unknown class, or without a word that can be evidence, get None. The selector must be in eval mode.
    """
    embedding = selector.encoder.word_embedding()
    kept: list[Tensor] = []

    def keep(_module: object, _inputs: object, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_(True))
        return kept[-1]

    handle = embedding.register_forward_hook(keep)
    try:
        inputs = kit.batch([reading.item for reading in readings])
        out = selector(inputs)
    finally:
        handle.remove()
    index = torch.tensor(labels, device=out.token_logits.device)
    log_probs = out.class_logits[HUMANITARIAN].log_softmax(1).gather(1, index.clamp(min=0)[:, None])
    (gradient,) = torch.autograd.grad(log_probs.sum(), kept[0])
    star = embedding.weight[kit.tokenizer.hidden_id].detach()
    drops = ((kept[0].detach() - star) * gradient).float().sum(2).cpu()  # (B, T)
    probs = out.token_logits.detach().float().sigmoid().cpu()
    limits = WordLimits(word_threshold=1e-9, max_word_share=share)
    targets: list[list[float] | None] = []
    for row, (reading, label) in enumerate(zip(readings, labels, strict=True)):
        if label < 0 or not any(word.selectable for word in reading.words[: reading.tokens.n_words]):
            targets.append(None)
            continue
        owners = reading.tokens.words
        evidence = _word_sums(drops[row].tolist(), owners, len(reading.words))
        top = set(choose_words(reading.words, evidence, limits, n_read=reading.tokens.n_words))
        own = best_piece(probs[row].tolist(), owners, reading.words)
        targets.append(
            [0.5 * own[k] + 0.5 * (k in top) if taught else float(k in top) for k in range(len(reading.words))]
        )
    return targets


def _word_sums(drops: Sequence[float], owners: Sequence[int], n_words: int) -> list[float]:
    sums = [0.0] * n_words
    for drop, owner in zip(drops, owners, strict=False):
        if owner >= 0:
            sums[owner] += drop
    return [max(0.0, total) for total in sums]
