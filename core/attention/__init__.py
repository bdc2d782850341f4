"""Who sees whom and what is gathered: attention in four costumes.

Imported by core/model. Read first: attention.py (the definition), then attention_tiled.py (the
kernel's own loop); key_intervals.py says why every mask is an interval of keys.
"""
