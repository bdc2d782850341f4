"""What a block is made of, position by position: softmax, norms, GELU, products, embedding.

Imported by every other room of core. Read first: gelu.py, the smallest operation; then softmax.py.
"""
