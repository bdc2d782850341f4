"""Safe for all sizes: every access in bounds, no integer that wraps, no race, nothing unwritten.

    kernel --compile--> TTIR --walk, evaluate--> addresses, masks and paths over unknowns (terms)
    contract (beside the twin) --> what is assumed of sizes, strides, the grid and data
    both --questions, written--> z3 (solver) --> proved, or a counterexample --replay--> sanitize

Read first: `contract`, which says what a proof is about; then `terms` and `questions`. Everything
is proved about all launches that a contract allows, of any size; what is not followed is named.
Imports kernels/, lab/twins/ and, to confirm what it reports, lab/sanitize/.
"""
