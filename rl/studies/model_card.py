"""What a published model is made of and what it costs: `gptwin model`.

Nothing is estimated that can be counted. The parameters are counted three ways, which must agree:
by the closed form, by adding up the shapes, and by making the model on PyTorch's meta device, where
tensors have a shape and no memory.
"""

import json
from typing import Any, NamedTuple

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ...core.checks import refuse
from ...core.model.footprint import TrainingMemory, kv_cache_bytes, training_memory
from ...core.model.presets import (
    PRESETS,
    GPTConfig,
    count_shapes,
    flops_per_sequence,
    parameter_count,
    parameter_shapes,
    preset,
    training_flops_per_sequence,
)

# Bytes of a number, for what follows the model's dtype; AdamW's moments are float32 in both.
ITEMSIZES = {"float32": 4, "bfloat16": 2}
UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class ParameterCounts(NamedTuple):
    """The number of parameters, counted three ways."""

    closed_form: int
    sum_of_shapes: int
    meta_device: int


def count_parameters(config: GPTConfig) -> ParameterCounts:
    """Count a model's parameters in three ways.

    Parameters
    ----------
    config : GPTConfig

    Returns
    -------
    ParameterCounts

    Raises
    ------
    RuntimeError
        If they differ, which would be a fault of gptwin.
    """
    shapes = parameter_shapes(config)
    made = [torch.empty(shape, device="meta") for shape in shapes.values()]
    counts = ParameterCounts(
        parameter_count(config), count_shapes(shapes), sum(tensor.numel() for tensor in made)
    )
    if len(set(counts)) > 1:
        raise RuntimeError(f"the parameters are counted differently: {counts}")
    return counts


def describe(name: str, config: GPTConfig) -> dict[str, Any]:
    """Collect everything that `gptwin model` says, as what JSON can hold.

    Parameters
    ----------
    name : str
    config : GPTConfig

    Returns
    -------
    dict
        Counts are exact integers; memory is in bytes.
    """
    memory = {d: training_memory(config, itemsize=size) for d, size in ITEMSIZES.items()}
    forward = flops_per_sequence(config)
    return {
        "preset": name,
        "n_layer": config.n_layer,
        "d_model": config.d_model,
        "n_head": config.n_head,
        "d_head": config.d_head,
        "n_ctx": config.n_ctx,
        "vocab_size": config.vocab_size,
        "norm": config.norm,
        "causal": config.causal,
        "band": config.band,
        "parameters": count_parameters(config)._asdict(),
        "flops": {
            "forward_per_token": forward // config.n_ctx,  # exact: T divides every term
            "forward_per_sequence": forward,
            "forward_per_sequence_masked": flops_per_sequence(config, exact=True),
            "training_per_sequence": training_flops_per_sequence(config),
        },
        "kv_cache_bytes": {
            d: {
                "per_token": kv_cache_bytes(config, time=1, itemsize=size),
                "full_context": kv_cache_bytes(config, itemsize=size),
            }
            for d, size in ITEMSIZES.items()
        }
        if config.causal
        else None,
        "training_bytes": {d: {**m._asdict(), "total": m.total} for d, m in memory.items()},
    }


def print_model(name: str | None, *, band: int | None = None, as_json: bool = False) -> int:
    """Print one preset, or a table of all.

    Parameters
    ----------
    name : str, optional
        A key of `PRESETS`; all if left out.
    band : int, optional
        For GPT-3: keys that a query of an odd layer sees; 0 makes every layer dense.
    as_json : bool
        Print JSON instead.

    Returns
    -------
    int
        The exit code, 0.

    Raises
    ------
    ValueError
        If there is no such preset, its architecture is unpublished, or it has no band.
    """
    if name is None:
        if band is not None:
            refuse("band", "a preset beside it, such as gpt3-175b", str(band))
        cards = [describe(preset_name, config) for preset_name, config in PRESETS.items()]
        print(json.dumps(cards, indent=1)) if as_json else _print_all(cards)
        return 0
    config = preset(name)
    name = next(known for known, its in PRESETS.items() if its == config)  # as it is written
    if band is not None:
        if config.band is None:
            refuse("band", "a preset of GPT-3 beside it", name, "no other has banded layers")
        if band < 0:
            refuse("band", "a number of keys, or 0 for all", str(band))
        config = preset(name, band=band or None)
    card = describe(name, config)
    print(json.dumps(card, indent=1)) if as_json else _print_one(card)
    return 0


