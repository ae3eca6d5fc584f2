"""The text half of training, step by step: vocabulary, stage 1, selection, stage 2."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model.batches import TokenItem, batches
from model.data.corpus import Corpus, sample
from model.data.datasets import TextRow
from model.data.rationales import RationaleRow, marked_words
from model.network import TextDecider, TextSelector
from model.precision import mixed_precision
from model.selection import best_piece, choose_words
from model.text import Word
from model.tokens import WordTokenizer
from model.training import fit_text, pretrained
from model.training.fit_text import FitSettings
from model.training.masked_texts import MaskedText, Teach, encode, whole
from model.training.text_kit import TextKit

# mean near one; affected_individuals has 71 of 6,126 rows
CLASS_WEIGHTS = torch.tensor([2.0, 1.2, 0.7, 1.0, 1.0])
_MIN_USES = 2  # of a piece in the training texts; rarer ones are not worth their megabytes
_EVIDENCE_SHARE = 0.5  # of a word's target; the rest is what a model of people's marks says


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectorLosses:
    """How stage 1's two losses weigh."""

    class_weight: float = 1.0
    alpha: float = 2.0  # of the rationale loss, averaged over tokens and posts


RECIPE = SelectorLosses()


def make_vocabulary(corpus: Corpus, weights: Path, max_tokens: int) -> tuple[str, list[int]]:
    """The pretrained vocabulary without the rarer pieces that no training text uses."""
    full = WordTokenizer.from_file(pretrained.tokenizer_path(weights), max_tokens=max_tokens)
    texts = [row.text for row in [*corpus.train, *corpus.disagreed, *corpus.humaid, *corpus.dev]]
    texts += [row.text for row in corpus.nepal]
    counts = Counter(piece for text in texts for piece in full.encode(full.split(text)).input_ids)
    used = {piece for piece, count in counts.items() if count >= _MIN_USES}
    return pretrained.prune_tokenizer(weights, used)


def tokenizer_from_json(tokenizer_json: str, max_tokens: int) -> WordTokenizer:
    return WordTokenizer(Tokenizer.from_str(tokenizer_json), max_tokens=max_tokens)


def fit_text_selector(
    corpus: Corpus,
    kit: TextKit,
    reader: TextDecider,
    decisive: Sequence[Sequence[int]],
    seed: int,
    losses: SelectorLosses = RECIPE,
) -> TextSelector:
    """Starts from the reader, whose grasp of the classes it needs: it can only point at evidence that it understands.

    Human marks come first; then CrisisMMD posts are marked half by that model, half by the reader's decisive words,
    which are given for each of the official training posts.
    """
    torch.manual_seed(seed)
    selector = TextSelector(kit.config, kit.selection.space_width, len(CLASS_WEIGHTS))
    selector.encoder.load_state_dict(reader.encoder.state_dict())
    selector.class_head.load_state_dict(reader.class_head.state_dict())
    marked = [marked_item(row, kit, 0.4) for row in corpus.nepal]
    items = encode(whole(corpus.train), kit) + marked
    settings = FitSettings(
        n_epochs=1,
        batch_size=24,
        learning_rate=6e-5,
        class_weight=losses.class_weight,
        rationale_weight=losses.alpha,
        seed=seed,
    )
    fit_text.fit_selector(selector, kit.embeddings, items, settings, CLASS_WEIGHTS)
    items = evidence_items(corpus.train, kit, selector, decisive) + marked
    fit_text.fit_selector(selector, kit.embeddings, items, replace(settings, n_epochs=2), CLASS_WEIGHTS)
    return selector


def evidence_items(
    rows: Sequence[TextRow], kit: TextKit, selector: TextSelector, decisive: Sequence[Sequence[int]]
) -> list[TokenItem]:
    """Soft word targets: in part the selector's own score, in part whether the reader decides from the word."""
    items: list[TokenItem] = []
    scored = score_words([row.text for row in rows], kit, selector)
    for row, (words, scores), top in zip(rows, scored, decisive, strict=True):
        if not any(word.selectable for word in words):
            continue
        tokens = kit.tokenizer.encode(words)
        own = 1 - _EVIDENCE_SHARE
        targets = [own * scores[k] + _EVIDENCE_SHARE * (k in top) if k >= 0 else 0.0 for k in tokens.words]
        items.append(TokenItem(input_ids=tokens.input_ids, label=row.label, targets=targets))
    return items


def fit_text_decider(
    corpus: Corpus, kit: TextKit, selector: TextSelector, reader: TextDecider, seed: int, teach: Teach | None = None
) -> TextDecider:
    """The reader, taught to decide from the selector's rationales; some whole posts keep it honest on both."""
    torch.manual_seed(seed)
    decider = copy.deepcopy(reader)
    texts = rationales(corpus.train, kit, selector)
    texts += rationales(sample(corpus.disagreed, 4_500, seed), kit, selector, 0.4)
    texts += whole(sample(corpus.train, 2_000, seed))
    items = encode(texts, kit, None if teach is None else teach(texts))
    settings = FitSettings(n_epochs=2, batch_size=24, learning_rate=8e-5, seed=seed)
    fit_text.fit_decider(decider, kit.embeddings, items, settings, CLASS_WEIGHTS)
    return decider


def rationales(rows: Sequence[TextRow], kit: TextKit, selector: TextSelector, weight: float = 1.0) -> list[MaskedText]:
    """Each post with only its selected words left; posts without a selectable word are dropped."""
    scored = score_words([row.text for row in rows], kit, selector)
    chosen = [choose_words(words, scores, kit.selection) for words, scores in scored]
    return [
        MaskedText(row=row, kept=tuple(kept), weight=weight) for row, kept in zip(rows, chosen, strict=True) if kept
    ]


@torch.inference_mode()
def score_words(
    texts: Sequence[str], kit: TextKit, selector: TextSelector, batch_size: int = 48
) -> list[tuple[list[Word], list[float]]]:
    """Words and stage-1 scores per text, as the classifier computes them but batched and in mixed precision."""
    split = [kit.tokenizer.split(text) for text in texts]
    tokens = [kit.tokenizer.encode(words) for words in split]
    order = sorted(range(len(texts)), key=lambda index: len(tokens[index].input_ids))
    items = [TokenItem(input_ids=tokens[index].input_ids, label=0) for index in order]
    probs: list[Tensor] = []
    for batch in batches(items, batch_size, None):
        with mixed_precision():
            logits = selector(kit.embeddings(batch.input_ids), batch.attention_mask).token_logits
        probs += list(logits.float().sigmoid())
    scored: list[tuple[list[Word], list[float]]] = [([], [])] * len(texts)
    for index, row in zip(order, probs, strict=True):
        scored[index] = split[index], best_piece(row.tolist(), tokens[index].words, split[index])
    return scored


def marked_item(row: RationaleRow, kit: TextKit, weight: float) -> TokenItem:
    """A post with the words that people marked as its targets."""
    words = kit.tokenizer.split(row.text)
    tokens = kit.tokenizer.encode(words)
    marked = marked_words(row, words)
    targets = [float(index >= 0 and marked[index]) for index in tokens.words]
    return TokenItem(input_ids=tokens.input_ids, label=row.label, targets=targets, weight=weight)
