"""What a page may ask for: source, a run, a number, a plot, a trace, machine code, an exercise.

Each is made when the site is built, and a name that is not there or code that raises is a fault of
the build: no page can go stale. It is made once for all languages.
"""

import contextlib
import importlib
import inspect
import io
import re
import shutil
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from ..exercises import hand_out
from . import compiled, six_tokens, traced

ROOT = Path(__file__).resolve().parents[2]
# Of the site being built: what each page asked for, by its place, and what its code has run.
MADE: dict[tuple[str, int], list[nodes.Node]] = {}
NAMESPACES: dict[str, dict[str, Any]] = {}


def forget() -> None:
    """Begin another site."""
    MADE.clear()
    NAMESPACES.clear()


class Made(SphinxDirective):
    """Something that is made; what goes wrong becomes a fault of the build, with page and line."""

    def make(self) -> list[nodes.Node]:
        """Make it."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Make it, unless another language has, or report why not."""
        place = self.env.docname, self.lineno
        if place not in MADE:
            try:
                MADE[place] = self.make()
            except Exception as error:
                raise self.error(f"{self.name}: {type(error).__name__}: {error}") from error
        return [node.deepcopy() for node in MADE[place]]


class Source(Made):
    """A function, kernel or class as it stands: `gptwin.core.layers.softmax:softmax_forward`."""

    required_arguments = 1

    def make(self) -> list[nodes.Node]:
        """Show it beside the name of its file and its line."""
        module, _, name = self.arguments[0].partition(":")
        found = getattr(importlib.import_module(module), name)
        while hasattr(found, "fn"):  # what Triton has wrapped, once or twice
            found = found.fn
        found = inspect.unwrap(found)
        lines, first = inspect.getsourcelines(found)
        file = Path(inspect.getsourcefile(found) or "").resolve().relative_to(ROOT)
        text = traced.without_marks(without_sections("".join(lines)))
        caption = nodes.container("", nodes.literal("", f"{file}:{first}"), classes=["source"])
        return [caption, nodes.literal_block(text, text, language="python")]


# From the first of numpydoc's sections to the docstring's end, which has a line of its own.
_SECTIONS = re.compile(r'\n\n *(?:Parameters|Attributes|Returns)\n *-+\n(?:.*\n)*?( *""")')


def without_sections(text: str) -> str:
    """Leave out a docstring's sections: a reader of the book wants the code.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return _SECTIONS.sub(r"\n\1", text, count=1)


class Run(Made):
    """Python that runs when the site is built; what it prints stands below it."""

    has_content = True

    def make(self) -> list[nodes.Node]:
        """Run it in the page's own namespace."""
        text = "\n".join(self.content)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, f"{self.env.docname}, run", "exec"), namespace(self.env))
        shown: list[nodes.Node] = [nodes.literal_block(text, text, language="python")]
        if printed.getvalue():
            output = printed.getvalue().rstrip()
            block = nodes.literal_block(output, output, language="text", classes=["output"])
            shown.append(block)
        return shown


class FigureOf(Made):
    """A plot of what the page has run: lines on `axes`, and the title as the argument."""

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def make(self) -> list[nodes.Node]:
        """Draw it as SVG, on a white card, so that it reads in the dark, too."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
        axes.set_title(self.arguments[0])
        axes.set_xlabel("iteration")
        text = "\n".join(self.content)
        exec(
            compile(text, f"{self.env.docname}, figure", "exec"),
            {**namespace(self.env), "axes": axes},
        )
        axes.legend()
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg")
        pyplot.close(figure)
        svg = drawn.getvalue().partition("<svg")
        label = f'<figure class="plot" role="img" aria-label="{escaped(self.arguments[0])}">'
        return [nodes.raw("", f"{label}<svg{svg[2]}</figure>", format="html")]


class Value(SphinxRole):
    """A number in a sentence: an expression over what the page has run."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Evaluate it."""
        try:
            value = eval(self.text, namespace(self.env))
        except Exception as error:
            message = self.inliner.reporter.error(f"value: {type(error).__name__}: {error}")
            return [], [message]
        return [nodes.literal("", value if isinstance(value, str) else f"{value:.4g}")], []


