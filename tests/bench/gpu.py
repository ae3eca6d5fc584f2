"""The classifier on a GPU: batch sizes, joules, and its arithmetic against the chip's peak; no broker is asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from model import Example, checkpoint
from model.batched import BatchedRationaleClassifier, normalised
from model.classifier import Selection, spread_patches
from model.inputs import EncodedExample, encode_text
from model.joint import folder
from model.joint.batched import BatchedJointClassifier
from model.joint.evidence import shown_ids
from model.turns import likeness_groups
from model.vision import Kept, cells_to_patches
from tests.bench.arena import Arena
from tests.bench.eager import eager_joint, plain_batched, rates
from tests.bench.plan import Plan
from tests.bench.posts import Supply
from tests.bench.summary import Findings
from tests.bench.work import Place, prepare
from workers.findings import example
from workers.interpreter import tune_interpreter
from workers.settings import SHIPPED_CHECKPOINT

log = logging.getLogger(__name__)

Batched = BatchedRationaleClassifier | BatchedJointClassifier
SIZES: Final = (1, 32, 256, 512)
# dense bf16, from the makers' data sheets
_BF16_PEAK: Final[Mapping[str, float]] = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12, "L40S": 362e12}
_EAGER_BATCH: Final = 256
_RUN_S: Final = 0.6
_COUNTED: Final = 64
_PRODUCT: Final = 8192


async def gpu(arena: Arena, supply: Supply, plan: Plan, findings: Findings) -> None:
    """Measure the arena's checkpoint."""
    if not arena.on_gpu:
        raise SystemExit("the section gpu needs --device cuda")
    peak = _peak(findings)
    posts = _prepared(supply, max(SIZES))
    pictured = [post for post in posts if post.image is not None]
    posts, pictured = (_repeated(some, max(SIZES)) for some in (posts, pictured))
    path = Path(arena.checkpoint or SHIPPED_CHECKPOINT)
    _measure(path, arena.device, posts, pictured, plan, findings, peak)


def _measure(
    path: Path,
    device: str,
    posts: Sequence[Example],
    pictured: Sequence[Example],
    plan: Plan,
    findings: Findings,
    peak: float,
) -> None:
    ours, plain, counted = _classifiers(path, device)
    tune_interpreter(log_level="warning")  # as the worker does
    name = "compact" if isinstance(ours, BatchedRationaleClassifier) else "dual"
    flops = {kind: _flops_per_post(counted, some[:_COUNTED]) for kind, some in _kinds(posts, pictured).items()}
    for kind, some in _kinds(posts, pictured).items():
        rows = [_point(ours, some[:size], device, flops[kind], peak) for size in SIZES]
        findings.table(f"gpu_{name}_{kind}", rows, unit="of predict, decoded posts", flops_per_post=flops[kind])
        log.info("gpu %s %s: %s", name, kind, rows)
        alone = [_networks_alone(ours, some[:size], device) for size in SIZES]
        told = [
            {"batch": size, "posts_per_s": rate, "share_of_bf16_peak": flops[kind] * rate / peak}
            for size, rate in zip(SIZES, alone, strict=True)
        ]
        findings.table(f"gpu_{name}_{kind}_networks", told, unit="of the networks on ready inputs")
        log.info("gpu %s %s networks: %s", name, kind, told)
        if kind == "pictures":
            best = SIZES[max(range(len(SIZES)), key=lambda at: alone[at])]
            runs = [
                flops[kind] * _networks_alone(ours, some[:best], device) / peak for _ in range(max(plan.repetitions, 3))
            ]
            findings.figure(f"gpu_{name}_share_of_bf16_peak", runs, unit=f"of {peak:.4g} flop/s", batch=best)
            findings.key("share_of_bf16_peak", runs, device=device, model=name, batch=best)
    batch = posts[:_EAGER_BATCH]
    own, other = rates([ours, plain], batch, max(plan.repetitions, 3))
    log.info("gpu %s inference: ours %s, eager %s posts/s", name, own, other)
    findings.figure(f"gpu_{name}_ours", own, unit="posts/s", batch=_EAGER_BATCH)
    findings.figure(f"gpu_{name}_eager", other, unit="posts/s", batch=_EAGER_BATCH)
    ratios = [one / two for one, two in zip(own, other, strict=True)]
    findings.key("inference_over_eager_gpu", ratios, device=device, model=name, batch=_EAGER_BATCH)


def _classifiers(path: Path, device: str) -> tuple[Batched, Batched, Batched]:
    """Ours as it serves, plain transformers fp32 eager, and one whose arithmetic the counter can follow."""
    if checkpoint.read_config(path).get("kind") is None:
        ours = BatchedRationaleClassifier.load(path, device=device)
        counted = BatchedRationaleClassifier(*checkpoint.load(path), device=device, replays=False)
        return ours, plain_batched(path, device), counted
    served = BatchedJointClassifier.load(path, device=device, precision="bf16")
    counted = BatchedJointClassifier(*folder.load(path), device=device, compiles=False, replays=False)
    return served, eager_joint(path, device), counted


def _kinds(posts: Sequence[Example], pictured: Sequence[Example]) -> dict[str, Sequence[Example]]:
    return {"posts": posts, "pictures": pictured}


def _point(classifier: Batched, posts: Sequence[Example], device: str, flops: float, peak: float) -> dict[str, Any]:
    """One batch size: rate, energy, share of the peak."""
    rate_per_s, joules = _rate(lambda: classifier.predict(posts), len(posts), device)
    return {
        "batch": len(posts),
        "posts_per_s": rate_per_s,
        "joules_per_post": joules,
        "share_of_bf16_peak": flops * rate_per_s / peak,
    }


