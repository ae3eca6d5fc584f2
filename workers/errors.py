"""What can go wrong in a worker, as one small tree."""


class WorkerError(Exception):
    """Root of every error that `workers` raises on purpose."""


class StartError(WorkerError):
    """The worker cannot start; the message names the value and the fix."""


class ClassifierTimeout(WorkerError):
    """The classifier gave no answer within its deadline."""


class ClassifierHung(WorkerError):
    """Too many calls of the classifier hang; only a new process helps."""


class InvalidPrediction(WorkerError):
    """The classifier's answer cannot be published: not finite, not a distribution, or an unknown class."""
