"""The same rooms and the same file names in Triton; two rooms below them and one above.

Imports core. Imported by rl, lab and benchmarks. Below the rooms: interpreter/, common/; above
them: cpu/. Read first: layers/gelu.py, the smallest twin, then attention/attention.py.
"""
