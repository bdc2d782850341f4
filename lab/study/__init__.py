"""The book: docs/study/ as a static site, its code, numbers and figures made when it is built.

Imports lab/exercises, lab/trace and what is below them, and Sphinx (extra `study`). Read first:
build.py, then directives.py: what a page may ask for.
"""
