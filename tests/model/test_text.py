"""Words keep their place in the original whatever the text holds."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import Example, RationaleClassifier
from model.text import Segmenter, split_words

SEGMENTER = Segmenter(["the", "nepal", "earthquake", "hurricane", "maria", "help", "pray", "for", "puerto", "rico"])
PIECES = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            *("https://t.co/a?b=1", "www.x.y", "@user", "@", "#", "#NepalEarthquake", "#hurricanemaria", "&amp;"),
            *(
                "&lt;b&gt;",
                "😀👩\u200d👩\u200d👧",
                "\u200f",
                "مساعدة",
                "עזרה",
                "地震",
                "Weâ€™re",
                "\u0301e",
                "\xa0",
                "#नेपाल",
            ),
            *("\x00", "\ud7ff", "ﬁre", "İstanbul"),
        ]
    ),
)
TEXTS = st.lists(PIECES, max_size=12).map(" ".join)


@pytest.mark.parametrize(
    ("text", "truncated"),
    [
        ("bridge down", False),
        ("地震で橋が落ちました", False),
        ("地震で橋が落ちました" * 4, True),  # one word without spaces: more pieces than are read of one
        ("bridge" + "-no" * 40, True),
    ],
)
def test_word_that_is_read_in_part_is_told(tiny: RationaleClassifier, text: str, truncated: bool) -> None:
    """Its span is all of it, so the finding must say that the end was not read."""
    [prediction] = tiny.predict([Example(text=text)])
    assert ("text_truncated" in prediction.fallbacks) is truncated


@given(TEXTS)
def test_words_are_disjoint_and_cover_every_visible_character(text: str) -> None:
    words = split_words(text, SEGMENTER)
    assert [text[word.start : word.end] for word in words] == text.split()
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))


@given(TEXTS)
def test_links_and_user_names_never_reach_the_model(text: str) -> None:
    for word in split_words(f"{text} https://secret.example/x @somebody", SEGMENTER):
        assert "secret" not in word.form and "somebody" not in word.form


@settings(deadline=None, max_examples=30)
@given(TEXTS)
def test_predicted_spans_cut_the_original_at_word_borders(tiny: RationaleClassifier, text: str) -> None:
    (prediction,) = tiny.predict([Example(text=text)])
    for span in prediction.spans:
        piece = text[span.start : span.end]
        assert piece == piece.strip() and piece
        assert span.start == 0 or text[span.start - 1].isspace()
        assert span.end == len(text) or text[span.end].isspace()


@pytest.mark.parametrize(
    ("tag", "form"),
    [
        ("#NepalEarthquake", "nepal earthquake"),
        ("#hurricanemaria", "hurricane maria"),
        ("#PrayForPuertoRico", "pray for puerto rico"),
        ("#xyzzyqq", "xyzzyqq"),
        ("(#Help)", "( help )"),
        ("#M\u00e9xicoSismo2017", "M\u00e9xico sismo 2017"),
        ("#\u0141\u00d3D\u0179Flood", "\u0141\u00d3D\u0179 flood"),
        ("#\u041f\u043e\u0442\u043e\u043f", "\u041f\u043e\u0442\u043e\u043f"),
        ("#\u6d2a\u6c34_2020", "\u6d2a\u6c34 2020"),
        ("(#नेपाल,", "( नेपाल ,"),
        ("#नेपालभूकम्प_२०७२#मदत", "नेपालभूकम्प २०७२ मदत"),
        ("#ভূমিকম্পNepal", "ভূমিকম্প nepal"),
        ("#น้ำท่วม", "น้ำท่วม"),
        ("#வெள்ளம்2015", "வெள்ளம் 2015"),
        ("#ශ්\u200dරීලංකා", "ශ්\u200dරීලංකා"),
        ("#فَيَضَان", "فَيَضَان"),
        ("#Me\u0301xicoSismo2017", "Me\u0301xico sismo 2017"),
        ("#E\u0301tatHelp", "E\u0301tat help"),
        ("#1\ufe0f\u20e3", "1\ufe0f \u20e3"),
        ("#\ufe0f\u20e3help", "#\ufe0f\u20e3help"),
    ],
)
def test_hashtags_are_split_into_known_words(tag: str, form: str) -> None:
    assert split_words(tag, SEGMENTER)[0].form == form


def test_hashtag_with_marks_is_a_span_to_its_end(tiny: RationaleClassifier) -> None:
    text = "पानी #नेपाल, #น้ำท่วม"
    words = split_words(text, SEGMENTER)
    assert [text[word.start : word.end] for word in words] == ["पानी", "#नेपाल,", "#น้ำท่วม"]
    assert all(word.selectable for word in words)
    (prediction,) = tiny.predict([Example(text=text)])
    assert [(span.start, span.end) for span in prediction.spans] and prediction.spans[-1].end <= len(text)


def test_links_names_and_bare_punctuation_are_never_evidence() -> None:
    words = split_words("@a https://t.co/x ... -- flood! 😀 RT@b", SEGMENTER)
    assert [word.selectable for word in words] == [False, False, False, False, True, True, True]


def test_hidden_words_become_one_star_per_run(tiny: RationaleClassifier) -> None:
    tokenizer = tiny.tokenizer
    words = tokenizer.split("the flood destroyed the bridge near city")
    tokens = tokenizer.encode_selected(words, [1, 2])
    vocabulary = tokenizer._tokenizer.get_vocab()
    names = {index: piece for piece, index in vocabulary.items()}
    assert [names[i] for i in tokens.input_ids] == ["[CLS]", "*", "flood", "destroyed", "*", "[SEP]"]
