"""How a launch's programs run, and what memory they touch.

`launches` follows a launch and knows each pointer's tensor, `turns` lets programs wait for one
another, `memory` lets accesses be observed, `peek` reads their numbers, `handle` is what a launch
returns.
Imports common/. Read first: launches.py, then memory.py.
"""
