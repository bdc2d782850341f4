"""A page of a trace: one HTML file, which needs no network.

A slider goes over the programs, another over a program's turns. Beside the source line stand the
tile, its numbers as a heatmap, and where in its tensor it lies.
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...kernels.common.launch import Launch
from ...records import write_whole
from .record import Recorder, Tile
from .tiles import Field

TEMPLATE = Path(__file__).parent / "page.html"


def write_page(path: Path, title: str, recorder: Recorder) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
    title : str
        What was run.
    recorder : Recorder
        After the launches.

    Raises
    ------
    OSError
        If the system does not let it be written.
    """
    launches = [
        _launch(launched, [tile for tile in recorder.tiles if tile.launch == number])
        for number, launched in enumerate(recorder.log)
    ]
    files = {where.rpartition(":")[0] for tile in recorder.tiles for where in [tile.where]}
    data = {
        "title": title,
        "launches": [launch for launch in launches if launch["programs"]],
        "files": {file: _text(file) for file in sorted(files)},
        "left_out": recorder.n_left_out,
        "version": __version__,
    }
    # In a script's text nothing may look like the script's end.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("</", "<\\/")
    page = TEMPLATE.read_text(encoding="utf-8")
    write_whole(path, page.replace("/* DATA */ null", text))


def _launch(launched: Launch, tiles: list[Tile]) -> dict[str, Any]:
    fields = _fields_of(launched)
    programs: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
    for tile in tiles:
        placed = _place(tile, fields)
        file, _, line = tile.where.rpartition(":")
        programs.setdefault(tile.program, []).append(
            {
                "kind": tile.kind,
                "file": file,
                "line": int(line),
                "shape": list(tile.mask.shape),
                "tensor": placed.tensor,
                "at": placed.at.reshape(-1).tolist(),
                "mask": "".join("01"[int(active)] for active in tile.mask.reshape(-1)),
                "values": [_number(value) for value in tile.values.reshape(-1)],
            }
        )
    return {
        "kernel": launched.kernel,
        "options": {name: str(value) for name, value in launched.options.items()},
        "tensors": [
            {
                "name": field.name,
                "shape": list(field.tensor.shape),
                "strides": list(field.tensor.stride()),
                "dtype": str(field.tensor.dtype).removeprefix("torch."),
            }
            for field in fields
        ],
        "programs": [{"id": list(key), "turns": turns} for key, turns in programs.items()],
    }


def _number(value: float) -> float | str:
    """Write four digits; JSON has no infinities and no NaN."""
    if not math.isfinite(value):
        return str(value)
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() else short


def _text(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):  # a kernel that was made by exec, say
        return ""


@dataclasses.dataclass(frozen=True)
class _Placed:
    """Where the lanes of a tile lie: the tensor's place among its launch's, and flat indices."""

    tensor: int
    at: np.ndarray


def _place(tile: Tile, fields: list[Field]) -> _Placed:
    """Find the tensor that a tile is of, and each lane's element in it.

    Parameters
    ----------
    tile : Tile
    fields : list of Field
        The tensors of its launch.

    Returns
    -------
    _Placed
        Tensor −1 if no lane is in any; element −1 where a lane is not active, or elsewhere.
    """
    active = tile.addresses[tile.mask]
    best = _Placed(-1, np.full(tile.addresses.shape, -1))
    found = 0
    for number, field in enumerate(fields):
        at = field.places(tile.addresses.reshape(-1)).reshape(tile.addresses.shape)
        n = int((at[tile.mask] >= 0).sum())
        if n > found:
            best, found = _Placed(number, np.where(tile.mask, at, -1)), n
        if found == len(active):
            break
    return best


def _fields_of(launched: Launch) -> list[Field]:
    """List a launch's tensors, named as the kernel's parameters are."""
    fields = []
    for name, tensor in launched.tensors.items():
        plain = name.removesuffix(".ptr").removesuffix("_ptr")
        fields.append(Field(plain, tensor.detach(), ()))
    return fields
