"""The shipped checkpoint loads, is small, and answers plainly worded posts as a person would."""

import re

import pytest

from model import Example, RationaleClassifier
from tests.model.conftest import COMPACT, noise

DAMAGE = "infrastructure_and_utility_damage"
RESCUE = "rescue_volunteering_or_donation_effort"


def test_the_folder_is_at_most_fifty_megabytes_and_holds_no_pickle() -> None:
    files = sorted(path for path in COMPACT.iterdir() if path.is_file())
    assert sum(path.stat().st_size for path in files) <= 50e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}


def test_name_version_and_digest_are_filled(compact: RationaleClassifier) -> None:
    assert compact.name == "compact"
    assert re.fullmatch(r"compact-\d+\.\d+\.\d+", compact.version)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", compact.digest)
    assert 0.0 < compact.alert_threshold < 1.0


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The bridge collapsed and roads are destroyed, power lines down across the town after the hurricane", DAMAGE),
        ("Please donate food and water, volunteers needed at the shelter for flood victims", RESCUE),
        ("Had a great time watching the game with friends, love this song", "not_humanitarian"),
    ],
)
def test_a_plain_post_gets_the_plain_answer(compact: RationaleClassifier, text: str, label: str) -> None:
    (prediction,) = compact.predict([Example(text=text)])
    assert prediction.label == label
    assert prediction.spans


def test_every_modality_gets_a_repeatable_answer(compact: RationaleClassifier) -> None:
    posts = [
        Example(text="Houses destroyed by the earthquake in Mexico", image=noise(216, 384)),
        Example(text="", image=noise(384, 288)),
        Example(text="Houses destroyed by the earthquake in Mexico"),
        Example(text=""),
    ]
    first, second = compact.predict(posts), [compact.predict([post])[0] for post in posts]
    assert repr(first) == repr(second)
    assert first[0].image is not None and 0 < len(first[0].image.selected) <= 0.3 * 64
    assert first[3].fallbacks == ("no_text", "no_image", "no_evidence")
