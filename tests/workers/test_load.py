"""What a worker spares itself under load: when it begins, when it ends, and what the findings say of it."""

from __future__ import annotations

import hashlib
import logging

import pytest

from stream.records import (
    NO_IMAGE_RATIONALE,
    TEXT_ONLY,
    Origin,
    Post,
    PreparedImage,
    PreparedPost,
    finding_id,
)
from tests.stream.findings import NOW
from workers.findings import example
from workers.load import LoadPolicy, Mode, Reliefs, relieve
from workers.setting_sources import load_settings


def policy(on_change: list[Mode] | None = None, **flags: float) -> LoadPolicy:
    values = {"degrade_after_s": 10, "recover_share": 0.5, **flags}
    told = on_change if on_change is not None else []
    return LoadPolicy(load_settings(values, environ={}), on_change=told.append)


def prepared(*, text: str = "Bridge down", image: bool = True, degraded: tuple[str, ...] = ()) -> PreparedPost:
    pixels = PreparedImage(index=0, width=2, height=1, original_width=2, original_height=1, pixels=bytes(6))
    return PreparedPost(
        post=Post(id="p", text=text),
        origin=Origin(topic="posts", partition=0, offset=7),
        accepted_at=NOW,
        image=pixels if image else None,
        degraded=list(degraded),
    )


def test_triage_begins_above_its_threshold_and_ends_below_a_lower_one() -> None:
    load = policy(triage_lag_posts=100)
    seen = []
    for lag in (0, 100, 101, 80, 50, 49, 80, 101):
        load.update(lag, 0.0)
        seen.append(load.triage)
    assert seen == [False, False, True, True, True, False, False, True]


def test_degraded_mode_needs_lag_that_lasts() -> None:
    """A peak that is over in a moment changes no finding."""
    load = policy(no_image_rationale_lag_posts=100)
    for now_s, lag, mode in (
        (0, 500, "full"),
        (9, 500, "full"),
        (9.5, 90, "full"),
        (12, 500, "full"),
        (21.9, 500, "full"),
        (22, 500, "no_image_rationale"),
        (23, 60, "no_image_rationale"),
        (24, 49, "full"),
        (25, 500, "full"),
    ):
        load.update(lag, now_s)
        assert load.reliefs.mode == mode, (now_s, lag)


def test_strongest_mode_counts_and_each_change_is_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Mode] = []
    load = policy(told, no_image_rationale_lag_posts=100, text_only_lag_posts=1_000, degrade_after_s=0)
    with caplog.at_level(logging.WARNING, logger="workers.load"):
        for lag in (10, 150, 1_500, 1_200, 400, 20):
            load.update(lag, 0.0)
    assert told == ["no_image_rationale", "text_only", "no_image_rationale", "full"]
    modes = [record.getMessage() for record in caplog.records if record.getMessage().startswith("mode")]
    assert modes[0] == "mode no_image_rationale, it was full: consumer lag is 150 posts"
    assert len(modes) == 4


def test_exactly_once_leaves_triage_off() -> None:
    """Its transactions publish in order: an urgent finding would wait for those before it all the same."""
    load = policy(triage_lag_posts=1, exactly_once=True)
    load.update(1_000, 0.0)
    assert not load.triage


def test_threshold_of_0_never_switches_on() -> None:
    load = policy(triage_lag_posts=0)
    load.update(10_000_000, 0.0)
    load.update(10_000_000, 1_000.0)
    assert not load.triage
    assert load.reliefs == Reliefs()


def test_post_without_a_mode_is_left_as_it_is() -> None:
    post = prepared(degraded=("further_images_unread",))
    assert relieve(post, Reliefs()) is post
    assert example(post).image_rationale


def test_text_only_leaves_the_picture_out_and_says_so() -> None:
    spared = relieve(prepared(degraded=("further_images_unread",)), Reliefs(text_only=True, no_image_rationale=True))
    assert (spared.image, spared.degraded) == (None, [TEXT_ONLY])
    assert example(spared).image is None


@pytest.mark.parametrize("text", ["", "  \n"])
def test_text_only_never_applies_to_a_post_without_text(text: str) -> None:
    """It keeps its picture; the weaker mode applies to it where that is on."""
    post = prepared(text=text)
    assert relieve(post, Reliefs(text_only=True)) is post
    weaker = relieve(post, Reliefs(text_only=True, no_image_rationale=True))
    assert weaker.image is not None and weaker.degraded == [NO_IMAGE_RATIONALE]


def test_label_without_image_rationale_keeps_the_picture_and_says_so() -> None:
    spared = relieve(prepared(degraded=("further_images_unread",)), Reliefs(no_image_rationale=True))
    assert spared.image is not None and spared.degraded == ["further_images_unread", NO_IMAGE_RATIONALE]
    assert example(spared).image is not None and not example(spared).image_rationale


@pytest.mark.parametrize("reliefs", [Reliefs(text_only=True), Reliefs(no_image_rationale=True)])
def test_mode_changes_nothing_for_a_post_without_a_picture(reliefs: Reliefs) -> None:
    post = prepared(image=False, degraded=("image_truncated",))
    assert relieve(post, reliefs) is post


def test_mode_is_part_of_the_idempotency_key() -> None:
    """The content differs, so the id does; what follows from the post alone changes neither."""
    plain = finding_id("p", "m-1")
    assert plain == hashlib.sha256(b"m-1\x00p").hexdigest()[:32]  # as it was before there were modes
    assert finding_id("p", "m-1", ["image_truncated", "no_image"]) == plain
    ids = {plain, finding_id("p", "m-1", [TEXT_ONLY, "no_image"]), finding_id("p", "m-1", [NO_IMAGE_RATIONALE])}
    assert len(ids) == 3
    assert finding_id("p", "m-1", ["no_image", TEXT_ONLY]) == finding_id("p", "m-1", [TEXT_ONLY])


def test_every_failed_picture_is_part_of_the_idempotency_key() -> None:
    """With one failure the next picture was read, with two none was, or another: the content differs."""
    once, twice = ["image_timeout"], ["image_timeout", "image_timeout"]
    crash = ["image_crashed", "image_timeout"]
    assert len({finding_id("p", "m-1", marks) for marks in ([], once, twice, crash, crash[::-1])}) == 5
