"""`gptwin bench gpu`: each twin against its peers, end to end, and what comes of the figures.

    results.py    what a result file holds
    shapes.py     the sizes that are measured        inputs.py     the arguments at such a size
    providers.py  who does the work: gptwin, eager PyTorch, torch.compile, and peers by operation
    gate.py       nobody is timed who computes something else
    clock.py      device time from a cold cache      roofline.py   the most that the device can do
    cells.py      one operation's figures            training.py   GPT-2's training step
    generation.py everyone's generation          phases.py     generation and PPO, by phase
    driver.py     a process for each part, time limits, what is done already
    dry_run.py    every path without a GPU, as a list
    goals.py, compare.py, plots.py                   README's table, two files, pictures

Without a GPU `gptwin bench gpu --dry-run` walks every path with tiny sizes and ends in a list of
them. The kernels run in Triton's interpreter and the clock is a counter: its figures mean nothing.
"""
