"""Who goes next: in order, but for urgent posts out of a window, and no post overtaken for too long."""

from __future__ import annotations

import gc
import random
import weakref
from dataclasses import dataclass

from workers.waiting import Shape, WaitingRoom


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class Item:
    """A post as the room sees it."""

    number: int
    kind: str = "text"
    n_chars: int = 100
    urgent: bool = False


def shape(item: Item) -> Shape:
    return item.kind, item.n_chars


def room(*, window_posts: int = 100, max_overtake_s: float = 60.0) -> WaitingRoom[Item]:
    return WaitingRoom(shape, window_posts=window_posts, max_overtake_s=max_overtake_s)


def rate_all(waiting: WaitingRoom[Item], n_posts: int = 1_000) -> int:
    """Rate the window by what the items themselves say, and return how many that were."""
    some = waiting.to_rate(n_posts)
    waiting.rate(some, [one.post.urgent for one in some])
    return len(some)


def take(waiting: WaitingRoom[Item], n_posts: int, now_s: float = 0.0) -> list[int]:
    first = waiting.first(now_s)
    assert first is not None
    return [item.number for item in waiting.take(first, n_posts, now_s)]


def test_posts_of_one_length_go_in_order() -> None:
    waiting = room()
    waiting.add([Item(number=number) for number in range(7)], 0.0)
    assert [take(waiting, 3), take(waiting, 3), take(waiting, 3)] == [[0, 1, 2], [3, 4, 5], [6]]
    assert len(waiting) == 0
    assert waiting.first(0.0) is None


def test_batch_holds_one_kind_and_the_oldest_post_goes_with_it() -> None:
    waiting = room()
    waiting.add([Item(number=number, kind="image" if number % 3 == 1 else "text") for number in range(6)], 0.0)
    assert (waiting.count("text"), waiting.count("image"), sorted(waiting.kinds())) == (4, 2, ["image", "text"])
    assert take(waiting, 3) == [0, 2, 3]
    assert take(waiting, 3) == [1, 4]
    assert take(waiting, 3) == [5]


def test_batch_is_of_similar_length_and_always_holds_the_oldest() -> None:
    waiting = room()
    lengths = [200, 10, 190, 20, 210, 15]
    waiting.add([Item(number=number, n_chars=n_chars) for number, n_chars in enumerate(lengths)], 0.0)
    assert sorted(take(waiting, 3)) == [0, 2, 4]
    assert sorted(take(waiting, 3)) == [1, 3, 5]


def test_post_of_odd_length_is_passed_over_by_a_few_batches_at_most() -> None:
    """It is the oldest before long, and the oldest always goes."""
    waiting = room()
    waiting.add([Item(number=0), Item(number=1, n_chars=9_000), *(Item(number=n) for n in range(2, 50))], 0.0)
    assert take(waiting, 4)[0] == 0
    assert 1 in take(waiting, 4)


def test_urgent_posts_go_first_then_the_rest_in_order() -> None:
    waiting = room()
    waiting.add([Item(number=number, urgent=number in (5, 8)) for number in range(10)], 0.0)
    assert rate_all(waiting) == 10
    assert take(waiting, 3) == [5, 8, 0]
    assert take(waiting, 3) == [1, 2, 3]
    assert take(waiting, 9) == [4, 6, 7, 9]


def test_urgent_post_draws_no_other_kind_along() -> None:
    waiting = room()
    waiting.add([Item(number=0), Item(number=1), Item(number=2, kind="image", urgent=True)], 0.0)
    rate_all(waiting)
    assert take(waiting, 3) == [2]
    assert take(waiting, 3) == [0, 1]


def test_only_the_window_is_rated() -> None:
    """An urgent post beyond it waits its turn, until those before it made room."""
    waiting = room(window_posts=4)
    waiting.add([Item(number=number, urgent=number == 6) for number in range(8)], 0.0)
    assert [rate_all(waiting), rate_all(waiting)] == [4, 0]
    assert take(waiting, 2) == [0, 1]
    assert rate_all(waiting) == 2
    assert take(waiting, 2) == [2, 3]
    assert rate_all(waiting) == 2
    assert take(waiting, 2) == [6, 4]


