"""The book builds without a fault, its figures agree with the reference, and faults are named."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("triton")
pytest.importorskip("sphinx")
pytest.importorskip("myst_parser")
pytest.importorskip("furo")

from gptwin.kernels.common import launch
from gptwin.lab.study import build as book

pytestmark = [
    pytest.mark.skipif(not launch.INTERPRETED, reason="needs TRITON_INTERPRET=1"),
    pytest.mark.filterwarnings("ignore:.*myst_parser"),  # what Sphinx 11 will no longer give it
]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert book.build(str(folder)) == 0
    return folder


def test_every_page_is_built_and_is_in_the_contents(site: Path) -> None:
    contents = (site / "index.html").read_text(encoding="utf-8")
    for page in book.PAGES.rglob("*.md"):
        name = page.relative_to(book.PAGES).with_suffix(".html")
        assert (site / name).is_file()
        assert name.name == "index.html" or str(name) in contents


def test_every_page_is_there_in_korean(site: Path) -> None:
    for page in book.PAGES.rglob("*.md"):
        name = page.relative_to(book.PAGES).with_suffix(".html")
        text = (site / "ko" / name).read_text(encoding="utf-8")
        assert 'lang="ko"' in text
        assert re.search("[가-힣]{2}", text)


def test_a_paragraph_without_a_translation_is_a_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.md").write_text("# Page\n\nNew words.\n", encoding="utf-8")
    (pages / "ko.po").write_text('msgid "Page"\nmsgstr "쪽"\n', encoding="utf-8")
    assert book.build(str(tmp_path / "out"), pages) == 1
    assert "index.md: not in ko.po: New words." in capsys.readouterr().out


def test_no_page_needs_a_network(site: Path) -> None:
    fetched = r'(?:<script[^>]*src|<link[^>]*rel="stylesheet"[^>]*href|<img[^>]*src)="https?:'
    for page in site.rglob("*.html"):
        assert not re.search(fetched, page.read_text(encoding="utf-8")), page


def opened(page: Path) -> str:
    """Open a page in a browser and return its document once its scripts have run."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000",
        "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_six_tokens_agree_with_the_reference_in_a_browser(site: Path) -> None:
    document = opened(site / "ko/chatgpt/credit.html")
    assert 'data-agrees="true"' in document
    assert document.count("data-row=") == 11
    to_english = re.search(r'class="language"[^>]*href="([^"]*)"', document)
    assert to_english is not None
    assert to_english[1].endswith("/ko/../chatgpt/credit.html")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_trace_draws_in_a_browser(site: Path) -> None:
    document = opened(site / "traces/softmax_online.html")
    assert "softmax_online_kernel" in document
    assert "(0, 0, 0) of 2" in document


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("```{source} gptwin.core.layers.softmax:no_such\n```", "no_such"),
        ("```{run}\n1 / 0\n```", "ZeroDivisionError"),
        ("A number: {value}`no_such_name`.", "no_such_name"),
        ("```{exercise} no_such\n```", "a name that `gptwin exercise` lists"),
        ("```{traced} first_copy\n:case: 9\n```", "IndexError"),
        ("[a page](no_such.md)", "no_such"),
        ("```{no-such}\n```", "no-such"),
    ],
)
def test_what_a_page_asks_for_and_is_not_there_is_a_fault(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.md").write_text(f"# Page\n\n{text}\n", encoding="utf-8")
    assert book.build(str(tmp_path / "out"), pages) == 1
    told = capsys.readouterr().out
    assert says in told
    assert "index.md" in told


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(ValueError, match="a new or empty folder"):
        book.build(str(tmp_path))
    with pytest.raises(RuntimeError, match="expected the pages"):
        book.build(str(tmp_path / "out"), tmp_path / "absent")
