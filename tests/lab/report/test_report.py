"""`gptwin report`: one page that holds everything, says what is missing, and works in a browser."""

import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from gptwin.cli import app
from gptwin.lab import store
from gptwin.lab.report import report as report_module
from gptwin.lab.report.data import read_verification
from gptwin.lab.report.sources import files_of, highlight, read_source
from gptwin.lab.twins.catalogue import TWINS
from gptwin.lab.twins.roofline import DEVICES, predicted_seconds, typical
from gptwin.lab.verify import console
from gptwin.records import json_lines

sys.path.insert(0, str(Path(__file__).parent))
import browser

OPERATIONS = ("softmax", "gae", "layer_norm", "linear")


def row(operation, dtype, share, passed=True):
    comparison = {
        "name": "d_x", "share": share, "index": [0], "expected": 1.0, "actual": 1.0,
        "allowed": 1.0, "n_wrong": 0, "n_elements": 1,
    }  # fmt: skip
    finding = {"case": {"shape": [2, 3], "seed": 1}, "error": "", "comparisons": [comparison]}
    return {
        "operation": operation, "dtype": dtype, "passed": passed, "cases": 11,
        "variants_reached": 4, "variants": 4, "worst": finding,
        "failure": None if passed else finding, "tile": None,
        "reproduce": None if passed else f"gptwin verify {operation} --case '{{\"a<b\": 1}}'",
    }  # fmt: skip


# As text 1e-05 would come last, and "9%" after "100%".
ROWS = [
    row("softmax", "float32", 0.09), row("softmax", "bfloat16", 1.0), row("gae", "float32", 0.33),
    row("layer_norm", "float16", 0.56), row("linear", "float32", 1e-5),
]  # fmt: skip


def verification(rows=ROWS, **more):
    return {
        **store.made_with(), "device": "the CPU, through an interpreter", "seed": 0,
        "passed": all(r["passed"] for r in rows), "rows": rows, **more,
    }  # fmt: skip


def compiled(operation, kernel, arch, registers, **more):
    resources = {"registers": registers, "spill_bytes": 0, "shared_bytes": 2048, "warps": 4}
    return {
        "arch": arch, "operation": operation, "dtype": "bfloat16", "kernel": kernel,
        "configuration": 0, "resources": resources, "occupancy": 0.5, "failures": [], **more,
    }  # fmt: skip


def part(findings, **environment):
    here = {"commit": "0123456789ab", "torch": "2.13", "date": "2026-11-25", **environment}
    return {
        "status": "measured", "reason": None, "settings": {}, "environment": here,
        "findings": findings,
    }  # fmt: skip


VALUE = {"median": 1.25, "p20": 1.2, "p80": 1.3}
RATIO = {
    "name": "gptwin, NumPy against PyTorch, eager", "status": "measured", "value": VALUE,
    "unit": "times its time", "goal": {"at": "most", "bound": 1.5}, "reached": True, "clear": True,
}  # fmt: skip
MISSING = RATIO | {"name": "gone", "status": "not measured", "value": None, "reason": "no <lib>"}


def on_gpu(provider, seconds, share):
    return {
        "name": f"gpt2 | forward | {provider}", "shape": "gpt2 scores", "direction": "forward",
        "provider": provider, "status": "measured", "reason": None, "unit": "seconds",
        "value": dict.fromkeys(VALUE, seconds), "roofline": {"share": share},
    }  # fmt: skip


@pytest.fixture
def results(tmp_path):
    """Fill a folder as the other instruments do."""
    folder = tmp_path / "results"
    folder.mkdir()

    def put(name, head, *rows):
        (folder / name).write_text(json_lines([head, *rows]))

    def put_parts(name, parts):
        lines = []
        for each, stored in parts.items():
            lines.append({"part": each, **{k: v for k, v in stored.items() if k != "findings"}})
            lines += [{"part": each, **found} for found in stored["findings"]]
        put(name, {"format": 2}, *lines)

    rows = [
        compiled("softmax", "softmax_forward_kernel", "sm_90", 32),
        compiled("softmax", "softmax_forward_kernel", "sm_90", 64, configuration=1),
        compiled("gae", "gae_forward_kernel", "sm_80", 56, failures=["spills 8 bytes"]),
    ]
    put("inspect.jsonl", store.made_with() | {"typical": True, "commit": "0123456789"}, *rows)
    put_parts("cpu.jsonl", {"numpy": part([RATIO, MISSING], cpu="A CPU")})
    gpu = part([on_gpu("eager", 2e-4, None), on_gpu("gptwin", 1e-4, 0.91)], device="NVIDIA X1")
    gpu["findings"].append(on_gpu("Liger", None, None) | {"status": "skipped", "reason": "no lib"})
    whole = part([on_gpu("gptwin", 0.25, 0.5) | {"name": "a step"}], device="NVIDIA X1")
    wrong = part([], device="NVIDIA X1") | {"status": "failed", "reason": "gae disagrees"}
    parts = {"softmax/bfloat16": gpu, "training": whole, "verify/gae": wrong}
    parts["verify/gelu"] = part([], device="NVIDIA X1")
    put_parts("x1.jsonl", parts)
    dry = part([on_gpu("gptwin", 1.0, 1.0)], device="NVIDIA DRY") | {"settings": {"dry_run": True}}
    put_parts("dry.jsonl", {"softmax/bfloat16": dry})
    picture = Figure(figsize=(3, 2))
    picture.add_subplot().plot([1, 2])
    (folder / "x1").mkdir()
    for name in ("softmax-bfloat16", "gelu-bfloat16", "roofline"):  # gelu is not shown
        picture.savefig(folder / "x1" / f"{name}.png", dpi=40)
    picture.savefig(folder / "cpu.png", dpi=40)
    picture.savefig(folder / "cpu.svg")
    return folder