def test_rating_that_comes_too_late_changes_nothing() -> None:
    waiting = room()
    waiting.add([Item(number=number, urgent=True) for number in range(4)], 0.0)
    some = waiting.to_rate(4)
    assert take(waiting, 2) == [0, 1]
    waiting.rate(some, [True] * 4)
    assert take(waiting, 2) == [2, 3]
    assert len(waiting) == 0


def test_post_is_overtaken_for_so_long_and_no_longer() -> None:
    """Its time counts from when it would have had its turn, not from when it came."""
    waiting = room(max_overtake_s=10.0)
    waiting.add([Item(number=0)], 0.0)
    waiting.add([Item(number=number, urgent=True) for number in range(1, 100)], 0.0)
    rate_all(waiting)
    assert take(waiting, 1, now_s=50.0) == [1]  # its turn would have been now
    assert take(waiting, 1, now_s=59.9) == [2]
    assert take(waiting, 1, now_s=60.0) == [0]
    assert take(waiting, 1, now_s=61.0) == [3]


def test_order_alone_overtakes_nobody() -> None:
    """However long posts wait in a backlog, none is overdue while all go in order."""
    waiting = room(max_overtake_s=1.0)
    waiting.add([Item(number=number) for number in range(20)], 0.0)
    for step in range(10):
        first = waiting.first(100.0 * step)
        assert first is not None and waiting.overtaken_s(first, 100.0 * step) == 0.0
        waiting.take(first, 2, 100.0 * step)


def test_under_twice_the_capacity_urgent_posts_hardly_wait_and_none_starves() -> None:
    """A simulated minute of it: one batch of 8 a second, 16 posts come in, and then the backlog is worked off."""
    bound_s = 20.0
    waiting = room(window_posts=1_000, max_overtake_s=bound_s)
    chance = random.Random(1)
    arrived: dict[int, float] = {}
    waits: dict[bool, list[float]] = {True: [], False: []}
    number, now_s = 0, 0.0
    worst_overtaken_s = 0.0
    while now_s < 60 or len(waiting):
        if now_s < 60:
            for _ in range(16):
                waiting.add([Item(number=number, urgent=chance.random() < 0.2)], now_s)
                arrived[number] = now_s
                number += 1
        rate_all(waiting)
        first = waiting.first(now_s)
        assert first is not None
        for item in waiting.take(first, 8, now_s):
            waits[item.urgent].append(now_s - arrived[item.number])
            worst_overtaken_s = max(worst_overtaken_s, now_s - item.number / 8)
        now_s += 1.0
    assert len(waits[True]) + len(waits[False]) == number  # nobody is lost, nobody goes twice
    assert max(waits[True]) < 10 < max(waits[False])
    assert worst_overtaken_s <= bound_s + 2.0  # a batch is a second


def test_nothing_is_kept_of_posts_that_went() -> None:
    """Neither when triage is off, nor of the turns that urgent posts took before an old one went."""
    waiting = room()
    for step in range(200):
        waiting.add([Item(number=step, urgent=step % 2 == 0)], float(step))
        if step % 3 == 0:
            rate_all(waiting)
        take(waiting, 4, float(step))
    assert waiting.first(1e6) is None
    assert (len(waiting._unrated), waiting._n_rated) == (0, 0)
    assert all(not queue.all and not queue.urgent for queue in waiting._queues.values())
    assert len(waiting._turns) <= 1


def let_in_undecoded(waiting: WaitingRoom[Item], *items: Item, now_s: float = 0.0) -> None:
    for item in items:
        waiting.add_undecoded(item, now_s)


def decode_next(waiting: WaitingRoom[Item], now_s: float = 0.0) -> int:
    one = waiting.to_decode(now_s)
    assert one is not None
    waiting.take_to_decode(one)
    waiting.add_decoded(one, one.post, now_s)
    return one.post.number


