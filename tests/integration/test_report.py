"""`epo report` on a real server: the pages in Debian's Chromium, the figures as files, and what cannot be reported."""

import json
import os
import re
import subprocess
import xml.etree.ElementTree

import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

TOKENS = 6
# The paper's colour.
LIGHT = "rgb(253, 253, 252)"
# Ends a script, is an element, steers a terminal, turns the reading direction.
HOSTILE = "</script><img src=x onerror='window.pwned=1'>\x1b[31m\n\u202eא&amp;"


@pytest.fixture(scope="module")
def phi(module_server, root):
    return module_server(root / "tests/parity/phi-tiny", dtype="float32")


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"], timeout=120_000)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """visit(file, width=1280, scheme="light") -> the page, drawn. At the end of the test nothing may have been said on the console, nor
    anything been asked for but files."""
    contexts, said = [], []

    def open_page(path, width=1280, scheme="light"):
        context = chromium.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: request.url == path.as_uri() or said.append(request.url))
        page.goto(path.as_uri())
        page.locator("svg").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not said


@pytest.fixture
def cli(epo, phi, tmp_path):
    def run(*args, server=phi, **kwargs):
        return epo(*args, server=server, env={"XDG_CONFIG_HOME": str(tmp_path / "config")}, **kwargs)

    return run


def neuron(stubs, index=3):
    return stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=1, neuron=index))


def start(server, stubs, **fields):
    defaults = {"objective": neuron(stubs), "tokens": TOKENS, "population": 4, "children_per_parent": 8, "top_k": 64, "iterations": 24, "restart_period": 8}
    spec = stubs.job.JobSpec(**{**defaults, **fields})
    return server.stub.CreateJob(stubs.service.CreateJobRequest(spec=spec), timeout=60).id


def run(server, stubs, **fields):
    job = start(server, stubs, **fields)
    *_, last = server.stub.WatchJob(stubs.service.WatchJobRequest(id=job), timeout=120)
    assert last.ended.state == stubs.job.Job.SUCCEEDED
    return job


@pytest.fixture(scope="module")
def job(phi, stubs):
    return run(phi, stubs)


@pytest.fixture(scope="module")
def points(phi, stubs, job):
    return phi.stub.GetFrontier(stubs.service.GetFrontierRequest(id=job), timeout=60).points


def with_data(path, change):
    """The page with its data as `change`, called with them, leaves them."""
    before, data, after = re.split(r'(?<=id="data">)(.*?)(?=</script>)', path.read_text(), maxsplit=1)
    data = json.loads(data)
    change(data)
    path.write_text(before + json.dumps(data) + after)
    return path


@pytest.fixture
def page_file(cli, job, tmp_path):
    path = tmp_path / "report.html"
    done = cli("report", job, "--out", path)
    assert done.returncode == 0, done.stderr
    assert "attributing prompt 1 of " in done.stderr and os.listdir(tmp_path) == ["report.html"]
    return path


def shown(value):
    """As the page writes a number."""
    size = abs(value)
    text = f"{value:.2e}" if size and (size >= 1e6 or size < 1e-3) else f"{value:.{1 if size >= 100 else 2 if size >= 10 else 3}f}"
    return re.sub(r"e([+-])0*(\d)", r"e\1\2", text).replace("-", "\u2212")


def test_tells_what_the_server_found(visit, page_file, points, job):
    assert page_file.stat().st_size < 3_000_000
    page = visit(page_file)
    assert page.locator("h1").inner_text() == "layer 1 neuron 3" and job in page.locator(".eyebrow").inner_text()
    rows = page.locator("#frontier tbody tr").all()
    assert [[cell.inner_text() for cell in row.locator("td.number").all()[1:]] for row in rows] == [[shown(p.target), shown(p.cross_entropy)] for p in points]
    assert page.locator("#figure-frontier .mark-symbol path").count() >= len(points)
    assert page.locator("#figure-evolution .mark-line path").count() == 5
    # A restart's line at iterations 1, 9 and 17.
    assert page.locator("#figure-thresholds .mark-rule.role-mark line").count() == 3
    assert page.locator("#figure-thresholds .mark-line path").count() >= 1
    assert page.locator(".strip").count() == len(points) and page.locator(".token").count() == len(points) * TOKENS
    facts = page.locator("#facts").inner_text()
    assert "phi-tiny" in facts and "24/24" in facts
    assert page.locator(".notice").count() == 0


def test_tooltip_on_hover_and_on_focus(visit, page_file, phi, stubs, job, points):
    page = visit(page_file)
    tip = page.locator("#tip")
    index, position = len(points) - 1, 2
    request = stubs.attribution.AttributeRequest(point=stubs.attribution.FrontierPoint(job=job, index=index))
    _, *parts = phi.stub.Attribute(request, timeout=60)
    ranked = sorted(parts[position].token.substitutes, key=lambda s: -s.target)
    wanted = [[shown(s.target), shown(s.cross_entropy)] for s in [*ranked[:3], ranked[-1]]]

    def told():
        return [[cell.inner_text() for cell in row.locator("td.number").all()] for row in tip.locator("tbody tr").all()]

    token = page.locator(".strip").nth(index).locator(".token").nth(position)
    token.scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    assert tip.is_hidden()
    token.hover()
    assert tip.is_visible() and told() == wanted
    assert tip.locator("tr.worst").count() == 1
    page.mouse.move(5, 5)
    assert tip.is_hidden()
    before = page.locator(".strip").nth(index).locator(".token").nth(position - 1)
    before.focus()
    page.keyboard.press("Tab")
    assert tip.is_visible() and told() == wanted and token.get_attribute("aria-describedby") == "tip"
    assert token.evaluate("node => getComputedStyle(node).outlineStyle") == "solid"
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    mark = page.locator("#figure-frontier .mark-symbol").nth(1).locator("path").first
    mark.scroll_into_view_if_needed()
    page.wait_for_timeout(200)
    mark.hover()
    assert tip.is_visible() and shown(points[0].target) in tip.inner_text()


def test_bars_are_the_drops(visit, page_file, phi, stubs, job, points):
    page = visit(page_file)
    drops = []
    for index in range(len(points)):
        request = stubs.attribution.AttributeRequest(point=stubs.attribution.FrontierPoint(job=job, index=index))
        drops += [part.token.drop_to_best for part in list(phi.stub.Attribute(request, timeout=60))[1:]]
    bars = page.locator(".bar").evaluate_all("nodes => nodes.map(n => [parseFloat(n.style.height), n.classList.contains('below')])")
    heights = [-height if below else height for height, below in bars]
    scale = max(heights, key=abs) / max(drops, key=abs)
    assert heights == pytest.approx([drop * scale for drop in drops], abs=0.02)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_the_drops_to_the_worst(visit, page_file, scheme):
    """Of a bar below the line, too."""
    def change(data):
        token = data["attribution"][0]["tokens"][0]
        data["attribution"] = [{"tokens": [{**token, "best": best, "worst": worst} for best, worst in [(1, 0), (1, 0.5), (1, 2), (-1, 0), (-1, 0.5), (-1, 2)]]}]
        data["frontier"] = data["frontier"][:1]

    page = visit(with_data(page_file, change), scheme=scheme)
    styles = page.locator(".bar").evaluate_all("nodes => nodes.map(n => getComputedStyle(n)).map(s => [s.backgroundColor, s.borderBottomStyle])")
    colours = [colour for colour, _ in styles]
    assert colours[:3] == colours[3:] and len(set(colours)) == 3
    assert [line for _, line in styles] == 3 * ["none"] + 3 * ["dashed"]


def test_sorting(visit, page_file, points):
    page = visit(page_file)
    header = page.locator("#frontier th", has_text="Target")
    column = lambda: [row.locator("td.number").nth(1).inner_text() for row in page.locator("#frontier tbody tr").all()]
    header.locator("button").click()
    down = [shown(v) for v in sorted((p.target for p in points), reverse=True)]
    assert header.get_attribute("aria-sort") == "descending" and column() == down
    header.locator("button").focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending" and column() == down[::-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_fits_and_can_be_read(visit, page_file, width, scheme):
    page = visit(page_file, width, scheme)
    page.locator("#figure-thresholds svg").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    contrast = """node => {
      const light = color => { const [r, g, b] = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const [a, b] = [light(getComputedStyle(node)[node.namespaceURI.endsWith('svg') ? 'fill' : 'color']), light(getComputedStyle(document.body).backgroundColor)];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); }"""
    for part in ("h1", ".lede", ".note", ".facts dt", "#figure-frontier .role-axis-label text", "th[aria-sort=ascending]"):
        assert page.locator(part).first.evaluate(contrast) >= 4.5, part
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == LIGHT) == (scheme == "light")


@pytest.mark.parametrize("width", [1280, 390])
def test_labels_do_not_collide(visit, page_file, width):
    """With many more prompts than there is room for."""
    def change(data):
        data["frontier"] = [
            {"text": f"a prompt of some length, number {i}", "target": (i * 7 % 10) / 10 + i / 20, "cross_entropy": 4 + i / 20, "round_trips": True} for i in range(40)
        ]
        data["attribution"] = None

    page = visit(with_data(page_file, change), width)
    marks = page.locator("#figure-frontier .mark-text.role-mark text")
    boxes = marks.evaluate_all(
        "nodes => nodes.filter(n => n.textContent && n.getAttribute('opacity') !== '0').map(n => { const b = n.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]; })")
    assert len(boxes) >= 5
    figure = page.locator("#figure-frontier svg").bounding_box()
    for i, a in enumerate(boxes):
        assert figure["x"] - 1 <= a[0] and a[2] <= figure["x"] + figure["width"] + 1
        for b in boxes[:i]:
            # Some pixels of the line's height may be shared: letters do not fill it.
            assert a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 4 or b[3] <= a[1] + 4, (a, b)


def test_prints_in_light(visit, page_file, tmp_path):
    page = visit(page_file, scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == LIGHT
    assert len(page.pdf(format="A4")) > 20_000


def test_hostile_prompts_stay_text(visit, cli, phi, stubs, tmp_path):
    tokens = len(phi.stub.Tokenize(stubs.service.TokenizeRequest(text=HOSTILE), timeout=30).tokens)
    job = run(phi, stubs, tokens=tokens, initial_prompts=[stubs.frontier.Prompt(text=HOSTILE)], iterations=3, top_k=8,
              constraints=stubs.constraints.Constraints(frozen_positions=range(tokens - 1)))
    path = tmp_path / "report.html"
    done = cli("report", job, "--out", path)
    assert done.returncode == 0, done.stderr
    page = visit(path)
    first = page.locator("#frontier tbody .prompt").first
    assert first.inner_text().startswith("</script><img src=x onerror='window.pwned=1'>\\x1b[31m\\n\\u{202e}א&am")
    assert first.get_attribute("dir") == "auto" and first.evaluate("node => node.tagName") == "BDI"
    assert page.locator("main img").count() == 0 and page.evaluate("window.pwned") is None
    svg = tmp_path / "frontier.svg"
    assert cli("report", job, "--out", svg).returncode == 0
    assert any("</script>" in (node.text or "") for node in xml.etree.ElementTree.parse(svg).iter())


def test_figures_as_files(cli, job, points, tmp_path):
    for figure, wanted in (("frontier", "target"), ("evolution", "iterations"), ("thresholds", "cross-entropy at most")):
        path = tmp_path / f"{figure}.svg"
        done = cli("report", job, "--out", path, "--figure", figure, "-o", "json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"file": str(path), "bytes": path.stat().st_size}
        assert "attributing" not in done.stderr
        texts = [node.text for node in xml.etree.ElementTree.parse(path).iter() if node.text]
        assert wanted in texts and "layer 1 neuron 3" in texts and job in texts
    path = tmp_path / "image"
    assert cli("report", job, "--out", path, "--format", "png").returncode == 0
    image = Image.open(path)
    assert image.format == "PNG" and image.width == 2 * 860 and len(image.convert("RGB").getcolors(1 << 24)) > 20


def test_png_without_its_program(cli, bin_dir, phi, job, tmp_path):
    path = tmp_path / "x.png"
    done = cli("report", job, "--out", path)
    assert done.returncode == 0
    path.unlink()
    done = subprocess.run([bin_dir / "epo", "report", job, "--out", path], env={"PATH": str(tmp_path), "HOME": str(tmp_path), "EPO_SERVER": phi.address},
                          capture_output=True, text=True)
    assert done.returncode == 2 and "librsvg2-bin" in done.stderr and not os.listdir(tmp_path)


def test_thresholds_are_the_best_so_far(cli, phi, stubs, visit, job, tmp_path):
    path = tmp_path / "report.html"
    assert cli("report", job, "--out", path, "--no-attribution", "--thresholds", "6.1,6.3").returncode == 0
    page = visit(path)
    assert page.locator("#tokens").count() == 0
    data = json.loads(page.locator("#data").text_content())
    history = list(phi.stub.GetHistory(stubs.service.GetHistoryRequest(id=job), timeout=60))
    assert [t["limit"] for t in data["thresholds"]] == [6.1, 6.3]
    for threshold in data["thresholds"]:
        best, curve = None, []
        for step in history:
            under = [t for t, x in zip(step.target, step.cross_entropy) if x <= threshold["limit"]]
            if under and (best is None or max(under) > best):
                best = max(under)
                curve.append([step.index + 1, best])
        if curve and curve[-1][0] < len(history):
            curve.append([len(history), best])
        assert threshold["points"] == [[i, pytest.approx(t)] for i, t in curve]
    assert data["restarts"] == [1, 9, 17]


def test_a_job_of_one_step(cli, phi, stubs, tmp_path):
    path = tmp_path / "thresholds.svg"
    job = run(phi, stubs, iterations=1)
    assert cli("report", job, "--out", path, "--figure", "thresholds").returncode == 0
    nodes = list(xml.etree.ElementTree.parse(path).iter())
    texts = [node.text for node in nodes if node.text]
    assert {"1", "2"} <= set(texts) and "1.5" not in texts
    marks = [node for node in nodes if "mark-symbol role-mark" in node.get("class", "")]
    assert len(marks) == 1 and len(list(marks[0])) >= 1


def test_compare(visit, cli, phi, stubs, job, points, tmp_path):
    second = run(phi, stubs, seed=5)
    path = tmp_path / "compared.html"
    done = cli("report", "--compare", job, second, "--out", path)
    assert done.returncode == 0, done.stderr
    page = visit(path)
    others = phi.stub.GetFrontier(stubs.service.GetFrontierRequest(id=second), timeout=60).points
    assert page.locator("#prompts tbody tr").count() == len(points) + len(others)
    assert page.locator("#figure-overlay .mark-line path").count() == 2
    assert page.locator(".notice").count() == 0
    third = run(phi, stubs, objective=neuron(stubs, 4))
    assert cli("report", "--compare", job, third, "--out", path).returncode == 0
    assert "Different objectives." in visit(path).locator(".notice").inner_text()
    svg = tmp_path / "compared.svg"
    assert cli("report", "--compare", job, third, "--out", svg).returncode == 0
    texts = [node.text for node in xml.etree.ElementTree.parse(svg).iter() if node.text]
    assert {f"{job}, seed 0, layer 1 neuron 3", f"{third}, seed 0, layer 1 neuron 4"} <= set(texts)


def test_sweep(visit, cli, phi, stubs, tmp_path):
    spec = stubs.sweep.SweepSpec(
        job=stubs.job.JobSpec(tokens=TOKENS, population=3, children_per_parent=4, top_k=32, iterations=5),
        neurons=[stubs.sweep.NeuronRange(layer=1, first=0, last=4)], seeds=[0, 2**63 + 1])
    sweep = phi.stub.CreateSweep(stubs.service.CreateSweepRequest(spec=spec), timeout=60).id
    assert cli("wait", sweep).returncode == 0
    frontiers = list(phi.stub.GetSweepFrontier(stubs.service.GetSweepFrontierRequest(id=sweep), timeout=60))
    linked = frontiers[0].points[0].job
    assert cli("report", linked, "--out", tmp_path / f"{linked}.html", "--no-attribution").returncode == 0
    path = tmp_path / "sweep.html"
    done = cli("report", sweep, "--out", path)
    assert done.returncode == 0, done.stderr
    page = visit(path)
    page.locator(".grid svg").nth(4).wait_for()
    assert page.locator(".grid li").count() == 5 and page.locator(".grid svg").count() == 5
    assert page.locator("#prompts tbody tr").count() == sum(len(f.points) for f in frontiers)
    assert {a.get_attribute("href") for a in page.locator("#prompts td a").all()} == {f"{linked}.html"}
    for link in page.locator(".grid h3 a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    seeds = {str(p.seed) for f in frontiers for p in f.points}
    assert seeds <= set(" ".join(page.locator("#prompts tbody").all_inner_texts()).split())
    assert cli("report", sweep, "--out", tmp_path / "sweep.svg").returncode == 2


def test_a_sweep_under_way(visit, server, root, cli, stubs, tmp_path):
    busy = server(root / "tests/parity/phi-tiny", "--max-concurrent-jobs", 1)
    spec = stubs.sweep.SweepSpec(
        job=stubs.job.JobSpec(tokens=TOKENS, population=3, children_per_parent=4, top_k=32, iterations=1_000_000), neurons=[stubs.sweep.NeuronRange(layer=1, first=0, last=1)])
    sweep = busy.stub.CreateSweep(stubs.service.CreateSweepRequest(spec=spec), timeout=60).id
    path = tmp_path / "sweep.html"
    for _ in range(100):
        done = cli("report", sweep, "--out", path, server=busy)
        if done.returncode != 8:
            break
    assert done.returncode == 0 and f"a partial report: 0 of 2 jobs of {sweep} have ended" in done.stderr
    page = visit(path)
    assert page.locator(".grid h3").all_inner_texts() == ["layer 1 neuron 0", "layer 1 neuron 1"]
    # What has nothing scored has no table to go to.
    assert [a.get_attribute("href") for a in page.locator(".grid h3 a").all()] == ["#objective-0"]


def test_jobs_that_have_not_ended(server, root, cli, stubs, visit, tmp_path):
    busy = server(root / "tests/parity/phi-tiny", "--max-concurrent-jobs", 1)
    running = start(busy, stubs, iterations=1_000_000)
    waiting = start(busy, stubs)
    for response in busy.stub.WatchJob(stubs.service.WatchJobRequest(id=running), timeout=120):
        if response.step.index >= 12:
            break
    path = tmp_path / "report.html"
    done = cli("report", waiting, "--out", path, server=busy)
    assert done.returncode == 8 and "has no steps yet" in done.stderr and not path.exists()
    done = cli("report", running, "--out", path, server=busy)
    assert done.returncode == 0 and "a partial report: " in done.stderr
    notice = visit(path).locator(".notice").inner_text()
    assert notice.startswith("Partial report. The job was RUNNING after ")
    svg = tmp_path / "frontier.svg"
    assert cli("report", running, "--out", svg, server=busy).returncode == 0
    assert re.search(rf">{running} \(\d+ of 1000000 iterations\)<", svg.read_text())
    done = cli("cancel", waiting, server=busy)
    done = cli("report", waiting, "--out", path, server=busy)
    assert done.returncode == 3 and "nothing to report" in done.stderr
    second = start(busy, stubs, iterations=1_000_000, seed=1)
    assert cli("pause", running, server=busy).returncode == 0
    for response in busy.stub.WatchJob(stubs.service.WatchJobRequest(id=second), timeout=120):
        if response.step.index >= 2:
            break
    done = cli("report", "--compare", running, second, "--out", path, server=busy)
    assert done.returncode == 0
    assert f"a partial report: {running} is PAUSED after " in done.stderr and f"a partial report: {second} is RUNNING after " in done.stderr
    notices = visit(path).locator(".notice").all_inner_texts()
    assert [notice.split(" was ")[0] for notice in notices] == [f"Partial report. Job {running}", f"Partial report. Job {second}"]
    assert cli("cancel", second, server=busy).returncode == 0
    assert cli("cancel", running, server=busy).returncode == 0


def test_what_cannot_be_asked(cli, job, phi, stubs, tmp_path):
    path = tmp_path / "report.html"
    path.write_text("before")
    deleted = run(phi, stubs, iterations=2)
    assert cli("delete", deleted).returncode == 0
    for unknown in (deleted, "jnone", "sweep-none"):
        done = cli("report", unknown, "--out", path)
        assert done.returncode == 69 and unknown in done.stderr
    for args, hint in [
        ([job], "--out"), ([job, job, "--out", path], "--compare"), ([job, "--compare", "--out", path], "2 to 8"),
        ([job, "--out", path, "--figure", "evolution"], "svg or png"), ([job, "--out", path, "--format", "gif"], "html"),
        ([job, "--out", ""], "give the name of a file"), (["--compare", job, job, "--out", path], f"has {job} twice"),
        ([job, "--out", path, "--thresholds", "4,x"], "'x'"), ([job, "--out", path, "--thresholds", "1,2,3,4,5,6"], "at most 5"),
        (["--compare", job, "sweep-x", "--out", path], "not sweeps"),
    ]:
        done = cli("report", *args)
        assert done.returncode == 2 and hint in done.stderr, (args, done.stderr)
    done = cli("report", job, "--out", path, "--server", "127.0.0.1:1")
    assert done.returncode == 78, done.stderr
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["report.html"]


def test_files_that_cannot_be_written(cli, job, tmp_path):
    for path, why in [(tmp_path / "none/report.html", "No such file"), (tmp_path, "Is a directory"), ("/dev/null", "not a file")]:
        done = cli("report", job, "--out", path, "--format", "html")
        assert done.returncode == 2 and str(path) in done.stderr and why in done.stderr
        # Told before the model was asked for anything.
        assert "attributing" not in done.stderr
    assert not os.listdir(tmp_path)


def test_a_full_disk_leaves_nothing(bin_dir, phi, job, tmp_path):
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        pytest.skip("mounts a small file system, which only root may")
    folder = tmp_path / "small"
    folder.mkdir()
    script = f"mount -t tmpfs -o size=64k none {folder} && {bin_dir}/epo report {job} --no-attribution --out {folder}/report.html; echo $?; ls {folder}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "EPO_SERVER": phi.address},
                          capture_output=True, text=True)
    assert done.stdout.strip() == "2" and "No space left on device" in done.stderr


def test_a_link_stays_one(cli, job, tmp_path):
    target = tmp_path / "target.html"
    link = tmp_path / "link.html"
    link.symlink_to(target)
    assert cli("report", job, "--no-attribution", "--out", link).returncode == 0
    assert link.is_symlink() and target.read_text().startswith("<!doctype html>")
    umask = os.umask(0)
    os.umask(umask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~umask