@pytest.fixture
def run(tmp_path, results):
    def run(*arguments, stored=None, operations=OPERATIONS):
        (tmp_path / "v.json").write_text(json.dumps(stored or verification()))
        given = ["report", *operations, "--out", str(tmp_path / "r.html")]
        given += ["--verification", str(tmp_path / "v.json"), "--results", str(results)]
        done = CliRunner().invoke(app, [*given, *arguments])
        path = tmp_path / "r.html"
        return done, path.read_text() if path.exists() else ""

    return run


# --- what the page holds -------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects ids, links and what would be loaded, and sees that tags are closed in order."""

    VOID = ("meta", "link", "br", "img", "use", "path", "circle", "polyline")

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded, self.tags = [], [], [], []
        self.feed(text)
        assert not self.tags

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if tag == "a" and "href" in given else []
        self.loaded += [given[name] for name in ("src", "data", "action") if name in given]
        self.loaded += [given["href"]] if tag == "link" else []
        if tag not in self.VOID:
            self.tags.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.VOID:
            self.tags.pop()

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.tags.pop() == tag, tag


def words(text):
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", text)))


def test_the_page_says_what_was_stored(run):
    done, page = run()
    assert done.exit_code == 0, done.output
    said = words(page)
    for expected in (
        "rows that agree 5 of 5", "cases checked 55", "most of an error budget used 100%",
        "speed on a GPU NVIDIA X1", "softmax_forward_kernel sm_90 2 32–64 0 2,048 50%",
        "gptwin, NumPy against PyTorch, eager 1.25 1.20 to 1.30 times its time ≤ 1.50: reached",
        "gone no <lib>", "gpt2 scores forward 100 µs 200 µs – 91%", "a step 250 ms 250 ms to 250",
        "gae_forward_kernel bfloat16: spills 8 bytes", "gae: gae disagrees",
        "Verified there, in agreement: gelu.", ", from commit 0123456, at each twin's first",
        "Not launched at this shape: softmax_forward_wide_kernel",
    ):  # fmt: skip
        assert expected in said, expected
    assert '<span title="no lib">–</span>' in page
    cost = typical(TWINS["softmax"]).costs["forward"]
    least = report_module.duration(predicted_seconds(cost, "bfloat16", DEVICES[0]))
    assert "DRY" not in said and f"≥ {least}" in said and "Predicted, not measured" in said
    assert "changed since" not in said


def test_ids_are_unique_links_lead_somewhere_and_nothing_is_loaded(run):
    # attention's files are shown once, and the two others link to them
    page = Page(run(operations=("attention", "qkv_attention", "decoder_block"))[1])
    assert sorted(page.ids) == sorted(set(page.ids))
    assert "#file-kernels-attention-attention_backward" in page.links
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert page.loaded and all(address.startswith("data:") for address in page.loaded)


@pytest.mark.parametrize("name", ["core/layers/softmax.py", "kernels/layers/softmax.py"])
def test_a_source_is_shown_whole(run, name):
    source = read_source(name)
    text = (store.PACKAGE / name).read_text()
    assert html.unescape(re.sub(r"</?span[^>]*>", "", source.code)) == text
    assert source.numbers.split("\n")[-1] == str(len(text.splitlines()))
    assert str(source.code) in run()[1]


def test_code_is_escaped_and_marked():
    code = highlight("if a < b:\n    return '<b>'  # &\n")
    assert "<span class=k>if</span> a &lt; b" in code
    assert "<span class=s>'&lt;b&gt;'</span>" in code and "<span class=c># &amp;</span>" in code


