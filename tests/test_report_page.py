"""report.html: what it says, and in headless Chromium that hostile data stay text and that it fits a phone."""

import json
import math
import re
import shutil
import subprocess
import tempfile
import threading
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import numpy
import pytest
from report_jobs import write_items, write_job, write_selection

from rose.report.comparison import compare
from rose.report.drawing import inline, short
from rose.report.report import write_report
from rose.report.results import read_jobs
from rose.report.selection_figures import overlap as overlap_figure
from rose.report.selections import JobSelection, SweepSelections, front, jaccard, overlap, read_selections
from rose.report.suspicions import read_findings, suspicions
from rose.report.text import number, printable, shorten

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_chromium = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed (Debian: apt-get install chromium)")

ATTACK = (
    "<script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
    "<img src=http://a.test/b><style>*{display:none}</style>{{ 7*7 }}</p></table>"
)
HOSTILE = [
    ATTACK,
    "\u202edesrever si siht\u2066 and unclosed",
    "a nul \x00, an escape \x1b[31m, half a pair \ud800, a bell \x07",
    "w" * 100_000,
    "مرحبا بالعالم",
    "]]> --> &lt; &#x3c;script> ' \" `",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two methods × two seeds whose rows, ids, sources and diagnostics are hostile, and one failed job."""
    outputs = tmp_path_factory.mktemp("outputs")
    sweep = outputs / "sweeps" / "demo"
    pool = [
        {"id": f"row-{i}{'<b>' if i % 2 else ''}", "dataset": ATTACK if i % 3 else "plain", "messages": [
            {"role": "user", "content": "say it"}, {"role": ATTACK if i == 1 else "assistant", "content": text}]}
        for i, text in enumerate(HOSTILE * 4)
    ]  # fmt: skip
    scores = {row["id"]: float(place) for place, row in enumerate(pool)}
    for seed in range(2):
        for method, wins in (("rose", 0.8), ("random", 0.4)):
            job = sweep / f"{method}-{seed}"
            metrics = {"win_rate": wins, "length_correlation": 0.6, "zero_shot/win_rate": 0.3}
            write_job(job, metrics, method=method, seed=seed)
            items = [1.0] * round(50 * wins) + [0.0] * round(50 * (1 - wins))
            write_items(job / "items.parquet", {"win_rate": items})
            write_selection(outputs, job, pool, scores if method == "rose" else dict(reversed(scores.items())), 6)
            entry = {"name": "leakage", "value": 3, "state": "warn", "sentence": ATTACK, "details": HOSTILE}
            (job / "diagnostics.json").write_text(json.dumps([entry]))
    write_job(sweep / "rose-2", None, "failed", f"boom {ATTACK}", seed=2)
    write_report(sweep)
    return outputs


@pytest.fixture(scope="module")
def page(outputs: Path) -> Path:
    return outputs / "sweeps" / "demo" / "report.html"


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.identities: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action", "srcset")]
        self.identities += [value or "" for name, value in attributes if name == "id"]


def parsed(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text())
    return links


def chromium(*options: str) -> str:
    """What a page's document is once it has loaded, without any network but this machine's."""
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    with tempfile.TemporaryDirectory() as profile:  # not the user's, which a browser of theirs may have open
        command = [CHROMIUM, *flags, f"--user-data-dir={profile}", "--virtual-time-budget=4000", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_first_screen_answers_who_won_is_it_real_what_it_cost_and_what_is_suspicious(page: Path):
    text = re.sub(r"<[^>]+>", "", page.read_text())
    for question in ("Who won?", "Is it real?", "What did it cost?", "What looks suspicious?"):
        assert question in text
    assert "rose leads; two seeds cannot tell: it has the highest win_rate, 0.800" in text
    assert "Planned, one family of 1: each method against random" in text
    assert 'class="told"' not in page.read_text()
    assert "rose, better than random: " in text
    assert "1 of 5 jobs did not finish" in text
    assert "rose-2 (failed): boom" in text


def test_headings_tables_and_figures_are_there_for_who_cannot_see_them(page: Path):
    html, tags = page.read_text(), parsed(page).tags
    assert tags.count("h1") == 1
    levels = [int(tag[1]) for tag in tags if re.fullmatch("h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert tags.count("caption") == tags.count("table") > 2
    assert html.count('scope="col"') > 10 and html.count('scope="row"') > 3
    assert html.count('role="img" aria-label="') == tags.count("figure") > 3
    assert '<a class="skip" href="#main">' in html and 'id="main"' in html
    assert '<html lang="en">' in html


def test_the_page_rests_on_nothing_but_files_beside_it(page: Path):
    links = parsed(page)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(links.tags)
    assert all(address.startswith("#") or (page.parent / address).exists() for address in links.addresses)
    assert len(links.identities) == len(set(links.identities))
    assert all(address[1:] in links.identities for address in links.addresses if address.startswith("#"))
    assert "\x00" not in page.read_text() and "\u202e" not in page.read_text()


def test_long_rows_are_cut_and_say_so(page: Path):
    assert "w" * 601 not in page.read_text()
    assert "99,400 more characters" in page.read_text()


def test_the_same_sweep_gives_the_same_page(outputs: Path, page: Path):
    before = page.read_bytes()
    report = write_report(page.parent)
    assert page.read_bytes() == before
    assert not report.changed


@in_chromium
@pytest.mark.parametrize("guarded", [True, False])
def test_no_script_of_the_data_runs_and_nothing_is_fetched(page: Path, tmp_path: Path, guarded: bool):
    """Also with the page's own content security policy taken away: it is the second line, not the first."""
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_CONNECT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        html = page.read_text()
        if not guarded:
            html = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", html)
        copy = tmp_path / "page.html"
        copy.write_text(html)
        proxy = f"--proxy-server=http://127.0.0.1:{server.server_port}"
        document = chromium(proxy, "--dump-dom", copy.as_uri())
    finally:
        server.shutdown()
    assert "<title>demo – Rose</title>" in document
    assert "<script" not in document
    assert [path for path in asked if not re.search(r"google|gvt1", path)] == []  # the browser's own


@in_chromium
def test_the_page_fits_a_phone_and_tells_its_themes_apart(page: Path, tmp_path: Path):
    """Measured in a frame 360 pixels wide, by a script that only this copy's frame around it runs."""
    html = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", page.read_text())
    html = html.replace("<details>", "<details open>")
    (tmp_path / "page.html").write_text(html)
    (tmp_path / "frame.html").write_text(
        """<iframe src="page.html" style="width:360px;height:800px;border:0"></iframe><pre id="found"></pre><script>
        onload = () => {
          const inside = frames[0].document, wide = [...inside.querySelectorAll("body *")].filter(
            e => e.getBoundingClientRect().right > 361 && !e.closest(".scroll, svg, .skip"));
          found.textContent = JSON.stringify({width: inside.documentElement.scrollWidth,
            wide: wide.map(e => e.tagName + "." + e.className),
            scripts: inside.scripts.length, title: inside.title, images: inside.images.length,
            back: getComputedStyle(inside.body).backgroundColor})};</script>"""
    )
    found = {}
    for theme in ("light", "dark"):
        scheme = f"--blink-settings=preferredColorScheme={int(theme == 'light')}"
        document = chromium(scheme, "--allow-file-access-from-files", "--dump-dom", (tmp_path / "frame.html").as_uri())
        found[theme] = json.loads(re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)[1])
    assert 300 < found["light"]["width"] <= 360
    assert found["light"]["wide"] == []
    assert (found["light"]["scripts"], found["light"]["images"]) == (0, 0)
    assert found["light"]["title"] == "demo – Rose"
    light, dark = (sum(map(int, re.findall(r"\d+", found[theme]["back"])[:3])) for theme in ("light", "dark"))
    assert dark < 150 < 600 < light


