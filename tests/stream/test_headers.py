"""Trace context as it comes in: carried on unchanged, or not at all."""

from __future__ import annotations

import pytest

from stream.headers import MAX_TRACE_BYTES, trace_context

TRACE_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


def test_valid_trace_context_is_carried_on() -> None:
    headers = [("mine", b"x"), ("traceparent", PARENT.encode()), ("tracestate", b"a=1,b=2")]

    assert trace_context(headers) == {"traceparent": PARENT, "tracestate": "a=1,b=2"}
    assert trace_context(headers[:2]) == {"traceparent": PARENT}
    assert trace_context([]) == {}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "00-aa-bb-01",
        PARENT.upper(),
        f"{PARENT}\n",
        f" {PARENT}",
        f"{PARENT}-x",
        f"ff-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        PARENT.replace("4", "\u0664"),
        PARENT.replace("4", "\xe9"),
    ],
)
def test_invalid_traceparent_is_dropped_with_its_tracestate(parent: str) -> None:
    """A changed one would name a trace that there is not."""
    assert trace_context([("traceparent", parent.encode()), ("tracestate", b"a=1")]) == {}


@pytest.mark.parametrize("state", [b"", b"a=\xff", b"a" * (MAX_TRACE_BYTES + 1)])
def test_tracestate_that_cannot_be_carried_on_is_dropped_alone(state: bytes) -> None:
    assert trace_context([("traceparent", PARENT.encode()), ("tracestate", state)]) == {"traceparent": PARENT}


def test_tracestate_without_a_traceparent_is_dropped() -> None:
    assert trace_context([("tracestate", b"a=1")]) == {}
