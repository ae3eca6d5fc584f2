"""What can go wrong on the wire, as one small tree; messages hold the offending value and the fix."""


class StreamError(Exception):
    """Root of every error that `stream` raises on purpose."""


class InvalidRecord(StreamError):
    """Bytes that are not the record they claim to be; `reason` is a word from a small fixed set."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ImageUnavailable(StreamError):
    """An image that cannot be used; `reason` is a word from a small fixed set."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class ImagePoolStopped(StreamError):
    """The image pool stopped before an image was prepared, which says nothing about the image."""


class BrokerUnavailable(StreamError):
    """No Kafka broker answers at the given address."""


class InvalidAddress(StreamError):
    """An address, or certificates that go with it, from which no client can be made."""


class RecordTooLarge(StreamError):
    """A record that does not fit an empty batch, so it can never be sent."""
