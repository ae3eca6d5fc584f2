"""The ablations that train: what each loss of stage 1 teaches, and what becomes of the rows."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model.batches import TokenItem
from model.data.corpus import Corpus
from model.data.datasets import TextRow
from model.data.rationales import RationaleRow
from model.evaluation import summary
from model.network import TextDecider, TextSelector
from model.training import fit_text, retrained
from model.training.text_kit import TextKit

TEXTS = ("the city street power", "relief after water", "house road fire people")


def items(kit: TextKit) -> list[TokenItem]:
    """`bridge` is class 1, `music` class 2, and people marked `help`."""
    made = []
    for filler in TEXTS * 8:
        for word, label in (("bridge", 1), ("music", 2)):
            words = kit.tokenizer.split(f"{filler} {word} help near")
            tokens = kit.tokenizer.encode(words)
            targets = [float(index == len(words) - 2) for index in tokens.words]
            made.append(TokenItem(input_ids=tokens.input_ids, label=label, targets=targets))
    return made


def learnt(kit: TextKit, *, class_weight: float, rationale_weight: float) -> tuple[bool, bool]:
    """Return whether a selector trained with these weights tells the class, and whether it points at `help`."""
    torch.manual_seed(0)
    selector = TextSelector(kit.config, 16, 5)
    settings = fit_text.FitSettings(
        n_epochs=8,
        batch_size=12,
        learning_rate=3e-3,
        head_learning_rate=1e-2,
        class_weight=class_weight,
        rationale_weight=rationale_weight,
    )
    fit_text.fit_selector(selector, kit.embeddings, items(kit), settings, torch.ones(5))
    right, pointed = [], []
    for item in items(kit)[:6]:
        with torch.inference_mode():
            out = selector(kit.embeddings(torch.tensor([item.input_ids])))
        right.append(int(out.class_logits.argmax()) == item.label)
        assert item.targets is not None
        probs = out.token_logits[0].sigmoid()
        pointed.append(int(probs.argmax()) == item.targets.index(1.0) and float(probs.max()) > 0.6)
    return all(right), all(pointed)


def test_each_loss_teaches_its_own_thing(kit: TextKit) -> None:
    assert learnt(kit, class_weight=1.0, rationale_weight=2.0) == (True, True)
    assert learnt(kit, class_weight=0.0, rationale_weight=2.0) == (False, True)
    assert learnt(kit, class_weight=1.0, rationale_weight=0.0) == (True, False)


def test_every_row_is_trained_with_its_losses_and_kept_at_once(
    kit: TextKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    reader, selector = TextDecider(kit.config, 5).eval(), TextSelector(kit.config, 16, 5).eval()
    marked = [RationaleRow(row_id="a", text="bridge help near", label=1, spans=((7, 11),))]
    rows = [TextRow(row_id=str(n), text=f"{TEXTS[n % 3]} bridge", label=n % 5) for n in range(15)]
    corpus = Corpus(
        train=rows, disagreed=[], humaid=[], dev=rows, test=rows, nepal=[], images=[], free=[], tied=frozenset()
    )
    asked: list[tuple[Any, str]] = []

    def train(run: Any, corpus: Any, kit: Any, reader: Any, losses: Any, name: str) -> TextSelector:
        asked.append((losses, name))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return selector

    monkeypatch.setattr(retrained, "load_corpus", lambda data: corpus)
    monkeypatch.setattr(retrained.rationales, "rationale_rows", lambda data, event: marked)
    monkeypatch.setattr(retrained.steps, "make_kit", lambda run, corpus: kit)
    monkeypatch.setattr(retrained.steps, "fit_reader", lambda run, corpus, kit: reader)
    monkeypatch.setattr(retrained.steps, "fit_selector", train)
    run = retrained.Run(data=tmp_path, weights=tmp_path, cache=tmp_path, seed=0)

    with pytest.raises(KeyboardInterrupt):
        retrained.measure(run, tmp_path / "ablations.json")

    assert asked == [(losses, name) for name, losses in retrained.LOSSES.items()]
    figures = summary.load(tmp_path / "ablations.json")
    done = list(retrained.LOSSES)[:2]
    assert set(figures) == {f"{name}.{key}" for name in done for key in ("macro_f1", "accuracy", "token_f1")}
    assert {figure["rows"] for figure in figures.values()} == {15}


def test_agreement_with_people_counts_words(kit: TextKit) -> None:
    """A selector that may select one word of three, where people marked one: all or nothing."""
    torch.manual_seed(0)
    selector = TextSelector(kit.config, 16, 5).eval()
    text, found = "bridge help near", []
    for start, end in ((0, 6), (7, 11), (12, 16)):
        row = RationaleRow(row_id="a", text=text, label=1, spans=((start, end),))
        found.append(retrained.agreement([row], kit, selector))
    assert sorted(found) == [0.0, 0.0, 1.0]
