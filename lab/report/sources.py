"""The report's sources: which files tell of a twin, and their text, highlighted in few bytes."""

import ast
import dataclasses
import html
import inspect
from collections.abc import Iterable, Iterator
from itertools import groupby

from markupsafe import Markup
from pygments.lexers import PythonLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, String, _TokenType

from ...records import PACKAGE
from ..twins.twin import Twin

# Kind of token to the class that the page's style colours. What is in none keeps the text's colour
# and takes no markup: a page holds some fifteen thousand lines.
CLASSES = (
    (Comment, "c"),
    (String.Doc, "d"),
    (String, "s"),
    (Number, "n"),
    (Keyword, "k"),
    (Operator.Word, "k"),
    (Name.Function, "f"),
    (Name.Class, "f"),
    (Name.Decorator, "a"),
)


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file as the page shows it.

    Attributes
    ----------
    path : str
        Such as "kernels/layers/softmax.py".
    summary : str
        The first sentence of its docstring.
    code : Markup
        Highlighted.
    numbers : str
        Its line numbers, one a line.
    """

    path: str
    summary: str
    code: Markup
    numbers: str

    @property
    def anchor(self) -> str:
        """The id of its place in the page."""
        return anchor(self.path)


def anchor(path: str) -> str:
    """Return the id that a file has in the page.

    Parameters
    ----------
    path : str

    Returns
    -------
    str
    """
    return "file-" + path.removesuffix(".py").replace("/", "-")


def files_of(twin: Twin) -> list[str]:
    """Name the files that tell of a twin.

    Parameters
    ----------
    twin : Twin

    Returns
    -------
    list of str
        Its NumPy file, its Triton file, then what else holds kernels that it launches. Of a user's
        own twin, the reference's file and the kernel's, whole paths.
    """
    if twin.sources:
        return list(twin.sources)
    own = _path(inspect.getmodule(twin.kernel))
    reference = own.replace("kernels/", "core/", 1)
    others = sorted({_path(inspect.getmodule(_function(k))) for k in twin.kernels().values()})
    return [reference, own, *(path for path in others if path != own)]


def _path(module: object) -> str:
    name = getattr(module, "__name__", "")
    return "/".join(name.split(".")[1:]) + ".py"


def _function(kernel: object) -> object:
    while hasattr(kernel, "fn"):
        kernel = kernel.fn
    return kernel


def read_source(path: str) -> SourceFile:
    """Read and highlight a file of the package.

    Parameters
    ----------
    path : str
        From the package's folder.

    Returns
    -------
    SourceFile
    """
    text = (PACKAGE / path).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text)) or ""
    numbers = "\n".join(map(str, range(1, text.count("\n") + 1)))
    return SourceFile(path, docstring.split("\n")[0], highlight(text), numbers)


def highlight(text: str) -> Markup:
    """Mark a Python text up.

    Parameters
    ----------
    text : str

    Returns
    -------
    Markup
        The text, escaped, with a <span> for each run of tokens of one class.
    """
    return Markup("".join(_spans(PythonLexer(stripnl=False).get_tokens(text))))


def _spans(tokens: Iterable[tuple[_TokenType, str]]) -> Iterator[str]:
    for css_class, run in groupby(tokens, key=lambda token: _class_of(token[0])):
        text = html.escape("".join(value for _, value in run), quote=False)
        yield f"<span class={css_class}>{text}</span>" if css_class else text


def _class_of(kind: _TokenType) -> str:
    return next((css_class for parent, css_class in CLASSES if kind in parent), "")