def in_words(n_bytes: int) -> str:
    """Write a number of bytes with three digits and the unit that suits it.

    Parameters
    ----------
    n_bytes : int

    Returns
    -------
    str
        Such as ``"36 KiB"``.
    """
    power = min(max(n_bytes.bit_length() - 1, 0) // 10, len(UNITS) - 1)
    value = n_bytes / 1024**power
    digits = 0 if value >= 100 or value == int(value) else 1 if value >= 10 else 2
    return f"{value:,.{digits}f} {UNITS[power]}"


def _print_all(cards: list[dict[str, Any]]) -> None:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("preset", no_wrap=True)
    for heading in ("layers", "width", "heads", "context", "parameters", "GFLOP", "training"):
        table.add_column(heading, justify="right", no_wrap=True)
    for card in cards:
        table.add_row(
            card["preset"],
            str(card["n_layer"]),
            str(card["d_model"]),
            f"{card['n_head']}x{card['d_head']}",
            str(card["n_ctx"]),
            f"{card['parameters']['closed_form']:,}",
            f"{card['flops']['forward_per_token'] / 1e9:.3g}",
            in_words(card["training_bytes"]["float32"]["total"]),
        )
    console = Console(highlight=False)
    console.print(table)
    for line in (
        "",
        "GFLOP: forward, per token of a full context; a multiply-add is 2",
        "training: parameters, gradients, AdamW, activations of one sequence, in float32",
        "more, and exactly: gptwin model PRESET",
    ):
        console.print(line)


def _print_one(card: dict[str, Any]) -> None:
    console = Console(highlight=False)
    console.print(f"[bold]{card['preset']}[/bold]\n")
    facts = Table.grid(padding=(0, 3))
    for key, value in (*_shape(card), ("", ""), *_counts(card)):
        facts.add_row(key, value)
    console.print(facts)
    console.print()
    console.print(_memory(card))
    for line in (
        "",
        "training: one sequence of the whole context, AdamW's moments always in float32,",
        "and the fused loss, which holds no logits",
    ):
        console.print(line)


def _shape(card: dict[str, Any]) -> list[tuple[str, str]]:
    attention = "causal" if card["causal"] else "bidirectional: an encoder"
    if card["band"] is not None:
        attention += f"; odd layers see the last {card['band']} keys"
    rows = [
        ("layers", str(card["n_layer"])),
        ("width", f"{card['d_model']:,}"),
        ("heads", f"{card['n_head']} of {card['d_head']}"),
        ("context", f"{card['n_ctx']:,} tokens"),
        ("vocabulary", f"{card['vocab_size']:,}"),
        ("norms", f"{'before' if card['norm'] == 'pre' else 'after'} each branch"),
        ("attention", attention),
    ]
    if card["band"] is not None:
        rows.append(("", "(how many was never published: --band)"))
    return rows


def _counts(card: dict[str, Any]) -> list[tuple[str, str]]:
    parameters, flops = card["parameters"], card["flops"]
    rows = [
        ("parameters", f"{parameters['closed_form']:,}"),
        ("  by the closed form", f"{parameters['closed_form']:,}"),
        ("  by summing shapes", f"{parameters['sum_of_shapes']:,}"),
        ("  by PyTorch, no memory", f"{parameters['meta_device']:,}   all three agree"),
        ("", ""),
        ("FLOPs (multiply-add: 2)", ""),
        ("  forward, per token", f"{flops['forward_per_token']:,}"),
        ("  forward, per sequence", f"{flops['forward_per_sequence']:,}"),
    ]
    if card["causal"]:
        rows.append(("    without masked pairs", f"{flops['forward_per_sequence_masked']:,}"))
    return [*rows, ("  training, per sequence", f"{flops['training_per_sequence']:,}")]


def _memory(card: dict[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("memory", no_wrap=True)
    for dtype in ITEMSIZES:
        table.add_column(dtype, justify="right", no_wrap=True, min_width=11)

    def add(title: str, per_dtype: dict[str, dict[str, int]], entry: str) -> None:
        amounts = [per_dtype[dtype][entry] for dtype in ITEMSIZES]
        if any(amounts):
            table.add_row(title, *map(in_words, amounts))

    if card["kv_cache_bytes"] is not None:
        add("KV cache, per token", card["kv_cache_bytes"], "per_token")
        add("KV cache, whole context", card["kv_cache_bytes"], "full_context")
    for part in (*TrainingMemory._fields, "total"):
        title = "AdamW's moments" if part == "moments" else part
        add(f"training: {title}", card["training_bytes"], part)
    return table
