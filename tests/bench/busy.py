"""How busy one worker keeps its device with a backlog before it: `python -m tests.bench.busy --as after`.

Runs in any checkout that has the metrics; the result goes into `tests/bench/results/device-busy.json` under
the given name, so that one commit can be compared with another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

from deploy.embedded import embedded
from tests.bench.crowd import Crowd
from tests.bench.load import offer
from tests.bench.machine import commit, machine_name
from tests.chaos.field import playing_field

RESULTS = Path(__file__).parent / "results"
_FLOODS = {"text only": (Crowd(image_share=0.0), 3_000), "half with a picture": (Crowd(image_share=0.5), 900)}


async def measure(flags: dict[str, Any], n_share: float) -> dict[str, Any]:
    """Flood a worker once with each mix and return what was seen of it."""
    result: dict[str, Any] = {}
    with embedded() as services, tempfile.TemporaryDirectory() as folder:
        for name, (crowd, n_posts) in _FLOODS.items():
            async with playing_field(
                kafka=services.kafka, redis=services.redis, name="busy", folder=Path(folder), **flags
            ) as ground:
                worker = ground.worker(classifier="checkpoint")
                offered = await offer(ground, worker, crowd.posts(int(n_posts * n_share), name="flood"), per_s=None)
                result[name] = {
                    "posts": len(offered.due_s),
                    "missing": offered.missing,
                    "model": offered.model,
                    **offered.saturated(),
                }
    return result


def main() -> None:
    """Measure and add to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--as", dest="name", required=True, help="under which name the result is kept")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="flags")
    parser.add_argument("--share", type=float, default=1.0, help="of the posts to use, for a quick look")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    flags = dict(flag.split("=", 1) for flag in args.flags)
    found = asyncio.run(measure(flags, args.share))
    path = args.results / "device-busy.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    known[args.name] = {"commit": commit(), "settings": flags, "machine": machine_name(), **found}
    path.write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    print(json.dumps(known, indent=2))


if __name__ == "__main__":
    main()
