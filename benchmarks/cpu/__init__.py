"""What `gptwin bench cpu` runs: ratios against peers on this CPU.

Read first: driver.py.
"""
