"""A tiny checkpoint per session, and hand-made posts; no data folder is needed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import Example, RationaleClassifier, checkpoint
from model.records import Pixels
from model.testing import tiny_checkpoint
from model.training.text_kit import TextKit

COMPACT = Path(__file__).parents[2] / "model" / "checkpoints" / "compact"


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def tiny(tiny_path: Path) -> RationaleClassifier:
    torch.set_num_threads(1)
    return RationaleClassifier.load(tiny_path)


@pytest.fixture(scope="session")
def kit(tiny_path: Path) -> TextKit:
    """What text training needs, at toy size; a third of the words may be selected."""
    network, config, tokenizer = checkpoint.load(tiny_path)
    return TextKit(
        tokenizer=tokenizer,
        tokenizer_json="",
        embeddings=network.embeddings,
        config=config.text,
        selection=replace(config.selection, max_word_share=0.34, min_words=1),
    )


@pytest.fixture(scope="session")
def compact() -> RationaleClassifier:
    return RationaleClassifier.load(COMPACT, n_threads=1)


def noise(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def posts() -> list[Example]:
    """Every modality, odd sizes, several scripts, a post longer than the model reads."""
    texts = [
        "RT @bob: Bridge collapsed &amp; roads flooded in #NepalFloods 😀 https://t.co/x",
        "people missing after the earthquake, please help",
        "مساعدة عاجلة للمتضررين من الفيضانات",
        "ネパール地震 救助",
        "flood " * 300,
        "https://t.co/only",
        "",
        "a",
    ]
    sizes = [(120, 200), (384, 288), (3, 2), (1, 1), (128, 128), (97, 31), (50, 50), None]
    return [
        Example(text=text, image=noise(*size, seed=index) if size else None)
        for index, (text, size) in enumerate(zip(texts, sizes, strict=True))
    ]