def test_every_twin_has_its_two_files():
    for name, twin in TWINS.items():
        files = files_of(twin)
        room = files[0].split("/")[1]
        assert files[:2] == [f"core/{room}/{name}.py", f"kernels/{room}/{name}.py"]
        assert all((store.PACKAGE / path).is_file() for path in files)


def test_a_disagreement_is_the_first_thing_said(run):
    stored = verification([row("gae", "float32", "inf", passed=False), *ROWS[:2]])
    done, page = run(stored=stored)
    assert done.exit_code == 1 and "1 of 3 rows disagree" in done.output
    said = words(page)
    assert said.strip().startswith("gptwin report: 4 twins, 1 of 3 rows disagree")
    assert "disagrees" in said and "gptwin verify gae --case '{\"a<b\": 1}'" in said
    assert "Not verified for this page" in said  # layer_norm and linear


def test_twins_that_were_not_verified_are_counted(run):
    done, page = run(stored=verification(ROWS[:3]))
    assert done.exit_code == 0 and "2 of 4 twins verified" in done.output
    assert "2 of 4 twins verified" in words(page) and "all agree" not in page


def test_a_kernel_that_nothing_reached_is_no_agreement(run):
    done, _ = run(stored=verification() | {"passed": False})
    assert done.exit_code == 1 and "some kernels were not reached" in done.output


def test_what_has_changed_since_is_named(run):
    stored = verification()
    stored["sources"]["kernels/rlhf/gae.py"] = "other"
    assert "These sources have changed since: kernels/rlhf/gae.py." in words(run(stored=stored)[1])


def test_without_results_nothing_was_measured(run, results):
    for path in results.glob("*.*"):
        path.unlink()
    said = words(run()[1])
    assert said.count("Not measured:") == 2 and "speed on a GPU not measured" in said
    assert said.count("Not compiled:") == len(OPERATIONS)


def test_fresh_means_that_verify_runs_now(run, monkeypatch):
    asked = {}

    def verify(operations, *, json_file, **options):
        asked.update(options, operations=operations)
        Path(json_file).write_text(json.dumps(verification()))
        return 0

    monkeypatch.setattr(console, "verify", verify)
    done, page = run("--verification", "fresh", "--examples", "2")
    assert done.exit_code == 0 and "rows that agree 5 of 5" in words(page)
    assert asked == {"operations": list(OPERATIONS), "dtypes": [], "examples": 2}


def test_nan_is_beyond_any_budget(tmp_path):
    path = tmp_path / "v.json"
    path.write_text(json.dumps(verification([row("gae", "float32", "nan", passed=False)])))
    assert read_verification(path).worst.share == float("inf")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--verification", "no/such.json"], "verification: expected a file that gptwin verify"),
        (["--verification", "{results}/cpu.jsonl"], "wrote, got another: "),
        (["--verification", "{results}/cpu.png"], "cpu.png, which is no JSON"),
        (["--verification", "{results}"], "verification: expected a file that"),
        (["--examples", "3"], "examples: expected none beside a stored verification"),
        (["--results", "no/such"], "results: expected a directory"),
        (["--out", "no/such/r.html"], "out: expected a file in a directory that exists"),
        (["sofmax"], "operation: expected one of softmax"),
    ],
)
def test_bad_input_is_refused_by_name(run, results, arguments, message):
    done, page = run(*[word.format(results=results) for word in arguments])
    assert isinstance(done.exception, ValueError) and message in str(done.exception)
    assert "\n" not in str(done.exception) and page == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("inspect.jsonl", '{}\n{"failures": []}'),
        ("inspect.jsonl", "[]"),
        ("x.jsonl", "{"),
        ("x.jsonl", '{"format": 2}\n{"part": "a", "environment": {}}'),
        ("x.jsonl", '{"format": 2}\n{"part": "a", "name": "of a part that is not there"}'),
        ("cpu.svg", "<html>"),
        ("cpu-more.png", "GIF"),
    ],
)
def test_results_of_something_else_are_refused(run, results, name, text):
    (results / name).write_text(text)
    done, page = run()
    assert isinstance(done.exception, ValueError) and name in str(done.exception)
    assert "\n" not in str(done.exception) and page == ""


def test_numbers_are_written_for_people():
    assert [report_module.duration(s) for s in (2, 1.5e-3, 1.97e-4, 4e-9)] == [
        "2 s", "1.5 ms", "197 µs", "4 ns",
    ]  # fmt: skip
    assert [report_module.count(n) for n in (12, 1500, 503e6, 7e12)] == [
        "12 ", "1.5 k", "503 M", "7 T",
    ]  # fmt: skip
    assert [report_module.figure(x) for x in (1.25, 0.04567, 1234.5, 0)] == [
        "1.25", "0.0457", "1,234", "0",
    ]  # fmt: skip


