"""All of it on one page.

Imports lab/verify and lab/inspect. Read first: data.py; templates/ holds the page.
"""
