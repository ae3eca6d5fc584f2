"""The ablations that train: what each loss of stage 1 teaches, and what becomes of the rows."""

from pathlib import Path
from typing import Any

import pytest
import torch

from model import fit_text, retrained, summary
from model.batches import TokenItem
from model.corpus import Corpus
from model.data import TextRow
from model.network import TextDecider, TextSelector
from model.text_kit import TextKit, Texts
from model.train_text import RECIPE

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
    """Only the recipe shares its cached stages with the training of the checkpoint."""
    torch.manual_seed(0)
    decider = TextDecider(kit.config, 5).eval()
    texts = Texts(kit=kit, reader=decider, selector=TextSelector(kit.config, 16, 5).eval(), decider=decider)
    rows = [TextRow(row_id=str(n), text=f"{TEXTS[n % 3]} bridge", label=n % 5) for n in range(15)]
    corpus = Corpus(
        train=rows, disagreed=[], humaid=[], dev=rows, test=rows, nepal=[], images=[], free=[], tied=frozenset()
    )
    asked: list[tuple[Any, str]] = []

    def stages(run: Any, corpus: Any, kit: Any, *, losses: Any, prefix: str) -> Texts:
        asked.append((losses, prefix))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return texts

    monkeypatch.setattr(retrained, "load_corpus", lambda data: corpus)
    monkeypatch.setattr(retrained, "make_kit", lambda run, corpus: kit)
    monkeypatch.setattr(retrained, "fit_text_stages", stages)
    run = retrained.Run(data=tmp_path, weights=tmp_path, cache=tmp_path, seed=0)

    with pytest.raises(KeyboardInterrupt):
        retrained.measure(run, tmp_path / "ablations.json")

    names = list(retrained.LOSSES)
    assert asked == [
        (losses, "" if losses is RECIPE else f"{name}.") for name, losses in list(retrained.LOSSES.items())[:3]
    ]
    figures = summary.load(tmp_path / "ablations.json")
    assert set(figures) == {f"{name}.{key}" for name in names[:2] for key in ("macro_f1", "accuracy")}
    assert {figure["rows"] for figure in figures.values()} == {15}
