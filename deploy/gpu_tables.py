"""Turns what the benchmark found on a GPU into the README's tables; measures and reads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from deploy.bench_tables import value

_KINDS: Final = {"posts": "with and without a picture", "pictures": "all with a picture"}


def gpu_tables(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the keys and the batch-size curves of each model, by its name."""
    if not results:
        return ""
    keys = ["| model | key | must reach | measured | |", "|---|---|---|---|---|"]
    rows = [
        "| model | posts | batch | posts/s | joules a post | networks alone, posts/s | their share of the bf16 peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, summary in results.items():
        for name, entry in summary.items():
            if isinstance(entry, dict) and "reached" in entry:
                verdict = "reached" if entry["reached"] else "**missed**"
                keys.append(f"| {model} | `{name}` | {entry['at_least']:g} | {value(entry)} | {verdict} |")
        rows += _curve(model, summary["figures"])
    return "\n\n".join([_where(next(iter(results.values()))), "\n".join(keys), "\n".join(rows)])


def _where(summary: Mapping[str, Any]) -> str:
    about, product = summary["about"], summary["figures"]["gpu_bf16_product"]
    return (
        f"{about['gpu']}, {about['machine']}, torch {about['versions']['torch']}; posts: {about['posts']}. Shares are"
        f" of the data sheet's {product['peak'] / 1e12:.0f} Tflop/s; a product of {product['side']}² matrices reached"
        f" {product['median'] / 1e12:.0f} on this one. The batch of `inference_over_eager_gpu` is 256 for both sides."
    )


def _joules(row: Mapping[str, Any]) -> str:
    return "" if row["joules_per_post"] is None else f"{row['joules_per_post']:.3f}"


def _curve(model: str, figures: Mapping[str, Any]) -> Iterator[str]:
    for kind, title in _KINDS.items():
        whole, networks = (figures[f"gpu_{model}_{kind}{part}"]["rows"] for part in ("", "_networks"))
        for ours, alone in zip(whole, networks, strict=True):
            yield (
                f"| {model} | {title} | {ours['batch']} | {ours['posts_per_s']:,.0f} | {_joules(ours)} |"
                f" {alone['posts_per_s']:,.0f} | {alone['share_of_bf16_peak']:.3f} |"
            )
