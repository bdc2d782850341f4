"""`gptwin bench gpu`: each twin against its peers, end to end, and what comes of the figures.

    operations/     one operation beside its peers: shapes, clock, gate, roofline, results
    end_to_end/     GPT-2's training step, everyone's generation, PPO by phase
    shown/          a summary, README's table, pictures
    verification.py the gate before everything: `gptwin verify` on this device
    job.py          one part, in a process of its own
    supervise.py    time limits, and a process that hangs
    driver.py       which parts there are, and what is done already
    dry_run.py      every path without a GPU, as a list

Without a GPU `gptwin bench gpu --dry-run` walks every path with tiny sizes and ends in a list of
them. The kernels run in Triton's interpreter and the clock is a counter: its figures mean nothing.
Read first: driver.py, then operations/.
"""
