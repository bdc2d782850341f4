"""Cases beside a twin's corners: sizes that cross the tiles which no corner crosses."""

from ...twins.twin import Case

CROSSING: dict[str, tuple[Case, ...]] = {
    # Two rounds over the features of a norm in front of the projection.
    "qkv_projection": (
        {
            "batch": 1, "time": 5, "d_model": 300, "n_kv_head": 1, "d_head": 4, "norm": True,
            "seed": 5,
        },
    ),
}  # fmt: skip
