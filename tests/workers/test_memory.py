"""What is remembered of which posts, compared with a plain dictionary, and what it costs."""

from __future__ import annotations

import itertools
import tracemalloc
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.records import Origin
from workers.memory import PostMemory

MAX_POSTS = 6
POST_IDS = [f"post-{number}" for number in range(12)]

_kinds = st.sampled_from(["first", "first", "first", "replace", "forget", "lose"])
_numbers = st.integers(0, 2)
_steps = st.lists(
    st.tuples(
        st.sampled_from(["first", "first", "first", "replace", "forget", "lose"]),
        st.integers(0, 11),
        _numbers,
        _numbers,
    ),
    max_size=60,
)


def at(partition: int, offset: int, topic: str = "posts") -> Origin:
    return Origin(topic=topic, partition=partition, offset=offset)


def origin_of(memory: PostMemory, post_id: str) -> Origin | None:
    """Return what it remembers, and leave it as it was."""
    probe = deepcopy(memory)
    known = probe.first(post_id, at(0, 0), 0)
    return None if known is None else known[0]


class Model:
    """The same in a dictionary: posts keep their turn in the ring until they are forgotten or pushed out."""

    def __init__(self) -> None:
        self.ring: list[str | None] = [None] * MAX_POSTS
        self.known: dict[str, tuple[Origin, int]] = {}
        self.next = 0

    def put(self, post_id: str, origin: Origin, text_hash: int) -> None:
        if post_id not in self.known:
            if (pushed_out := self.ring[self.next]) is not None:
                self.drop(pushed_out)
            self.ring[self.next] = post_id
            self.next = (self.next + 1) % MAX_POSTS
        self.known[post_id] = (origin, text_hash)

    def drop(self, post_id: str) -> None:
        del self.known[post_id]
        self.ring[self.ring.index(post_id)] = None


@settings(max_examples=500)
@given(_steps)
def test_same_as_a_dictionary(steps: list[tuple[str, int, int, int]]) -> None:
    """Whatever is put, forgotten and pushed out, in a memory so small that its index is crowded."""
    memory, model = PostMemory("posts", max_posts=MAX_POSTS), Model()
    for count, (step, number, partition, offset) in enumerate(steps):
        post_id, origin = f"post-{number}", at(partition, offset)
        if step == "first":
            assert memory.first(post_id, origin, count) == model.known.get(post_id)
            if post_id not in model.known:
                model.put(post_id, origin, count)
        elif step == "replace":
            memory.replace(post_id, origin, count)
            model.put(post_id, origin, count)
        elif step == "forget":
            memory.forget(post_id, origin)
            if post_id in model.known and model.known[post_id][0] == origin:
                model.drop(post_id)
        else:
            memory.forget_partitions({("posts", partition), ("other", 0)})
            for gone in [one for one, (first, _) in model.known.items() if first.partition == partition]:
                model.drop(gone)
        assert {one: origin_of(memory, one) for one in POST_IDS} == {
            one: model.known[one][0] if one in model.known else None for one in POST_IDS
        }


def test_the_latest_posts_are_remembered() -> None:
    memory = PostMemory("posts", max_posts=1_000)
    for number in range(10_000):
        assert memory.first(f"post-{number}", at(number % 7, number), -number) is None
    for number in range(9_000, 10_000):
        assert memory.first(f"post-{number}", at(0, 0), 0) == (at(number % 7, number), -number)
    assert memory.first("post-8999", at(0, 0), 0) is None


@pytest.mark.parametrize("max_posts", [1, 2, 3])
def test_smallest_memories_remember_as_many_as_they_say(max_posts: int) -> None:
    """A new post is in the index for a moment beside the one that it pushes out."""
    memory = PostMemory("posts", max_posts=max_posts)
    for number in range(1_000):
        assert memory.first(f"post-{number}", at(0, number), 0) is None
        known = [origin_of(memory, f"post-{max(0, number - age)}") for age in range(max_posts)]
        assert known == [at(0, max(0, number - age)) for age in range(max_posts)]
        assert number < max_posts or origin_of(memory, f"post-{number - max_posts}") is None


def test_post_of_another_topic_is_not_remembered() -> None:
    """Redis may know one; the next record of the post asks it again."""
    memory = PostMemory("posts", max_posts=3)
    memory.first("a", at(0, 0), 1)
    memory.replace("a", at(0, 0, topic="elsewhere"), 1)
    memory.replace("b", at(0, 0, topic="elsewhere"), 1)
    assert memory.first("a", at(0, 1), 1) is None and memory.first("b", at(0, 2), 1) is None


@pytest.mark.parametrize("max_posts", [1, 2, 3, 64, 5_000])
def test_size_is_as_stated(max_posts: int) -> None:
    memory = PostMemory("posts", max_posts=max_posts)
    assert 48 * max_posts <= memory.size_bytes <= 56 * max_posts + 40


def test_full_memory_takes_no_more_than_an_empty_one() -> None:
    """Also with ids of the greatest length, each used once, over several rounds of the ring."""
    memory = PostMemory("posts", max_posts=2_000)
    numbers = itertools.count()

    def fill(n_posts: int) -> None:
        for number in itertools.islice(numbers, n_posts):
            memory.first(f"{number:0256}", at(number % 12, number), hash(number))

    fill(100)  # what the first calls leave behind
    tracemalloc.start()
    try:
        fill(20_000)
        grown_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown_bytes < 2_000, grown_bytes
