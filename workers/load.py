"""Decides from consumer lag what a worker spares itself under load: a pure policy, it is told the lag and the time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from stream.records import NO_IMAGE_RATIONALE, TEXT_ONLY, PreparedPost
from workers.settings import Settings

log = logging.getLogger(__name__)

Mode = Literal["full", "no_image_rationale", "text_only"]

MODES: Final[tuple[Mode, ...]] = ("full", "no_image_rationale", "text_only")


class Switch:
    """On once lag has been above a threshold for so long, off as soon as it is below a share of it."""

    def __init__(self, *, on_above: int, off_share: float, after_s: float) -> None:
        self._on_above = on_above
        self._off_below = on_above * off_share
        self._after_s = after_s
        self._above_since_s: float | None = None
        self.is_on = False

    def update(self, lag: int, now_s: float) -> None:
        """Take in the lag at a time; a threshold of 0 never switches on."""
        if lag <= self._on_above or self._on_above == 0:
            self._above_since_s = None
            if lag < self._off_below:
                self.is_on = False
            return
        if self._above_since_s is None:
            self._above_since_s = now_s
        if now_s - self._above_since_s >= self._after_s:
            self.is_on = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliefs:
    """What may be left out of findings now."""

    no_image_rationale: bool = False
    text_only: bool = False

    @property
    def mode(self) -> Mode:
        """The strongest that is on."""
        return "text_only" if self.text_only else "no_image_rationale" if self.no_image_rationale else "full"


class LoadPolicy:
    """What is on: triage, and the degraded modes. `on_change` is told each new mode."""

    def __init__(self, settings: Settings, *, on_change: Callable[[Mode], None] = lambda mode: None) -> None:
        def switch(on_above: int, after_s: float) -> Switch:
            return Switch(on_above=on_above, off_share=settings.recover_share, after_s=after_s)

        # transactions publish outcomes in the order of their posts, so whatever went first would wait there
        self._triage = switch(0 if settings.exactly_once else settings.triage_lag_posts, 0.0)
        self._no_image_rationale = switch(settings.no_image_rationale_lag_posts, settings.degrade_after_s)
        self._text_only = switch(settings.text_only_lag_posts, settings.degrade_after_s)
        self._on_change = on_change

    def update(self, lag: int, now_s: float) -> None:
        """Take in the consumer lag, in posts, at a time of a monotonic clock; says what changes in the log."""
        triaged, mode = self.triage, self.reliefs.mode
        for switch in (self._triage, self._no_image_rationale, self._text_only):
            switch.update(lag, now_s)
        if triaged != self.triage:
            log.warning("triage %s: consumer lag is %d posts", "on" if self.triage else "off", lag)
        if mode != self.reliefs.mode:
            log.warning("mode %s, it was %s: consumer lag is %d posts", self.reliefs.mode, mode, lag)
            self._on_change(self.reliefs.mode)

    @property
    def triage(self) -> bool:
        """Whether likely damage and casualties go first."""
        return self._triage.is_on

    @property
    def reliefs(self) -> Reliefs:
        """What may be left out of findings now."""
        return Reliefs(no_image_rationale=self._no_image_rationale.is_on, text_only=self._text_only.is_on)


def relieve(prepared: PreparedPost, reliefs: Reliefs) -> PreparedPost:
    """Return the post with what is spared marked on it; one without a picture as it is.

    A post without text keeps its picture, whatever the mode.
    """
    if prepared.image is None:
        return prepared
    if reliefs.text_only and prepared.post.text.strip():
        # the same content as when the picture was not even decoded, so nothing is said about its decoding
        return msgspec.structs.replace(prepared, image=None, degraded=[TEXT_ONLY])
    if reliefs.no_image_rationale:
        return msgspec.structs.replace(prepared, degraded=[*prepared.degraded, NO_IMAGE_RATIONALE])
    return prepared
