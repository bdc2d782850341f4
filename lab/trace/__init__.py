"""Who reads which tile, and how many bytes: pictures, a table, and a page to step through.

Imports lab/verify, and the drivers of lab/sanitize. Read first: trace.py, then record.py.
"""
