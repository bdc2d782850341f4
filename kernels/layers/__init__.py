"""What a block is made of, in Triton: softmax, norms, GELU, products, embedding.

As core/layers. Read first: gelu.py, then softmax.py, layer_norm.py, linear.py.
"""
