"""The prepare stage: bytes to validated posts with one usable image; what fails becomes a dead letter.

A slow or broken image holds up nothing but its own post.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime

import msgspec

from stream.dead_letters import given_up_prepared
from stream.errors import ImagePoolStopped, ImageUnavailable, InvalidRecord
from stream.headers import Cause, KafkaRecord, first_header
from stream.images import ImagePool
from stream.intake import Accepted
from stream.records import JSON, TEXT_ONLY, Duplicate, Origin, Post, PreparedImage, PreparedPost, decode_post
from workers.duplicates import DuplicateFilter
from workers.load import Reliefs
from workers.metrics import Metrics
from workers.outcomes import Job, Outcomes
from workers.waiting import Waiting, WaitingRoom

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
        room: WaitingRoom[Job],
        forward: Callable[[Sequence[Job]], Awaitable[None]],
        max_record_bytes: int,
        on_fatal: Callable[[BaseException], None],
        is_in_flight: Callable[[Origin], bool] = lambda origin: False,
        forward_decoded: Callable[[Waiting[Job], Job], Awaitable[None]] | None = None,
        has_room: Callable[[bool], bool] = lambda urgent: True,
        reliefs: Callable[[], Reliefs] = Reliefs,
    ) -> None:
        """Posts with a picture wait in `room` for its decoding, and go on to `forward_decoded`, else to `forward`.

        `is_in_flight` tells whether a post's outcome is still open here, `has_room` whether there is room for the
        picture of one more post, which may be urgent.
        """
        self._reliefs = reliefs
        self._images = images
        self._duplicates = duplicates
        self._outcomes = outcomes
        self._metrics = metrics
        self._room = room
        self._forward = forward
        self._forward_decoded = forward_decoded or self._leave_and_forward
        self._decoders = asyncio.Semaphore(images.n_processes)
        self._undecoded: dict[int, _Read] = {}  # by their numbers in the room
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
        if posts and not fetched[0].lost:  # meanwhile: no one would forget what is remembered of it now
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
            waiting = self._room.add_undecoded(_job(*one, None, []), self._clock())
            self._undecoded[waiting.number] = one
            self._start(self._decode_next())

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

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()  # the batcher's

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget(self, job: Job) -> None:
        """Let a post that became a dead letter come again."""
        self._duplicates.forget(job.prepared.post, job.prepared.origin)

    def forget_letter(self, letter: KafkaRecord) -> None:
        """Let the post of a record on the dead-letters topic come again if it was lost after this stage."""
        prepared = given_up_prepared(letter)
        if prepared is not None:
            self._duplicates.forget(prepared.post, prepared.origin)

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
        except ImagePoolStopped:  # the post is unconfirmed, its next owner handles it
            return
        except Exception as error:  # deliveries failed beyond their bound: nothing is acknowledged, start anew
            self._on_fatal(error)

    async def _decode_next(self) -> None:
        """Decode one picture, of whichever post has its turn by then."""
        async with self._decoders:
            waiting = await self._whose_turn()
            if waiting is None:
                return
            accepted, post, origin, accepted_at = read = self._undecoded.pop(waiting.number)
            image, degraded = await self._first_usable(post)
            if image is not None:
                accepted.hold(len(image.pixels))
        if image is None and not post.text.strip():
            self._room.leave(waiting)
            self._duplicates.forget(post, origin)
            reason = degraded[0] if degraded else "image_unusable"
            error = InvalidRecord("no_usable_content", f"post {post.id!r} has no text and its image fails: {reason}")
            await self._outcomes.dead_letter(accepted, Cause(reason=error.reason, stage=_STAGE, error=error))
            return
        await self._forward_decoded(waiting, _job(*read, image, degraded))

    async def _whose_turn(self) -> Waiting[Job] | None:
        """Take out the post whose picture is next once there is room for it; None when no post waits for that."""
        while (waiting := self._room.to_decode(self._clock())) is not None:
            lost = waiting.post.accepted.lost
            if not lost and not self._has_room(waiting.urgent):  # what is kept for urgent posts may have room yet
                waiting = self._room.urgent_to_decode() or waiting
            if lost or self._has_room(waiting.urgent):
                self._room.take_to_decode(waiting)
                if not lost:
                    return waiting
                self._room.leave(waiting)  # unconfirmed, its next owner handles it
                del self._undecoded[waiting.number]
            else:
                await asyncio.sleep(_LOOK_S)
        return None

    async def _leave_and_forward(self, waiting: Waiting[Job], job: Job) -> None:
        self._room.leave(waiting)
        await self._forward([job])

    async def _first_usable(self, post: Post) -> tuple[PreparedImage | None, list[str]]:
        """Return the first image that can be used, and what had to be left out."""
        if self._reliefs().text_only and post.text.strip():
            return None, [TEXT_ONLY]
        degraded: list[str] = []
        deadline_s = self._clock() + self._images.timeout_s  # of all its images: they hold a decoder no longer than one
        for index, image in enumerate(post.images):
            start = time.perf_counter()
            try:
                prepared = await self._images.prepare(image, index=index, deadline_s=deadline_s)
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
