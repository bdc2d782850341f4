"""libdevice: NVIDIA's library of mathematical functions, in NumPy and the C library.

A kernel that calls `libdevice.tanh` is compiled to a call of `__nv_tanhf`. `table.find` gives the
function that stands for such a symbol in the interpreter; `special` holds what NumPy lacks, the
error functions, gamma and Bessel functions; `rounding` rounds exact results up, down or to zero;
`integers` counts and moves bits, and converts.

A function of real numbers is computed in float64 and rounded once to the symbol's type. A float is
the nearest one but for rare ties; a double lies within 2 units in the last place, or within what
NVIDIA promises where that is more. Edge cases are those of the libdevice user's guide. Read `table`
first; only the interpreter imports this room.
"""
