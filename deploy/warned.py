"""Shows what the classifier's code warns of, which the command line is silent about else."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """What is warned of, such as missing images, goes to the terminal."""
    handler = logging.StreamHandler()
    logging.getLogger("model").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("model").removeHandler(handler)
