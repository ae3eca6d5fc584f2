"""The model package's errors; nothing here decides or recovers."""


class ModelError(Exception):
    """Root of every error that `model` raises on purpose."""


class CheckpointError(ModelError):
    """A checkpoint folder that cannot be trusted or used; the message names the file and the fix."""


class InvalidExample(ModelError):
    """An example whose text or image the classifier cannot read."""
