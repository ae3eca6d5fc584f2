"""Every text has pieces: what is no character is read as the replacement character, and stays in its place."""

from __future__ import annotations

import pytest

from model import Example, RationaleClassifier


@pytest.mark.parametrize("odd", ["\udcff", "\ude00\ud83d"])
def test_lone_surrogates_are_read_as_replacement_characters(tiny: RationaleClassifier, odd: str) -> None:
    """As `sitrep explain` gets them from a shell's undecodable bytes; spans are places in the text as it came."""
    text = f"flood bri{odd}dge collapsed{odd} people"
    other = text.replace(odd, "\ufffd" * len(odd))

    (prediction,), (expected,) = tiny.predict([Example(text=text)]), tiny.predict([Example(text=other)])

    words, same = tiny.tokenizer.split(text), tiny.tokenizer.split(other)
    assert tiny.tokenizer.encode(words) == tiny.tokenizer.encode(same)
    assert prediction.probs == pytest.approx(expected.probs)
    assert [text[span.start : span.end] for span in prediction.spans] == [
        other[span.start : span.end].replace("\ufffd" * len(odd), odd) for span in expected.spans
    ]


def test_post_of_surrogates_alone_has_no_text(tiny: RationaleClassifier) -> None:
    (prediction,) = tiny.predict([Example(text="\udcff \ud800")])
    assert prediction.spans == () and "no_text" in prediction.fallbacks