def namespace(env: Any) -> dict[str, Any]:
    """Give what the page being read has run so far.

    Parameters
    ----------
    env : BuildEnvironment

    Returns
    -------
    dict
    """
    return NAMESPACES.setdefault(env.docname, {})


class Exercise(Made):
    """An exercise: its title, how it is fetched and graded, and its hints, folded up."""

    required_arguments = 1

    def make(self) -> list[nodes.Node]:
        """Show it."""
        name = self.arguments[0]
        declared = hand_out.find(name)
        commands = f"gptwin exercise {name}\ngptwin grade {name}.py"
        hints = "".join(
            f"<details><summary>hint {number}</summary><p>{escaped(hint)}</p></details>"
            for number, hint in enumerate(declared.hints, 1)
        )
        title = f"Exercise: {hand_out.title_of(name)}"
        box = nodes.admonition("", nodes.title(title, title), classes=["exercise"])
        box += nodes.paragraph("", f"Level {declared.level} of 5.")
        box += nodes.literal_block(commands, commands, language="sh")
        box += nodes.raw("", hints, format="html")
        return [box]


def escaped(text: str) -> str:
    """Write text into HTML.

    Parameters
    ----------
    text : str

    Returns
    -------
    str
    """
    return nodes.unescape(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class Traced(Made):
    """A kernel's trace to step through: the solution of an exercise, on one of its cases."""

    required_arguments = 1
    option_spec: ClassVar[dict[str, Any]] = {"case": directives.nonnegative_int}

    def make(self) -> list[nodes.Node]:
        """Run the exercise's solution on one case, and show the page of its trace."""
        name = self.arguments[0]
        page = traced.page_of(name, self.options.get("case", 0))
        pages = Path(self.config.gptwin_traces)
        pages.mkdir(parents=True, exist_ok=True)
        shutil.move(page, pages / f"{name}.html")
        depth = "../" * self.env.docname.count("/")
        frame = (
            f'<iframe class="traced" src="{depth}traces/{name}.html" '
            f'title="trace of {escaped(name)}"></iframe>'
        )
        return [nodes.raw("", frame, format="html")]


class Compiled(Made):
    """The kernel of an exercise beside its PTX and SASS: `first_copy copy_kernel float32 9 N=4`."""

    required_arguments = 1
    final_argument_whitespace = True

    def make(self) -> list[nodes.Node]:
        """Compile it, and show a row for each line of Python."""
        name, kernel, *given = self.arguments[0].split()
        constants = dict(word.split("=") for word in given if "=" in word)
        arguments = [word for word in given if "=" not in word]
        numbers = {key: int(value) for key, value in constants.items()}
        return [nodes.raw("", compiled.table(name, kernel, arguments, numbers), format="html")]


class SixTokens(Made):
    """The table of six tokens: rewards, values, advantages, PPO's loss, with sliders."""

    def make(self) -> list[nodes.Node]:
        """Show it, with what the reference computes."""
        return [nodes.raw("", six_tokens.figure(), format="html")]


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx what there is.

    Parameters
    ----------
    app : Sphinx

    Returns
    -------
    dict
    """
    app.add_directive("source", Source)
    app.add_directive("run", Run)
    app.add_directive("figure-of", FigureOf)
    app.add_directive("exercise", Exercise)
    app.add_directive("traced", Traced)
    app.add_directive("compiled", Compiled)
    app.add_directive("six-tokens", SixTokens)
    app.add_role("value", Value())
    app.add_config_value("gptwin_traces", "", "env", types=str, description="their folder")
    return {"parallel_read_safe": False}
