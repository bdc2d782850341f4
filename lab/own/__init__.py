"""Your own kernel: what a user declares of it, so that every instrument takes it for a twin.

`gptwin.twin` and `gptwin.check` are here, and the plugin of pytest; `settings` of pyproject.toml
lie beside (lab/settings.py). It imports lab/verify and lab/sanitize; only the front door and the
command line import it. Read first: declare.py, then check.py.
"""
