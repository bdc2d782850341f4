"""Build the book, and serve it."""

import functools
import http.server
import importlib.util
import io
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ...core.checks import refuse

PAGES = Path(__file__).resolve().parents[2] / "docs/study"
STATIC = Path(__file__).parent / "static"
LANGUAGES = ("en", "ko")
DOMAIN = "study"  # one catalogue of translations for all pages
TRACES = "traces"


def build(out: str, pages: Path = PAGES) -> int:
    """Build the site into a folder.

    Parameters
    ----------
    out : str
        The folder; made if it is not there.
    pages : Path
        The Markdown that it is built from.

    Returns
    -------
    int
        0; 1 if a page asks for what is not there, or its code raises.

    Raises
    ------
    ValueError
        If `out` is a file, or holds something else.
    RuntimeError
        If Sphinx or the pages are missing.
    """
    missing = [
        name for name in ("sphinx", "myst_parser", "furo") if not importlib.util.find_spec(name)
    ]
    if missing:
        raise RuntimeError(
            f"study: expected Sphinx, MyST and Furo, but {', '.join(missing)} is missing; "
            "pip install 'gptwin[study]' brings them"
        )
    if not pages.is_dir():
        raise RuntimeError(f"study: expected the pages in {pages}, got none; run it in a clone")
    folder = Path(out)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not is_site(folder)):
        refuse("out", "a new or empty folder, or a site built before", out)
    from . import directives

    directives.forget()
    faults = [fault for language in LANGUAGES for fault in _build(folder, pages, language)]
    for line in faults:
        print(line)
    print(f"{folder / 'index.html'}: {len(list(pages.rglob('*.md')))} pages, {len(faults)} faults")
    return int(bool(faults))


def _build(folder: Path, pages: Path, language: str) -> list[str]:
    """Build one language, English at the folder's root, and list the faults."""
    from sphinx.application import Sphinx
    from sphinx.util.console import nocolor
    from sphinx.util.docutils import docutils_namespace

    nocolor()
    out = folder if language == "en" else folder / language
    translated = pages / f"{language}.po"
    if language != "en" and not translated.is_file():
        return []
    told = io.StringIO()
    with tempfile.TemporaryDirectory() as texts, docutils_namespace():
        if language != "en":
            catalogue = Path(texts, language, "LC_MESSAGES", f"{DOMAIN}.po")
            catalogue.parent.mkdir(parents=True)
            shutil.copy(translated, catalogue)
        app = Sphinx(
            pages, None, out, out / ".doctrees", "html", freshenv=True, status=None,
            confoverrides=settings(out, language, texts), warning=told,
        )  # fmt: skip
        app.build()
    faults = [line for line in told.getvalue().splitlines() if line.strip()]
    if language != "en":
        faults += _untranslated(app, translated)
        if (folder / TRACES).is_dir():  # made in English
            shutil.copytree(folder / TRACES, out / TRACES, dirs_exist_ok=True)
    return faults


def _untranslated(app: Any, translated: Path) -> list[str]:
    """List the paragraphs that are not in the catalogue, where equal ones stand, too."""
    from babel.messages.pofile import read_po
    from docutils import nodes

    with translated.open("rb") as file:
        known = {message.id for message in read_po(file)}
    return [
        f"{name}.md: not in {translated.name}: {node.rawsource or node.astext()}"
        for name in sorted(app.env.found_docs)
        for node in app.env.get_doctree(name).findall(nodes.Element)
        if node.get("translated") is False and (node.rawsource or node.astext()) not in known
    ]


def is_site(folder: Path) -> bool:
    """Say whether a folder holds a site that Sphinx has built.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    bool
    """
    return (folder / ".buildinfo").is_file()


def settings(folder: Path, language: str, texts: str) -> dict[str, object]:
    """Give Sphinx its settings; there is no conf.py, so that the pages are nothing but pages.

    Parameters
    ----------
    folder : Path
        Of the site.
    language : str
        "en" or "ko".
    texts : str
        Folder with the language's translations.

    Returns
    -------
    dict
    """
    return {
        "gptwin_traces": str(folder / TRACES),
        "project": "gptwin, the study",
        "extensions": ["myst_parser", "gptwin.lab.study.directives"],
        "myst_enable_extensions": ["colon_fence"],
        "html_theme": "furo",
        "html_title": "gptwin, the study",
        "html_static_path": [str(STATIC)],
        "html_css_files": ["study.css"],
        "html_js_files": ["language.js"],
        "language": language,
        "locale_dirs": [texts],
        "gettext_compact": DOMAIN,
        "html_copy_source": False,
        "html_show_copyright": False,
        "html_show_sourcelink": False,
        "exclude_patterns": ["*.po"],
        "suppress_warnings": ["config.cache"],
    }


def serve(out: str, port: int) -> None:
    """Serve a built site to this machine, until Ctrl-C.

    Parameters
    ----------
    out : str
    port : int
    """
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=out)
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/ (Ctrl-C ends)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
