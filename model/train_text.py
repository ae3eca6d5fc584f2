"""The text half of training, step by step: vocabulary, stage 1, selection, stage 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from model import data, fit_text, pretrained
from model.batches import TokenItem, batches
from model.config import SelectionConfig, TextConfig
from model.corpus import Corpus, sample
from model.data import RationaleRow, TextRow
from model.encoders import Embeddings
from model.fit_text import FitSettings
from model.network import TextDecider, TextSelector
from model.selection import best_piece, choose_words
from model.text import Word
from model.tokens import Tokens, WordTokenizer

# mean near one; affected_individuals has 71 of 6,126 rows
CLASS_WEIGHTS = torch.tensor([2.0, 1.2, 0.7, 1.0, 1.0])
_N_COMMON_PIECES = 16_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TextKit:
    """What every text step needs."""

    tokenizer: WordTokenizer
    tokenizer_json: str
    embeddings: Embeddings
    config: TextConfig
    selection: SelectionConfig


def make_vocabulary(corpus: Corpus, weights: Path, max_tokens: int) -> tuple[str, list[int]]:
    """The pretrained vocabulary without the rarer pieces that no training text uses."""
    full = WordTokenizer.from_file(pretrained.tokenizer_path(weights), max_tokens=max_tokens)
    texts = [row.text for row in [*corpus.train, *corpus.disagreed, *corpus.humaid, *corpus.dev]]
    texts += [row.text for row in corpus.nepal]
    used = {piece for text in texts for piece in full.encode(full.split(text)).input_ids}
    return pretrained.prune_tokenizer(weights, used | set(range(_N_COMMON_PIECES)))


def tokenizer_from_json(tokenizer_json: str, max_tokens: int) -> WordTokenizer:
    return WordTokenizer(Tokenizer.from_str(tokenizer_json), max_tokens=max_tokens)


def selector_items(corpus: Corpus, kit: TextKit, seed: int) -> list[TokenItem]:
    """Whole posts with their class, and Nepal's with the words people marked."""
    items = [_whole(row, kit, 1.0) for row in corpus.train]
    items += [_whole(row, kit, 0.5) for row in sample(corpus.disagreed, 4_500, seed)]
    return items + [_marked(row, kit, 0.4) for row in corpus.nepal]


def fit_text_selector(corpus: Corpus, kit: TextKit, weights: Path, seed: int) -> TextSelector:
    """Human marks and classes first; then CrisisMMD posts marked half by that model, half by class evidence."""
    torch.manual_seed(seed)
    selector = TextSelector(kit.config, kit.selection.space_width, len(CLASS_WEIGHTS))
    pretrained.fill_text_encoder(selector.encoder, pretrained.minilm_state(weights))
    settings = FitSettings(n_epochs=2, batch_size=24, learning_rate=1.5e-4, rationale_weight=2.0, seed=seed)
    fit_text.fit_selector(selector, kit.embeddings, selector_items(corpus, kit, seed), settings, CLASS_WEIGHTS)
    evidence = [*corpus.train, *sample(corpus.disagreed, 2_500, seed)]
    items = evidence_items(evidence, kit, selector) + [_marked(row, kit, 0.4) for row in corpus.nepal]
    settings = FitSettings(n_epochs=1, batch_size=24, learning_rate=8e-5, rationale_weight=2.0, seed=seed)
    fit_text.fit_selector(selector, kit.embeddings, items, settings, CLASS_WEIGHTS)
    return selector


def evidence_items(rows: Sequence[TextRow], kit: TextKit, selector: TextSelector) -> list[TokenItem]:
    """Soft word targets: half the selector's own score, half whether the word is top evidence for its class.

    Evidence is the first-order drop of the class logit if the word became `*`, (x - star) * gradient.
    """
    items: list[TokenItem] = []
    for row, (words, scores) in zip(rows, score_words([row.text for row in rows], kit, selector), strict=True):
        if not any(word.selectable for word in words):
            continue
        tokens = kit.tokenizer.encode(words)
        drops = _evidence(tokens, row.label, kit, selector)
        drops += [0.0] * (len(words) - len(drops))
        top = choose_words(words, [max(0.0, drop) for drop in drops], replace(kit.selection, word_threshold=1e-9))
        targets = [0.5 * scores[k] + 0.5 * (k in top) if k >= 0 else 0.0 for k in tokens.words]
        items.append(TokenItem(input_ids=tokens.input_ids, label=row.label, targets=targets))
    return items