def test_undecoded_post_is_rated_but_in_no_batch_before_its_picture_is_decoded() -> None:
    """An urgent one's picture is decoded first, and it goes first then."""
    waiting = room()
    let_in_undecoded(waiting, *(Item(number=number, kind="image", urgent=number == 2) for number in range(3)))
    assert (waiting.first(0.0), waiting.kinds(), len(waiting)) == (None, [], 3)
    assert rate_all(waiting) == 3
    assert [decode_next(waiting), decode_next(waiting)] == [2, 0]
    assert take(waiting, 1) == [2]
    assert [take(waiting, 9), decode_next(waiting), take(waiting, 9), len(waiting)] == [[0], 1, [1], 0]
    assert waiting.to_decode(0.0) is None
    assert rate_all(waiting) == 0


def test_rating_that_comes_while_a_picture_is_decoded_holds() -> None:
    for n_steps in range(3):  # it comes before, while and after
        waiting = room()
        let_in_undecoded(waiting, Item(number=0, kind="image"), Item(number=1, kind="image", urgent=True))
        assert decode_next(waiting) == 0
        some = waiting.to_rate(9)
        assert sorted(one.post.number for one in some) == [0, 1]
        verdict = [one.post.urgent for one in some]
        one = waiting.to_decode(0.0)
        assert one is not None
        if n_steps == 0:
            waiting.rate(some, verdict)
        waiting.take_to_decode(one)
        if n_steps == 1:
            waiting.rate(some, verdict)
        waiting.add_decoded(one, one.post, 0.0)
        if n_steps == 2:
            waiting.rate(some, verdict)
        assert take(waiting, 1) == [1]
        assert take(waiting, 1) == [0]


def test_undecoded_post_keeps_its_turn() -> None:
    """The time it waits for its picture counts: overtaken for too long, it is decoded first, urgent ones or not."""
    waiting = room(max_overtake_s=10.0)
    let_in_undecoded(waiting, Item(number=0, kind="image"))
    waiting.add([Item(number=number) for number in range(1, 4)], 0.0)
    assert take(waiting, 1, now_s=1.0) == [1]
    let_in_undecoded(waiting, Item(number=4, kind="image", urgent=True))
    rate_all(waiting)
    one = waiting.to_decode(2.0)
    assert one is not None and one.post.number == 4
    one = waiting.to_decode(11.0)
    assert one is not None and one.post.number == 0
    urgent = waiting.urgent_to_decode()  # for which there may be room where there is none for others
    assert urgent is not None and urgent.post.number == 4
    waiting.take_to_decode(one)
    assert take(waiting, 1, now_s=11.0) == [2]
    waiting.add_decoded(one, one.post, 12.0)
    first = waiting.first(12.0)
    assert first is not None and (first.post.number, waiting.overtaken_s(first, 12.0)) == (0, 11.0)


def test_post_that_leaves_instead_of_being_decoded_holds_up_no_other() -> None:
    waiting = room()
    let_in_undecoded(waiting, Item(number=0, kind="image"), Item(number=1, kind="image"))
    rate_all(waiting)
    one = waiting.to_decode(0.0)
    assert one is not None
    waiting.take_to_decode(one)
    waiting.leave(one)
    assert len(waiting) == 1
    assert decode_next(waiting) == 1
    assert (take(waiting, 9), len(waiting)) == ([1], 0)


def test_room_holds_no_post_that_left_it() -> None:
    """Where pictures are only decoded nobody rates, and no batch is taken."""
    waiting = room()
    items = [Item(number=number, kind="image") for number in range(50)]
    held = [weakref.ref(item) for item in items]
    while items:
        let_in_undecoded(waiting, items.pop())
        one = waiting.to_decode(0.0)
        assert one is not None
        waiting.take_to_decode(one)
        waiting.leave(one)
    del one
    assert waiting.to_decode(0.0) is None  # what it looked at last it forgets when it looks again
    gc.collect()
    assert [ref for ref in held if ref() is not None] == []
