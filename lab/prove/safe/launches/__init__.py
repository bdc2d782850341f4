"""What kernels are launched with: calls, the contracts that they satisfy, and code for any of them.

Read first: contract.py. Imports symbolic/, and of lab/ what runs twins and users' drivers.
"""
