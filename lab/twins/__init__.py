"""The catalogue: every operation declared once.

To add an operation, add its entry to the room and under the name that it has in core/ and kernels/,
and to `catalogue.TWINS`. The list imports the kernels, so this file imports nothing: inspect must
say which GPU is meant before a kernel is decorated.

- `twin`: what a twin declares; `draw`, `strategies`, `real_text`: where its numbers come from
- layers, attention, language, optimizer, rlhf, model: the twins, one operation a file
- `catalogue`: the list of them; `find`: one of them by name, or a user's own
- `roofline`: the least time that a GPU allows a twin's cost

Imported by every other room of lab, and by benchmarks. Read first: twin.py, then layers/gelu.py.
"""