@in_chromium
def test_the_page_prints(page: Path, tmp_path: Path):
    target = tmp_path / "report.pdf"
    chromium(f"--print-to-pdf={target}", "--no-pdf-header-footer", page.as_uri())
    assert target.read_bytes().startswith(b"%PDF-")
    assert target.stat().st_size > 20_000


def test_a_single_job_without_anything_is_a_page_too(tmp_path: Path):
    write_job(tmp_path / "run", None, "failed", "no disk")
    report = write_report(tmp_path / "run")
    text = report.path.read_text()
    assert report.path.name == "report.html"
    assert "No job has been measured" in text
    assert "run (failed): no disk" in text


def test_text_of_other_people_is_spelt_out():
    assert (
        printable("a\x00b\u202ec\ud800d\x7f\n\té日") == "a[U+0000]b[U+202E]c\N{REPLACEMENT CHARACTER}d[U+007F]\n\té日"
    )
    assert shorten("abcdef", 4) == "abcd … 2 more characters"
    assert shorten(None, 9) == "None"
    assert (number(0.12345), number(-12.345), number(1234.5), number(0.5, "+")) == ("0.123", "−12.3", "1,234", "+0.500")


def test_a_long_label_is_cut_where_arms_do_not_differ():
    assert short("x" * 28) == "x" * 28
    assert short("rose a_model_with_a_long_name 0.05") == "rose a_model_…long_name 0.05"


def test_overlap_is_jaccard_between_methods_and_between_seeds():
    assert jaccard({"a", "b"}, {"b", "c"}) == pytest.approx(1 / 3)
    one, other = {0: {"a", "b"}, 1: {"a", "c"}}, {0: {"b", "d"}, 2: {"z"}}
    matrix = overlap([{seed: JobSelection("pool", ids) for seed, ids in arm.items()} for arm in (one, other)])
    assert matrix[0, 0] == pytest.approx(1 / 3)  # {a, b} and {a, c}
    assert matrix[1, 1] == 0
    assert matrix[0, 1] == matrix[1, 0] == pytest.approx(1 / 3)  # seed 0 alone is common


