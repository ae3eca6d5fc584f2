"""The prepare stage: bytes to validated posts with one usable image; what fails becomes a dead letter.

A slow or broken image holds up nothing but its own post.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime

import msgspec

from stream.errors import ImagePoolStopped, ImageUnavailable, ImageUnwanted, InvalidRecord
from stream.headers import Cause, first_header
from stream.images import ImagePool
from stream.intake import Accepted
from stream.records import JSON, TEXT_ONLY, Duplicate, Origin, Post, PreparedImage, PreparedPost, decode_post
from workers.duplicates import DuplicateFilter
from workers.load import Reliefs
from workers.metrics import Metrics
from workers.outcomes import Job, Outcomes

_STAGE = "prepare"
_LOOK_S = 0.05

_Read = tuple[Accepted, Post, Origin, datetime]  # a record that is a post, where it lies, and when Kafka took it


class PrepareStage:
    """Prepares fetched records and forwards them as jobs."""

    def __init__(
        self,
        *,
        images: ImagePool,
        duplicates: DuplicateFilter,
        outcomes: Outcomes,
        metrics: Metrics,
        forward: Callable[[Sequence[Job]], Awaitable[None]],
        max_record_bytes: int,
        on_fatal: Callable[[BaseException], None],
        is_in_flight: Callable[[Origin], bool] = lambda origin: False,
        has_room: Callable[[], bool] = lambda: True,
        reliefs: Callable[[], Reliefs] = Reliefs,
    ) -> None:
        """`is_in_flight` tells whether a post's outcome is still open here, `has_room` whether a picture has room."""
        self._reliefs = reliefs
        self._images = images
        self._duplicates = duplicates
        self._outcomes = outcomes
        self._metrics = metrics
        self._forward = forward
        self._max_record_bytes = max_record_bytes
        self._on_fatal = on_fatal
        self._is_in_flight = is_in_flight
        self._has_room = has_room
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, fetched: Sequence[Accepted]) -> None:
        """Prepare the records of one fetch; posts with an image follow later, by tasks of their own."""
        if fetched and fetched[0].lost:
            return
        start = time.perf_counter()
        posts: list[_Read] = []
        invalid: list[tuple[Accepted, InvalidRecord]] = []
        for accepted in fetched:
            try:
                posts.append((accepted, self._decode(accepted), _origin(accepted), _accepted_at(accepted)))
            except InvalidRecord as error:
                invalid.append((accepted, error))
        self._metrics.stage_s.labels("decode").observe(time.perf_counter() - start)
        if invalid:
            await self._outcomes.dead_letters(
                [(accepted, Cause(reason=why.reason, stage=_STAGE, error=why)) for accepted, why in invalid]
            )
        if posts:
            await self._prepare(posts)

    async def _prepare(self, posts: Sequence[_Read]) -> None:
        verdicts = await self._duplicates.check([(post, origin) for _, post, origin, _ in posts])
        fresh = posts if not any(verdicts) else await self._without_duplicates(posts, verdicts)
        unpictured: list[_Read] = []
        pictured: list[_Read] = []
        spared = self._reliefs().text_only
        for one in fresh:
            looked_at = one[1].images and not (spared and one[1].text.strip())
            (pictured if looked_at else unpictured).append(one)
        if unpictured:
            await self._forward([_job(*one, None, [TEXT_ONLY] if one[1].images else []) for one in unpictured])
        for one in pictured:
            self._start(self._with_image(*one))

    async def _without_duplicates(
        self, posts: Sequence[_Read], verdicts: Sequence[Duplicate | None]
    ) -> Sequence[_Read]:
        fresh: list[_Read] = []
        known: list[tuple[Accepted, Duplicate]] = []
        for one, verdict in zip(posts, verdicts, strict=True):
            if verdict is None:
                fresh.append(one)
            elif verdict.differs and self._is_in_flight(verdict.first):
                self._start(self._after(verdict.first, one))
            else:
                known.append((one[0], verdict))
        if known:
            await self._outcomes.duplicates(known)
        return fresh

    async def _after(self, first: Origin, post: _Read) -> None:
        """Prepare a post that came again, and differs, once the first has its outcome: a dead letter is corrected."""
        while self._is_in_flight(first):
            await asyncio.sleep(_LOOK_S)
        if not post[0].lost:
            await self._prepare([post])

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, job: Job) -> None:
        """Let a post that became a dead letter come again."""
        self._duplicates.forget(job.prepared.post, job.prepared.origin)

    def forget_partitions(self, lost: Collection[tuple[str, int]]) -> None:
        """Remember nothing of partitions that went to another worker."""
        self._duplicates.forget_partitions(lost)

    def _decode(self, accepted: Accepted) -> Post:
        record = accepted.record
        content_type = first_header(record.headers, "content-type") or JSON if record.headers else JSON
        return decode_post(record.value, content_type=content_type, max_bytes=self._max_record_bytes)

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except (ImagePoolStopped, ImageUnwanted):  # the post is unconfirmed, its next owner handles it
            return
        except Exception as error:  # deliveries failed beyond their bound: nothing is acknowledged, start anew
            self._on_fatal(error)

    async def _with_image(self, accepted: Accepted, post: Post, origin: Origin, accepted_at: datetime) -> None:
        try:
            image, degraded = await self._first_usable(accepted, post)
            if image is not None:
                accepted.hold(len(image.pixels))
            if image is None and not post.text.strip():
                reason = degraded[0] if degraded else "image_unusable"
                raise InvalidRecord("no_usable_content", f"post {post.id!r} has no text and its image fails: {reason}")
            await self._forward([_job(accepted, post, origin, accepted_at, image, degraded)])
        except InvalidRecord as error:
            self._duplicates.forget(post, origin)
            await self._outcomes.dead_letter(accepted, Cause(reason=error.reason, stage=_STAGE, error=error))

    async def _first_usable(self, accepted: Accepted, post: Post) -> tuple[PreparedImage | None, list[str]]:
        """Return the first image that can be used, and what had to be left out."""
        degraded: list[str] = []

        async def is_wanted() -> bool:
            while not self._has_room() and not accepted.lost:
                await asyncio.sleep(_LOOK_S)
            return not accepted.lost

        for index, image in enumerate(post.images):
            start = time.perf_counter()
            try:
                prepared = await self._images.prepare(image, index=index, on_turn=is_wanted)
            except ImageUnavailable as error:
                self._metrics.image_failures.labels(error.reason).inc()
                degraded.append(f"image_{error.reason}")
                continue
            finally:
                self._metrics.stage_s.labels("image").observe(time.perf_counter() - start)
            if index + 1 < len(post.images):
                degraded.append("further_images_unread")
            return prepared, degraded
        return None, degraded


def _origin(accepted: Accepted) -> Origin:
    record = accepted.record
    return Origin(topic=record.topic, partition=record.partition, offset=record.offset)


def _accepted_at(accepted: Accepted) -> datetime:
    """When Kafka took the record, or its producer says so; raises `InvalidRecord` where that is no date."""
    timestamp_ms = accepted.record.timestamp
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidRecord(
            "invalid_field", f"the record's timestamp {timestamp_ms} is no date in milliseconds: {error}"
        ) from error


def _job(
    accepted: Accepted,
    post: Post,
    origin: Origin,
    accepted_at: datetime,
    image: PreparedImage | None,
    degraded: list[str],
) -> Job:
    prepared = PreparedPost(
        post=msgspec.structs.replace(post, images=[]) if post.images else post,
        origin=origin,
        accepted_at=accepted_at,
        image=image,
        degraded=degraded,
    )
    return Job(accepted=accepted, prepared=prepared)
