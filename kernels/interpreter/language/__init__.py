"""How a kernel's source becomes Python: the language, its loops, its libraries, its assembly.

Imports common/ and libdevice/. Read first: language.py.
"""