def _evidence(tokens: Tokens, label: int, kit: TextKit, selector: TextSelector) -> list[float]:
    with torch.no_grad():
        embedded = kit.embeddings(torch.tensor([tokens.input_ids]))
        pieces = zip(tokens.input_ids, tokens.words, strict=True)
        star_ids = [piece if owner < 0 else kit.tokenizer.hidden_id for piece, owner in pieces]
        star = kit.embeddings(torch.tensor([star_ids]))
    embedded.requires_grad_(True)
    logits = selector.class_head(selector.encoder(embedded).mean(1))[0]
    (gradient,) = torch.autograd.grad(logits.log_softmax(0)[label], embedded)
    drops = [0.0] * (max(tokens.words) + 1)
    for owner, drop in zip(tokens.words, ((embedded - star) * gradient).sum(2)[0].tolist(), strict=True):
        if owner >= 0:
            drops[owner] += drop
    return drops


def fit_text_decider(corpus: Corpus, kit: TextKit, selector: TextSelector, weights: Path, seed: int) -> TextDecider:
    """First on wider crisis tweets, then on CrisisMMD; nearly all inputs are rationales, some whole posts."""
    torch.manual_seed(seed)
    decider = TextDecider(kit.config, len(CLASS_WEIGHTS))
    pretrained.fill_text_encoder(decider.encoder, pretrained.minilm_state(weights))
    disagreed = masked_items(corpus.disagreed, kit, selector, 0.8)
    own = masked_items(corpus.train, kit, selector)
    warm_up = masked_items(sample(corpus.humaid, 6_000, seed + 1), kit, selector, 0.7)
    settings = FitSettings(n_epochs=1, batch_size=32, learning_rate=2e-4, seed=seed)
    fit_text.fit_decider(decider, kit.embeddings, [*warm_up, *disagreed, *own[:2_000]], settings, CLASS_WEIGHTS)
    whole = [_whole(row, kit, 1.0) for row in sample(corpus.train, 2_000, seed)]
    rest = masked_items(sample(corpus.disagreed, 2_500, seed), kit, selector, 0.4)
    settings = FitSettings(n_epochs=2, batch_size=24, learning_rate=1.2e-4, seed=seed)
    fit_text.fit_decider(decider, kit.embeddings, [*own, *whole, *rest], settings, CLASS_WEIGHTS)
    return decider


def masked_items(rows: Sequence[TextRow], kit: TextKit, selector: TextSelector, weight: float = 1.0) -> list[TokenItem]:
    """Each post with only its selected words left; posts without a selectable word are dropped."""
    items: list[TokenItem] = []
    for row, (words, scores) in zip(rows, score_words([row.text for row in rows], kit, selector), strict=True):
        chosen = choose_words(words, scores, kit.selection)
        if chosen:
            tokens = kit.tokenizer.encode_selected(words, chosen)
            items.append(TokenItem(input_ids=tokens.input_ids, label=row.label, weight=weight))
    return items


@torch.inference_mode()
def score_words(
    texts: Sequence[str], kit: TextKit, selector: TextSelector, batch_size: int = 48
) -> list[tuple[list[Word], list[float]]]:
    """Words and stage-1 scores per text, as the classifier computes them but batched and in bf16."""
    split = [kit.tokenizer.split(text) for text in texts]
    tokens = [kit.tokenizer.encode(words) for words in split]
    order = sorted(range(len(texts)), key=lambda index: len(tokens[index].input_ids))
    items = [TokenItem(input_ids=tokens[index].input_ids, label=0) for index in order]
    probs: list[Tensor] = []
    for batch in batches(items, batch_size, None):
        with torch.autocast("cpu", torch.bfloat16):
            logits = selector(kit.embeddings(batch.input_ids), batch.attention_mask).token_logits
        probs += list(logits.float().sigmoid())
    scored: list[tuple[list[Word], list[float]]] = [([], [])] * len(texts)
    for index, row in zip(order, probs, strict=True):
        scored[index] = split[index], best_piece(row.tolist(), tokens[index].words, split[index])
    return scored


def marked_words(row: RationaleRow, words: Sequence[Word]) -> list[bool]:
    """Words of which more than half was marked by a person."""
    marked: list[bool] = []
    for word in words:
        overlap = sum(max(0, min(word.end, end) - max(word.start, start)) for start, end in row.spans)
        marked.append(word.selectable and 2 * overlap > word.end - word.start)
    return marked


def _whole(row: TextRow, kit: TextKit, weight: float) -> TokenItem:
    tokens = kit.tokenizer.encode(kit.tokenizer.split(row.text))
    return TokenItem(input_ids=tokens.input_ids, label=row.label, weight=weight)


def _marked(row: data.RationaleRow, kit: TextKit, weight: float) -> TokenItem:
    words = kit.tokenizer.split(row.text)
    tokens = kit.tokenizer.encode(words)
    marked = marked_words(row, words)
    targets = [float(index >= 0 and marked[index]) for index in tokens.words]
    return TokenItem(input_ids=tokens.input_ids, label=row.label, targets=targets, weight=weight)