def _rate(work: Callable[[], object], n_posts: int, device: str) -> tuple[float, float | None]:
    """Posts/s, and joules of the GPU for each where they can be told."""
    for _ in range(3):
        work()
    torch.cuda.synchronize(device)
    start_s, start_j, n_done = time.perf_counter(), _joules(), 0
    while time.perf_counter() - start_s < _RUN_S:
        work()
        n_done += n_posts
    torch.cuda.synchronize(device)
    elapsed_s = time.perf_counter() - start_s
    end_j = _joules()
    return n_done / elapsed_s, None if start_j is None or end_j is None else (end_j - start_j) / n_done


def _networks_alone(classifier: Batched, posts: Sequence[Example], device: str) -> float:
    """Posts/s of both stages' networks over inputs that lie on the GPU: no text, pixel or rationale is made."""
    with torch.inference_mode():
        return _rate(_networks(classifier, posts), len(posts), device)[0]


def _flops_per_post(classifier: Batched, posts: Sequence[Example]) -> float:
    """Multiplications and additions of both stages, by torch's own counter."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        _networks(classifier, posts)()
    return counter.get_total_flops() / len(posts)


def _networks(classifier: Batched, posts: Sequence[Example]) -> Callable[[], object]:
    """Both stages over inputs made ready; what stage 2 gets is as much as stage 1 selects, but any of it."""
    encoded = [encode_text(post, classifier.tokenizer) for post in posts]
    groups = [[encoded[k] for k in group] for group in likeness_groups(encoded, classifier.part_size)]
    if isinstance(classifier, BatchedJointClassifier):
        calls = [_dual(classifier, group) for group in groups]
    else:
        calls = [_compact(classifier, group) for group in groups]

    def run() -> None:
        for call in calls:
            call()

    return run


def _dual(classifier: BatchedJointClassifier, group: Sequence[EncodedExample]) -> Callable[[], object]:
    stack, share = classifier.stack(group), classifier.config.transfer.top_share
    n_cells = 0 if stack is None else stack.grid[0] * stack.grid[1]
    selections = [_any_selection(post, n_cells, round(share * n_cells)) for post in group]
    whole = classifier.inputs([post.tokens.input_ids for post in group], stack, None)
    ids = [shown_ids(*post, classifier.kit) for post in zip(group, selections, strict=True)]
    left = classifier.inputs(ids, stack, selections)
    selector, decider = classifier.network.selector, classifier.network.decider
    return lambda: (selector(whole), decider(left))


def _compact(classifier: BatchedRationaleClassifier, group: Sequence[EncodedExample]) -> Callable[[], object]:
    network, tokenizer, grid = classifier.network, classifier.tokenizer, classifier.config.image
    n_cells = grid.rows * grid.cols
    selections = [_any_selection(post, n_cells, classifier.config.selection.n_patches) for post in group]
    whole = classifier.padded([post.tokens.input_ids for post in group])
    shown = [tokenizer.encode_selected(post.words, one.words) for post, one in zip(group, selections, strict=True)]
    left = classifier.padded([tokens.input_ids for tokens in shown])
    images = [post.image for post in group if post.image is not None]
    pixels = normalised(classifier.stack(images).scaled()) if images else None
    keep = torch.zeros(1, n_cells, dtype=torch.bool)
    keep[0, list(selections[0].patches)] = True
    decider = network.image_decider
    cells = cells_to_patches(keep.expand(len(group), -1), decider.rows, decider.tower.side)
    kept = Kept.of(cells).to(whole.input_ids.device.type)

    def call() -> None:
        network.text_selector(network.embeddings(whole.input_ids), whole.mask, whole.lengths)
        network.text_decider(network.embeddings(left.input_ids), left.mask)
        if pixels is not None:
            network.image_selector(pixels)
            decider.class_head(decider.tower(pixels, kept))

    return call


def _any_selection(post: EncodedExample, n_cells: int, n_patches: int) -> Selection:
    words = tuple(range(0, len(post.words), 3))
    patches = spread_patches(n_cells, n_patches) if n_cells else ()
    return Selection(word_scores=(), words=words, patch_scores=(), patches=patches, fallbacks=())


def _peak(findings: Findings) -> float:
    """The chip's bf16 peak from its data sheet, else what a large product reaches; that is entered in any case."""
    one, two = (torch.randn(_PRODUCT, _PRODUCT, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    rate_per_s, _ = _rate(lambda: one @ two, 1, "cuda")
    reached = 2 * _PRODUCT**3 * rate_per_s
    name = torch.cuda.get_device_name()
    peak = next((value for chip, value in _BF16_PEAK.items() if chip in name), reached)
    findings.figure("gpu_bf16_product", [reached], unit="flop/s", peak=peak, chip=name, side=_PRODUCT)
    return peak


def _joules() -> float | None:
    """What the first GPU has used since its driver was loaded; None where that cannot be told."""
    import pynvml  # only where it is measured: the tests do without

    try:
        pynvml.nvmlInit()
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))) / 1e3
    except pynvml.NVMLError:  # another maker's GPU, or no rights
        return None


def _prepared(supply: Supply, n: int) -> list[Example]:
    place = Place(topic="gpu", partition=0, offset=0, timestamp_ms=0)
    return [example(prepare(value, place)) for _, value in supply.posts(min(n, len(supply.with_pictures)))]


def _repeated(posts: Sequence[Example], n: int) -> list[Example]:
    return [posts[k % len(posts)] for k in range(n)]
