"""What moves the parameters: AdamW, and the moving average of them.

Imported by core/model. Read first: adamw.py.
"""
