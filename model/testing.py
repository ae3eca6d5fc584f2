"""A tiny random checkpoint for other packages' tests: the real architecture at toy size, useless predictions."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path

import torch

from model import checkpoint
from model.config import Fusion, ImageConfig, ModelConfig, SelectionConfig, TaskConfig, TextConfig
from model.network import Network
from model.records import CLASSES, TASKS

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_WORDS = (
    *("is", "help", "flood", "fire", "water", "bridge", "road", "house", "people", "dead", "injured", "rescue"),
    *("donate", "shelter", "storm", "hurricane", "earthquake", "damage", "destroyed", "collapsed", "missing"),
    *("found", "volunteers", "relief", "http", "user", "the", "in", "on", "to", "of", "and", "for", "after", "near"),
    *("city", "street", "power", "thanks", "love", "music", "happy", "nepal", "irma", "harvey", "maria"),
)


def tiny_checkpoint(path: Path, seed: int = 0, *, further: Sequence[str] = ()) -> Path:
    """Writes a loadable checkpoint of random weights to `path` and returns it; well under a second.

    It decides the further tasks of `TASKS` beside the humanitarian one.
    """
    pieces = _pieces()
    config = ModelConfig(
        name="tiny",
        version=f"tiny-0.0.{seed}",
        classes=CLASSES,
        languages=("en",),
        text=TextConfig(
            n_pieces=len(pieces),
            max_tokens=96,
            width=32,
            n_heads=4,
            ff_width=64,
            n_selector_layers=1,
            n_decider_layers=1,
            gru_width=16,
        ),
        image=ImageConfig(
            size_px=128,
            rows=4,
            cols=4,
            selector_width=0.25,
            selector_depth=0.3,
            selector_head_width=32,
            decider_patch_px=16,
            decider_width=32,
            decider_layers=1,
            decider_heads=4,
        ),
        selection=SelectionConfig(
            space_width=16, word_threshold=0.5, max_word_share=0.35, min_words=1, n_patches=4, beta=0.1, n_steps=20
        ),
        fusion_both=_even(0.5, 0.5),
        fusion_text=_even(1.0, 0.0),
        fusion_image=_even(0.0, 1.0),
        prior=(0.2,) * len(CLASSES),
        further={task: _task(TASKS[task]) for task in further},
        alert_threshold=0.5,
        data_digest="sha256:none",
        weights_sha256="",
        tokenizer_sha256="",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(config)
    checkpoint.save(path, network, config, _tokenizer_json(pieces))
    return path


def _task(classes: tuple[str, ...]) -> TaskConfig:
    n = len(classes)
    return TaskConfig(
        classes=classes,
        fusion_both=_even(0.5, 0.5, n),
        fusion_text=_even(1.0, 0.0, n),
        fusion_image=_even(0.0, 1.0, n),
        prior=(1.0 / n,) * n,
    )


def _even(text_weight: float, image_weight: float, n_classes: int = len(CLASSES)) -> Fusion:
    return Fusion(text_weight=text_weight, image_weight=image_weight, bias=(0.0,) * n_classes)


def _pieces() -> list[str]:
    letters = string.ascii_lowercase + string.digits
    return [*_SPECIAL, *string.punctuation, *letters, *(f"##{letter}" for letter in letters), *_WORDS]


def _tokenizer_json(pieces: list[str]) -> str:
    return json.dumps(
        {
            "version": "1.0",
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": True,
                "strip_accents": None,
                "lowercase": True,
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": None,
            "model": {
                "type": "WordPiece",
                "unk_token": "[UNK]",
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": {piece: index for index, piece in enumerate(pieces)},
            },
        }
    )
