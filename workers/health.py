"""What the probes are told: alive while the loops run, ready while posts can be turned into findings."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.app import SitrepApp
    from workers.pipeline import Pipeline

_ASK_S = 2.0


def healthy(app: SitrepApp) -> dict[str, Any]:
    """Return whether the worker is alive; a stall that a restart would mend counts as dead."""
    pipeline = app.pipeline
    stalled = pipeline.stalled_s > 5 * pipeline.settings.ready_stall_s
    return {"ok": app.failure is None and not stalled, "failure": str(app.failure or ""), "stalled": stalled}


async def ready(pipeline: Pipeline) -> dict[str, Any]:
    """Return whether the model is loaded, Kafka and Redis answer, and batches finish while there is lag."""
    kafka, stalled = await asyncio.gather(_kafka_answers(pipeline), _stalled(pipeline))
    report = {
        "model": pipeline.inference is not None or pipeline.stage == "prepare",
        "kafka": kafka,
        "assigned": pipeline.intake.n_rebalances > 0,
        "redis": pipeline.cache_writer.available,
        "moving": not stalled,
    }
    return {"ok": all(report.values()), **report}


async def _kafka_answers(pipeline: Pipeline) -> bool:
    try:
        await asyncio.wait_for(pipeline.intake.reach(), _ASK_S)
    except Exception:  # whatever the client raises, the broker did not answer
        return False
    return True


async def _stalled(pipeline: Pipeline) -> bool:
    return pipeline.stalled_s > pipeline.settings.ready_stall_s
