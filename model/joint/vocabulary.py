"""A WordPiece tokenizer from the training texts, for encoders without pretrained weights."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "*")
_PUNCTUATION = "!\"#$%&'(),-./:;?@"


def tokenizer_from_texts(texts: Iterable[str], size: int) -> str:
    """The tokenizer's JSON: whole words by frequency, and every character seen, so that no word is unknown."""
    words = Counter(word for text in texts for word in _bare(text))
    characters = sorted({character for word in words for character in word})
    pieces = [*_SPECIAL, *_PUNCTUATION, *characters, *(f"##{character}" for character in characters)]
    ranked = sorted(words, key=lambda word: (-words[word], word))
    pieces += [word for word in ranked if len(word) > 1][: max(0, size - len(pieces))]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
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
                "vocab": vocabulary,
            },
        },
        ensure_ascii=False,
    )


def _bare(text: str) -> list[str]:
    return ["".join(filter(str.isalnum, word)) for word in text.lower().split() if any(map(str.isalnum, word))]