def test_a_finding_is_said_once_for_the_methods_that_share_it_and_the_data_s_come_first(tmp_path: Path):
    for method, extra in (("bm25", "short rows"), ("less", "long rows"), ("rose", "long rows")):
        write_job(tmp_path / method, {"reward": 0.5}, method=method)
        entries = [{"name": name, "state": "warn", "sentence": name} for name in (extra, "leaks")]
        entries.append({"name": "fine", "state": "pass", "sentence": "fine"})
        (tmp_path / method / "diagnostics.json").write_text(json.dumps(entries))
    jobs = read_jobs(tmp_path)
    comparison = compare(jobs)
    lines = suspicions(comparison, SweepSelections(), read_findings(comparison.arms, jobs, []), jobs)
    said = [line for line in lines if line.endswith(("leaks", "rows", "fine"))]
    assert said == ["all methods: leaks", "bm25: short rows", "less, rose: long rows"]


@pytest.mark.parametrize(
    ("name", "values", "worst"),
    [
        ("near_duplicates", [0.2, 0.5, 0.4], 1),
        ("length_correlation", [0.4, -0.6, 0.5], 1),
        ("length_ratio", [1.6, 0.25, 3.0], 1),  # a quarter is further off than three times
        ("stability", [0.4, 0.3, 0.1], 2),
        ("projection", [0.9, 0.5, 0.7], 1),
        ("fidelity", [0.5, 0.52, 0.4], 2),
        ("momentum_share", [0.9, None, 0.95], 1),  # all scores are the same
        ("leakage_pool_test", [0.1, 0.1, 0.1], 0),
    ],
)
def test_a_finding_s_sentence_is_that_of_the_worst_seed(tmp_path: Path, name: str, values: list, worst: int):
    for seed, value in enumerate([*values, 0.99 if name == "stability" else 0.0]):  # the last one passes
        write_job(tmp_path / f"rose-{seed}", {"reward": 0.5}, seed=seed)
        entry = {"name": name, "value": value, "state": "warn" if seed < 3 else "pass", "sentence": f"seed {seed}"}
        (tmp_path / f"rose-{seed}" / "diagnostics.json").write_text(json.dumps([entry]))
    jobs = read_jobs(tmp_path)
    (finding,) = read_findings(compare(jobs).arms, jobs, [])
    assert (finding.state, finding.sentence) == ("warn", f"seed {worst}")


@pytest.mark.parametrize("own_pools", [True, False])
def test_seeds_with_pools_of_their_own_are_not_compared_by_id(tmp_path: Path, own_pools: bool):
    """Methods of one seed are: both take the first ten rows at seed 0, and the last ten at seed 1."""
    for seed in range(2):
        pool = [{"id": f"world-{i}", "messages": [{"role": "user", "content": "x" * (i + 1)}]} for i in range(100)]
        for method in ("rose", "less"):
            job = tmp_path / "sweeps" / "own" / f"{method}-{seed}"
            write_job(job, {"reward": 0.5}, method=method, seed=seed)
            scores = {row["id"]: float(place if seed else -place) for place, row in enumerate(pool)}
            write_selection(tmp_path, job, pool, scores, 10, f"pool-{seed * own_pools}")
    jobs = read_jobs(tmp_path / "sweeps" / "own")
    comparison = compare(jobs)
    selections = read_selections(comparison.arms, jobs)
    diagonal = math.nan if own_pools else 0.0
    assert selections.overlap == pytest.approx(numpy.array([[diagonal, 1.0], [1.0, diagonal]]), nan_ok=True)
    said = overlap_figure(selections).alt
    assert said == ("rose and less 1.00" if own_pools else "less and less 0.00; rose and less 1.00; rose and rose 0.00")
    warned = any("agree no more than random" in line for line in suspicions(comparison, selections, [], jobs))
    assert warned != own_pools


def test_the_front_of_a_line_is_read_without_the_rest():
    assert front('{"id": "a\\"b", "dataset": "x", "messages": [never parsed') == ('a"b', "x")
    assert front('{"messages": [], "dataset": "y", "id": 7}') == ("7", "y")


def test_figures_of_one_page_share_no_ids_and_take_its_colour():
    svg = '<?xml version="1.0"?><svg xmlns="http://x" xmlns:xlink="http://y" width="9pt" viewBox="0 0 1 2" id="a">'
    svg += (
        '<metadata>when</metadata><g id="b" style="fill: #1b1f24" clip-path="url(#p)"><use xlink:href="#b"/></g></svg>'
    )
    assert inline(svg, "n") == (
        '<svg viewBox="0 0 1 2" aria-hidden="true" focusable="false">'
        '<g id="n-b" style="fill: currentColor" clip-path="url(#n-p)"><use href="#n-b"/></g></svg>'
    )
