"""Posts at twice the capacity: how long urgent ones and others take, with triage off and on, and in degraded modes.

    python -m tests.bench.overload [--only SCENARIO ...] [--load-s 60] [--sleeping]

One worker with the shipped checkpoint on the embedded broker, or with `--sleeping` a classifier that sleeps as
long as the checkpoint computes: its figures hold on a machine that does other things meanwhile. Its capacity is
measured first, by a backlog with triage off; each scenario then offers twice that for a minute, in open loop: a
latency counts from when its post was due, also when it was sent late. Results and plot go to
`tests/bench/results/overload.*`; scenarios that are not run again keep their results.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections import Counter
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from deploy.embedded import EmbeddedServices, embedded
from tests.bench.crowd import Crowd
from tests.bench.load import Offered, offer, summary
from tests.bench.machine import commit, machine_name
from tests.bench.overload_plot import draw
from tests.bench.sleeping import measure_costs
from tests.chaos.field import playing_field
from workers.run import load_classifier
from workers.setting_sources import load_settings

RESULTS: Final = Path(__file__).parent / "results"
_TRIAGE: Final = {"triage_lag_posts": 50}
_SOON: Final = {"degrade_after_s": 5}
SCENARIOS: Final[dict[str, dict[str, Any]]] = {
    "in order": {"triage_lag_posts": 0},
    "triage": _TRIAGE,
    "triage, no image rationale": {**_TRIAGE, **_SOON, "no_image_rationale_lag_posts": 150},
    "triage, text only": {**_TRIAGE, **_SOON, "text_only_lag_posts": 150},
}
_N_CAPACITY: Final = 400


async def _run(
    services: EmbeddedServices,
    folder: Path,
    posts: list[bytes],
    *,
    per_s: float | None,
    classifier: str,
    flags: dict[str, Any],
) -> Offered:
    async with playing_field(
        kafka=services.kafka, redis=services.redis, name="overload", folder=folder, **flags
    ) as ground:
        return await offer(ground, ground.worker(classifier=classifier), posts, per_s=per_s)


def _told(offered: Offered, flags: dict[str, Any], per_s: float, load_s: float) -> dict[str, Any]:
    """Return what is kept of a scenario: figures, and what the plot needs."""
    marks = Counter(mark for mark in offered.degraded.values() if mark)
    changes = [
        one for before, one in zip(offered.seen, offered.seen[1:], strict=False) if _state(before) != _state(one)
    ]
    return {
        "commit": commit(),
        "settings": flags,
        "offered_per_s": round(per_s, 2),
        "offered": len(offered.due_s),
        "findings": len(offered.published_s),
        "served_per_s": round(sum(1 for at_s in offered.published_s.values() if at_s <= load_s) / load_s, 2),
        "lost": offered.missing,
        "differing": offered.differing,
        "sent_late_s": offered.late_s,
        "urgent": summary(offered.latencies_s("urgent")),
        "other": summary(offered.latencies_s("other")),
        "all_done_s": round(max(offered.published_s.values()), 1),
        "degraded": dict(marks),
        "largest_lag_posts": max(one["lag_posts"] for one in offered.seen),
        "switches": [{key: one[key] for key in ("at_s", "mode", "triage", "lag_posts")} for one in changes],
        "points": {
            kind: [
                [round(due_s, 1), round(offered.published_s[post_id] - due_s, 1)]
                for post_id, due_s in offered.due_s.items()
                if post_id.startswith(kind) and post_id in offered.published_s
            ]
            for kind in ("urgent", "other")
        },
    }


def _state(one: dict[str, Any]) -> tuple[str, bool]:
    return one["mode"], one["triage"]


async def measure(result: dict[str, Any], scenarios: list[str], crowd: Crowd, classifier: str) -> None:
    """Fill the result with the scenarios; capacity is measured unless it is there."""
    load_s = result["load_s"]
    with embedded() as services, tempfile.TemporaryDirectory() as folder:
        if "capacity" not in result:
            flood = crowd.posts(_N_CAPACITY, name="flood")
            flooded = await _run(
                services, Path(folder), flood, per_s=None, classifier=classifier, flags={"triage_lag_posts": 0}
            )
            result["capacity"] = flooded.saturated()
        per_s = result["factor"] * result["capacity"]["posts_per_s"]
        for name in scenarios:
            posts = crowd.posts(int(load_s * per_s), name="load")
            offered = await _run(
                services, Path(folder), posts, per_s=per_s, classifier=classifier, flags=SCENARIOS[name]
            )
            result["scenarios"][name] = _told(offered, SCENARIOS[name], per_s, load_s)
            print(name, json.dumps({k: v for k, v in result["scenarios"][name].items() if k != "points"}), flush=True)


def main() -> None:
    """Measure, write the results and draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(SCENARIOS), help="run these and keep the others' results")
    parser.add_argument("--load-s", type=float, default=60.0, help="how long posts are offered")
    parser.add_argument("--factor", type=float, default=2.0, help="how many times the capacity is offered")
    parser.add_argument("--sleeping", action="store_true", help="sleep as long as the checkpoint computes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    args = parser.parse_args()
    path = args.results / "overload.json"
    result: dict[str, Any] = {"scenarios": {}}
    if args.only is not None and path.exists():
        result = json.loads(path.read_text("utf-8"))
    crowd = Crowd(tagged=args.sleeping)
    result |= {
        "machine": machine_name(),
        "broker": f"embedded (noida-db {version('noida-db')})",
        "load_s": args.load_s,
        "factor": args.factor,
        "urgent_share": crowd.urgent_share,
        "image_share": crowd.image_share,
    }
    settings = load_settings(environ={})
    checkpoint = load_classifier(settings)
    classifier = "checkpoint"
    result["model"] = checkpoint.version
    if args.sleeping:
        costs = measure_costs(checkpoint)
        classifier = "costs:" + "/".join(f"{value:.6f}" for value in asdict(costs).values())
        result |= {"model": f"one that sleeps as long as {checkpoint.version} computes", "costs": costs.to_dict()}
    del checkpoint
    scenarios = args.only if args.only is not None else list(SCENARIOS)
    asyncio.run(measure(result, scenarios, crowd, classifier))
    path.write_text(json.dumps(result) + "\n", "utf-8")
    draw(result, path.with_suffix(".png"))
    print(f"written: {path}, {path.with_suffix('.png')}")


if __name__ == "__main__":
    main()
