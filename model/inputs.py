"""The part of a prediction that needs no weights: words, wordpieces, pixels; may be done ahead in another thread."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs
from torch import Tensor

from model import patches
from model.records import Example, Pixels
from model.text import Word
from model.tokens import Tokens, WordTokenizer


class EncodedExample(Example, frozen=True, kw_only=True):
    """An example with what stage 1 reads of it; predicts the same bytes as the example it was made from."""

    words: Sequence[Word]
    tokens: Tokens
    pixel_values: Tensor | None  # (3, S, S); None also when stage 1 leaves the image alone


def encode_example(example: Example, tokenizer: WordTokenizer, size_px: int) -> EncodedExample:
    """The example with its text split and encoded and its image scaled; raises `InvalidExample`."""
    pixel_values = None
    if example.image is not None and example.image_rationale:
        pixel_values = patches.to_pixel_values(patches.check_image(example.image), size_px)
    return structs.replace(encode_text(example, tokenizer), pixel_values=pixel_values)


def encode_text(example: Example, tokenizer: WordTokenizer) -> EncodedExample:
    """The example with its text split and encoded; its image is left as it is. One that is encoded already is kept."""
    if isinstance(example, EncodedExample):
        return example
    words = tokenizer.split(example.text)
    return EncodedExample(
        text=example.text,
        image=example.image,
        image_rationale=example.image_rationale,
        words=words,
        tokens=tokenizer.encode(words),
        pixel_values=None,
    )


def words_of(example: Example, tokenizer: WordTokenizer) -> Sequence[Word]:
    return example.words if isinstance(example, EncodedExample) else tokenizer.split(example.text)


def tokens_of(example: Example, tokenizer: WordTokenizer) -> Tokens:
    return example.tokens if isinstance(example, EncodedExample) else tokenizer.encode(tokenizer.split(example.text))


def pixel_values_of(example: Example, image: Pixels, size_px: int) -> Tensor:
    """What stage 1 sees of the example's image, (3, S, S)."""
    if isinstance(example, EncodedExample) and example.pixel_values is not None:
        return example.pixel_values
    return patches.to_pixel_values(image, size_px)
