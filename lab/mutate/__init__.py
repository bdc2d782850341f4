"""Would the checks notice? Every small fault, judged.

Imports lab/sanitize. Read first: operators.py, then judge.py. equivalent.toml lists the faults that
change nothing, and equivalent.py reads a user's list of them, too.
"""
