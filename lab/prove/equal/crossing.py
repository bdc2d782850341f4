"""Cases beside a twin's corners: sizes that cross the tiles which no corner crosses."""

from ...twins.twin import Case

CROSSING: dict[str, tuple[Case, ...]] = {}
