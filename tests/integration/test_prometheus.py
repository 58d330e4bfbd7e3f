"""What deploy/prometheus and deploy/grafana say of a server, against a live server and a real Prometheus."""

import json
import math
import re
import subprocess
import time
import types
import urllib.parse
import urllib.request

import pytest
import yaml

from tests.conftest import free_port

# Labels that Prometheus adds to each series.
ADDED = {"job", "instance"}


@pytest.fixture(scope="module")
def deploy(root):
    return root / "deploy"


@pytest.fixture(scope="module")
def dashboard(deploy):
    return json.loads((deploy / "grafana/epo.json").read_text())


@pytest.fixture(scope="module")
def alerts(deploy):
    rules = yaml.safe_load((deploy / "prometheus/epo.rules.yml").read_text())
    return {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions(dashboard, alerts):
    """{where it stands: PromQL} of every panel and alert."""
    found = {f"alert {name}": rule["expr"] for name, rule in alerts.items()}
    for panel in panels(dashboard):
        for target in panel["targets"]:
            found[f"panel {panel['title']} {panel['id']}{target['refId']}"] = target["expr"]
    return found


@pytest.fixture(scope="module")
def live(root, bin_dir, stubs, module_server, tmp_path_factory):
    """A server with two pretended GPUs and a job with a watcher, and a Prometheus that scrapes it once a second."""
    folder = tmp_path_factory.mktemp("prometheus")
    library = folder / "lib/libnvidia-ml.so.1"
    library.parent.mkdir()
    subprocess.run(["g++", "-xc", "-shared", "-fPIC", "-o", library, root / "tests/integration/fake_nvml.c"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LD_LIBRARY_PATH", str(library.parent))
        running = module_server(root / "tests/parity/phi-tiny")
    address = re.search(r"metrics on http://(\S+)/metrics", running.log())[1]
    config = (root / "deploy/prometheus/prometheus.yml").read_text()
    for path in (root / "deploy/prometheus").glob("*.yml"):
        (folder / path.name).write_text(path.read_text().replace("localhost:9464", address))
    assert address in (folder / "targets.yml").read_text()
    assert config.count("_interval: 15s") == 2
    (folder / "prometheus.yml").write_text(config.replace("_interval: 15s", "_interval: 1s"))
    port = free_port()
    with open(folder / "log", "w") as log:
        prometheus = subprocess.Popen(
            ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
             f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    live = types.SimpleNamespace(server=running, metrics=f"http://{address}/metrics", prometheus=f"http://127.0.0.1:{port}")
    try:
        # What comes later has an increase.
        wait_until(lambda: query(live, "epo_ready"))
        objective = stubs.objective.Objective(neuron=stubs.objective.NeuronObjective(layer=2, neuron=5))
        sizes = {"population": 2, "children_per_parent": 4, "top_k": 16, "tokens": 6}
        create = running.stub.CreateJob
        spec = stubs.job.JobSpec(objective=objective, iterations=1_000_000, **sizes)
        job = create(stubs.service.CreateJobRequest(spec=spec))
        stream = running.stub.WatchJob(stubs.service.WatchJobRequest(id=job.id))
        next(update for update in stream if update.sequence == 2)
        short = create(stubs.service.CreateJobRequest(spec=stubs.job.JobSpec(objective=objective, iterations=2, **sizes)))
        list(running.stub.WatchJob(stubs.service.WatchJobRequest(id=short.id)))
        live.job = job
        yield live
        stream.cancel()
    finally:
        prometheus.terminate()
        prometheus.wait(30)


def api(live, path, **parameters):
    url = f"{live.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            return json.load(reply)["data"]
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{parameters}: {error.read().decode()}") from error


def query(live, expression):
    return api(live, "query", query=expression)["result"]


def wait_until(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while True:
        try:
            if result := condition():
                return result
        except (OSError, AssertionError):
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.2)


def exported(live):
    """{metric: names of its labels} as the server exports them."""
    with urllib.request.urlopen(live.metrics, timeout=30) as reply:
        text = reply.read().decode()
    found = {}
    for name, labels in re.findall(r"^(epo_\w+)(?:\{(.*)\})? ", text, re.M):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return found


def test_panels_and_alerts_name_what_a_live_server_exports(live, dashboard, alerts):
    names = exported(live)
    used = set()
    for where, expression in expressions(dashboard, alerts).items():
        here = re.findall(r"\bepo_\w+", expression)
        assert here or where == "alert EpoDown"
        unknown = set(here) - names.keys()
        assert not unknown, f"{where}: no server exports {unknown}"
        # Labels of each selector, and those that the whole expression groups by.
        for name, matchers in re.findall(r"\b(epo_\w+)\{([^}]*)\}", expression):
            labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)) - ADDED
            assert labels <= names[name], f"{where}: {name} has no label {labels - names[name]}"
        for group in re.findall(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)", expression):
            labels = {label.strip() for label in group.split(",") if label.strip()} - ADDED
            assert labels <= set().union(*(names[name] for name in here)), f"{where}: {labels}"
        used.update(here)
    # And what is exported is shown, save for what explains itself.
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    hidden = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names} - shown
    assert hidden == {"epo_prompts_prepared_total"}


def test_prometheus_gathers_and_answers(live, alerts):
    wait_until(lambda: [t["health"] for t in api(live, "targets")["activeTargets"]] == ["up"])
    assert float(query(live, 'up{job="epo"}')[0]["value"][1]) == 1
    first = wait_until(lambda: float(query(live, "epo_steps_total")[0]["value"][1]))
    wait_until(lambda: float(query(live, "epo_steps_total")[0]["value"][1]) > first)
    (running,) = query(live, 'epo_jobs{state="running"}')
    assert running["value"][1] == "1" and running["metric"]["job"] == "epo"
    assert not [m for series in query(live, '{__name__=~"epo_.*"}') for m in series["metric"].values() if live.job.id in m]
    assert [s["value"][1] for s in query(live, "epo_device_memory_used_bytes")] == ["10000000000", "20000000000"]
    assert [(s["metric"]["uuid"], s["value"][1]) for s in query(live, "epo_device_utilization_ratio")] == [("GPU-1", "0.75")]

    def evaluated():
        rules = [rule for group in api(live, "rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = wait_until(evaluated)
    assert {rule["name"] for rule in rules} == alerts.keys()
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_every_panel_shows_something(live, dashboard):
    wait_until(lambda: float(query(live, "min(count_over_time(epo_steps_total[10s]))")[0]["value"][1]) >= 4)
    empty = set()
    for panel in panels(dashboard):
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m").replace("$job", "epo").replace("$instance", ".*")
            assert "$" not in expression, expression
            result = query(live, expression)
            values = [float(sample["value"][1]) for sample in result]
            # A quantile of nothing is not a number.
            if not result or all(math.isnan(value) for value in values):
                empty.add(panel["title"])
    assert empty == set()


def test_dashboard(dashboard):
    by_type = [panel["type"] for panel in dashboard["panels"]]
    assert by_type[:4] == ["stat", "stat", "stat", "row"] and by_type.count("stat") == 3
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["Throughput", "Queue", "Latency", "Streams", "Store", "Device and process"]
    assert by_type.count("heatmap") >= 3
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    for panel in panels(dashboard):
        assert panel["datasource"]["uid"] == "${datasource}" and panel["targets"], panel["title"]
        for target in panel["targets"]:
            assert 'job=~"$job", instance=~"$instance"' in target["expr"], panel["title"]


@pytest.mark.parametrize("command", [("check", "config", "prometheus.yml"), ("check", "rules", "epo.rules.yml"),
                                     ("test", "rules", "epo.rules.test.yml")])
def test_promtool(deploy, command):
    checked = subprocess.run(["promtool", *command], cwd=deploy / "prometheus", text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_is_tested_and_explained(root, deploy, alerts):
    tests = yaml.safe_load((deploy / "prometheus/epo.rules.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == alerts.keys()
    text = (root / "docs/operations.md").read_text()
    assert {name for name in alerts if f"| `{name}` |" not in text} == set()


def test_every_metric_is_explained(root, live):
    text = (root / "docs/operations.md").read_text()
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported(live)}
    documented = set(re.findall(r"^\| `(epo_\w+)` \|", text, re.M))
    assert names == documented
