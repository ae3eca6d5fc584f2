"""A cheap first look at texts, by stage 1's auxiliary class head: good for an order, never for a finding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model.batches import REPLAYED_STEP, padded
from model.network import Network, masked_mean
from model.records import CLASSES
from model.tokens import WordTokenizer

_URGENT = tuple(CLASSES.index(name) for name in ("affected_individuals", "infrastructure_and_utility_damage"))
_BATCH = 32


@torch.inference_mode()
def damage_or_casualties_prob(
    network: Network, tokenizer: WordTokenizer, texts: Sequence[str], *, device: str
) -> list[float]:
    """One probability per text, 0 where a text has no words; batches of similar length share a pass."""
    probs = [0.0] * len(texts)
    step = 1 if device == "cpu" else REPLAYED_STEP
    encoded: list[tuple[int, list[int]]] = []
    for index, text in enumerate(texts):
        words = tokenizer.split(text)
        if any(word.selectable for word in words):
            encoded.append((index, tokenizer.encode(words).input_ids))
    encoded.sort(key=lambda one: len(one[1]))
    for start in range(0, len(encoded), _BATCH):
        some = encoded[start : start + _BATCH]
        batch = padded([ids for _, ids in some], tokenizer.pad_id, step=step).to(device)
        class_probs = _class_probs(network, batch.input_ids, batch.mask)  # (B, 5)
        for (index, _), prob in zip(some, class_probs[:, list(_URGENT)].sum(1).tolist(), strict=True):
            probs[index] = min(1.0, prob)
    return probs


def _class_probs(network: Network, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The text selector without its rationale scores, which take as long again."""
    selector = network.text_selector
    hidden = selector.encoder(network.embeddings(input_ids), attention_mask)  # (B, T, D)
    probs: Tensor = selector.class_head(masked_mean(hidden, attention_mask)).softmax(1)
    return probs
