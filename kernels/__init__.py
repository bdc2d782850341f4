"""The same operations in Triton: kernels, host function and autograd wiring, one file each."""