# --- in a browser --------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(browser.find() is None, reason="no Chromium is installed")


@pytest.fixture
def window():
    path = browser.find()
    assert path is not None
    with browser.Browser(path) as opened:
        yield opened


def colours(window):
    return window.evaluate(
        "['background-color', 'color'].map(p => getComputedStyle(document.body)[p])"
    )


def luminance(colour):
    channels = [int(c) / 255 for c in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


FAINTEST = """(() => {
  const found = {};
  document.querySelectorAll('details').forEach(d => d.open = true);
  for (const e of document.querySelectorAll('main *, header *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    if (e.closest('svg, .numbers, [hidden], .hidden')) continue;
    let at = e;
    while (getComputedStyle(at).backgroundColor === 'rgba(0, 0, 0, 0)') at = at.parentElement;
    const key = getComputedStyle(e).color + ' on ' + getComputedStyle(at).backgroundColor;
    found[key] ??= e.outerHTML.slice(0, 80);
  }
  return found;
})()"""


@needs_browser
def test_the_page_works_in_a_browser(run, tmp_path, window):
    run()
    page = tmp_path / "r.html"
    window.open(page, width=1280)
    window.evaluate("[...document.images].forEach(i => { i.loading = 'eager'; })")
    window.evaluate("Promise.all([...document.images].map(i => i.decode()))")
    assert window.requests() == [page.resolve().as_uri()]

    # Every picture is there.
    sizes = window.evaluate("[...document.images].map(i => i.naturalWidth)")
    assert len(sizes) == 2 and all(sizes)
    drawn = "[...document.querySelectorAll('svg.plot')].map(s => s.getBBox().width)"
    assert len(window.evaluate(drawn)) == 3 and all(window.evaluate(drawn))

    # The table sorts by number, both ways, by mouse and by keyboard.
    shares = (
        "[...document.querySelectorAll('#verification-table td.share')].map(c => c.textContent)"
    )
    heading = "#verification-table th:nth-child(5)"
    window.click(f"{heading} button")
    rising = ["0%", "9%", "33%", "56%", "100%"]
    assert window.evaluate(shares) == rising
    assert window.evaluate(f"document.querySelector('{heading}').ariaSort") == "ascending"
    for kind in ("keyDown", "keyUp"):
        window.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r",
                    windowsVirtualKeyCode=13)  # fmt: skip
    assert window.evaluate(shares) == rising[::-1]
    window.click("#verification-table th:first-child button")
    names = "[...document.querySelectorAll('#verification-table tbody th')].map(c => c.textContent)"
    assert window.evaluate(names) == sorted(window.evaluate(names))

    # A link to a closed source opens it.
    window.evaluate("location.hash = '#file-kernels-layers-layer_norm_wide'")
    shown = "document.getElementById('file-kernels-layers-layer_norm_wide').checkVisibility()"
    window.evaluate("new Promise(done => setTimeout(done, 50))")
    assert window.evaluate(shown)
    assert window.complaints() == []


@needs_browser
def test_the_page_is_light_dark_and_fits_a_phone(run, tmp_path, window):
    run()
    page = tmp_path / "r.html"
    window.open(page, width=390, height=844)
    opened = "document.querySelectorAll('details').forEach(d => d.open = true)"
    for prepare in ("0", opened):
        window.evaluate(prepare)
        assert window.evaluate("document.documentElement.scrollWidth") == 390
    pair = "[...document.querySelectorAll('.pair .source')].map(s => s.getBoundingClientRect().x)"
    assert len(set(window.evaluate(pair))) == 1  # one above the other

    light = colours(window)
    faint = {"light": window.evaluate(FAINTEST)}
    window.open(page, width=1280, dark=True)
    dark = colours(window)
    faint["dark"] = window.evaluate(FAINTEST)
    assert luminance(light[0]) > luminance(light[1]) and luminance(dark[0]) < luminance(dark[1])
    for theme, found in faint.items():
        assert len(found) > 5
        for key, where in found.items():
            ink, paper = sorted(map(luminance, key.split(" on ")))
            assert (paper + 0.05) / (ink + 0.05) >= 4.5, f"{theme}: {key}: {where}"

    # The button goes through system, light, dark; what is chosen outlives the page.
    window.click("#theme")
    assert colours(window) == light
    window.open(page, width=1280, dark=True)
    assert colours(window) == light
    window.click("#theme")
    assert colours(window) == dark
    assert window.complaints() == []
