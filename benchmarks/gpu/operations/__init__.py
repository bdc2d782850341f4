"""One operation on a GPU, timed beside its peers.

    shapes.py     the sizes that are measured
    providers.py  who does the work: gptwin, eager PyTorch, torch.compile, and peers by operation
    gate.py       nobody is timed who computes something else
    clock.py      device time from a cold cache
    roofline.py   the most that the device can do
    cells.py      one operation's figures
    results.py    what a result file holds, and what its figures are called

Imports what benchmarks/ shares. Read first: cells.py.
"""
