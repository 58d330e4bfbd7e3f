"""What machines can check in Dockerfile and deploy/ without an engine or a cluster: schemas, systemd's own checks, and that the files name
flags, variables, ports and secrets that exist."""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import sysconfig

import jsonschema
import kubernetes_validate
import pytest
import yaml

# Room for the end of the process behind the drain.
GRACE_SECONDS = 10


@pytest.fixture(scope="module")
def deploy(root):
    return root / "deploy"


@pytest.fixture(scope="module")
def check_dockerfile(deploy):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(deploy)
        patch.setattr(sys, "dont_write_bytecode", True)
        import check_dockerfile

        return check_dockerfile


@pytest.fixture(scope="module")
def server_help(bin_dir):
    return subprocess.run([bin_dir / "epo-server", "--help"], check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.fixture(scope="module")
def defaults(server_help):
    """{flag: default} of the built server."""
    return dict(re.findall(r"^  (--[\w-]+) [A-Z:]+=(\S+)", server_help, re.M))


@pytest.fixture(scope="module")
def ports(defaults):
    return {"grpc": int(defaults["--listen"].rpartition(":")[2]), "metrics": int(defaults["--metrics-listen"].rpartition(":")[2])}


@pytest.fixture(scope="module")
def image(root, check_dockerfile):
    """{INSTRUCTION: values} of the runtime stage."""
    found = {}
    for _, name, value in check_dockerfile.stages((root / "Dockerfile").read_text())["runtime"].steps:
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture(scope="module")
def compose(deploy):
    return yaml.safe_load((deploy / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def manifests(deploy):
    """{kind: object} of what kustomization.yaml lists."""
    folder = deploy / "kubernetes"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert sorted([*kustomization["resources"], "kustomization.yaml"]) == sorted(p.name for p in folder.iterdir())
    found = {name: list(yaml.safe_load_all((folder / name).read_text())) for name in kustomization["resources"]}
    objects = [one for several in found.values() for one in several]
    assert len({one["kind"] for one in objects}) == len(objects)
    return {"Kustomization": kustomization, **{one["kind"]: one for one in objects}}


@pytest.fixture(scope="module")
def pod(manifests):
    return manifests["StatefulSet"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (only,) = pod["containers"]
    return only


@pytest.fixture
def unit(deploy, bin_dir, tmp_path):
    """The unit's file, with the server where it is here."""
    text = (deploy / "systemd/epo-server.service").read_text()
    assert "ExecStart=/opt/epo/build/release/bin/epo-server " in text
    path = tmp_path / "epo-server.service"
    path.write_text(text.replace("/opt/epo/build/release/bin/", f"{bin_dir}/"))
    return path


def add_gpu(unit, deploy):
    folder = unit.with_name(f"{unit.name}.d")
    folder.mkdir()
    (folder / "gpu.conf").write_text((deploy / "systemd/gpu.conf").read_text())


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", "--no-pager", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def settings(text):
    """{name: [value]} of a unit or an environment file."""
    found = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
        found.setdefault(name, []).append(value)
    return found


def seconds(duration):
    (number, unit), = re.findall(r"^(\d+)(s|m)$", duration)
    return int(number) * {"s": 1, "m": 60}[unit]


# systemd


@pytest.mark.parametrize("gpu, exposure", [(False, 1.2), (True, 1.4)])
def test_the_unit_is_clean_and_hardened(unit, deploy, gpu, exposure):
    if gpu:
        add_gpu(unit, deploy)
    verified = analyze("verify", "--man=no", unit)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    security = analyze("security", "--offline=true", f"--threshold={round(exposure * 10)}", unit)
    assert security.returncode == 0, security.stdout
    assert f"{exposure} OK" in security.stdout, "lower the test's figure with the exposure"


def test_the_units_user_is_made(deploy):
    service = settings((deploy / "systemd/epo-server.service").read_text())
    made = subprocess.run(["systemd-sysusers", "--dry-run", "--root=/nonexistent", deploy / "systemd/epo.sysusers"],
                          capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr
    (user,) = re.findall(r"Creating user '(\w+)'", made.stdout + made.stderr)
    assert service["User"] == service["Group"] == [user]


def test_the_units_settings_fit(deploy, defaults):
    service = settings((deploy / "systemd/epo-server.service").read_text())
    sample = settings((deploy / "systemd/server.env").read_text())
    assert seconds(defaults["--drain-timeout"]) + GRACE_SECONDS <= int(service["TimeoutStopSec"][0])
    defined = {pair.partition("=")[0] for pair in service["Environment"][0].split()}
    assert defined == sample.keys() == set(re.findall(r"\$\{?(\w+)\}?", service["ExecStart"][0]))
    assert f"{service['StateDirectory'][0]} " in service["ExecStart"][0].partition("--state-dir %S/")[2]


# Compose


def test_compose_follows_its_schema(deploy):
    # check-jsonschema's copy; its code is not needed.
    schemas = pathlib.Path(sysconfig.get_paths()["purelib"]) / "check_jsonschema/builtin_schemas/vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())
    for path in sorted(deploy.glob("compose*.yaml")):
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"services": {"epo": {"comand": []}}}, schema)


def test_compose_names_what_is_there(root, deploy, compose, check_dockerfile):
    gpu = yaml.safe_load((deploy / "compose.gpu.yaml").read_text())
    assert gpu["services"].keys() <= compose["services"].keys()
    stages = check_dockerfile.stages((root / "Dockerfile").read_text())
    for name, service in [*compose["services"].items(), *gpu["services"].items()]:
        if "build" in service:
            assert service["build"]["target"] in stages and service["image"] == f"epo:{service['build']['target']}"
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{(\w+):\?[^}]*\}", r"/\1", volume).partition(":")[0]
            if source.startswith("."):
                assert (deploy / source).is_file(), volume
            else:
                assert source.startswith("/") or source in compose["volumes"], volume
        for config in service.get("configs", []):
            yaml.safe_load(compose["configs"][config["source"]]["content"])
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port} lets strangers in"


def test_compose_connects_its_services(deploy, compose, ports):
    content = {name: yaml.safe_load(config["content"]) for name, config in compose["configs"].items()}
    services = compose["services"]
    assert content["targets"] == [{"targets": [f"epo:{ports['metrics']}"]}]
    # The file that Prometheus' configuration asks for, beside it.
    (scrape,) = yaml.safe_load((deploy / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    (targets,) = [c["target"] for c in services["prometheus"]["configs"] if c["source"] == "targets"]
    assert pathlib.PurePosixPath(targets).name in scrape["file_sd_configs"][0]["files"]
    (datasource,) = content["datasource"]["datasources"]
    assert datasource["url"] == "http://prometheus:9090" and datasource["isDefault"] and datasource["type"] == "prometheus"
    (provider,) = content["dashboards"]["providers"]
    mounted = [volume.split(":")[1] for volume in services["grafana"]["volumes"] if "epo.json" in volume]
    assert [str(pathlib.PurePosixPath(path).parent) for path in mounted] == [provider["options"]["path"]]
    assert mounted == [services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]]
    assert services["epo"]["ports"] == [f"127.0.0.1:{ports['grpc']}:{ports['grpc']}"]


# Kubernetes

NAME = {"type": "object", "additionalProperties": False, "required": ["name"],
        "properties": {"name": {"type": "string"}, "labels": {"type": "object"}}}
# As far as they are used here: of https://github.com/prometheus-operator/prometheus-operator (monitoring.coreos.com_servicemonitors.yaml) and of
# https://github.com/kubernetes-sigs/kustomize (api/types/kustomization.go).
OTHER_SCHEMAS = {
    "ServiceMonitor": {
        "type": "object", "additionalProperties": False, "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": "monitoring.coreos.com/v1"}, "kind": {"const": "ServiceMonitor"}, "metadata": NAME,
            "spec": {"type": "object", "additionalProperties": False, "required": ["selector", "endpoints"], "properties": {
                "selector": {"type": "object", "additionalProperties": False,
                             "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}}},
                "endpoints": {"type": "array", "items": {"type": "object", "additionalProperties": False, "properties": {
                    "port": {"type": "string"}, "path": {"type": "string"},
                    "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}}}}}}}},
    "Kustomization": {
        "type": "object", "additionalProperties": False, "required": ["apiVersion", "kind"],
        "properties": {
            "apiVersion": {"const": "kustomize.config.k8s.io/v1beta1"}, "kind": {"const": "Kustomization"},
            "namespace": {"type": "string"}, "resources": {"type": "array", "items": {"type": "string"}},
            "images": {"type": "array", "items": {"type": "object", "additionalProperties": False, "required": ["name"], "properties": {
                "name": {"type": "string"}, "newName": {"type": "string"}, "newTag": {"type": "string"}}}}}},
}


def test_manifests_follow_their_schemas(manifests):
    for kind, manifest in manifests.items():
        if kind in OTHER_SCHEMAS:
            jsonschema.validate(manifest, OTHER_SCHEMAS[kind])
        else:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        broken = {**manifests["Service"], "spec": {**manifests["Service"]["spec"], "portz": []}}
        kubernetes_validate.validate(broken, kubernetes_validate.latest_version(), strict=True)


def test_manifests_fit_each_other(deploy, manifests, pod, container, ports):
    labels = manifests["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    service = manifests["Service"]
    assert service["spec"]["selector"] == labels == manifests["StatefulSet"]["spec"]["selector"]["matchLabels"]
    assert manifests["ServiceMonitor"]["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    assert manifests["StatefulSet"]["spec"]["serviceName"] == service["metadata"]["name"]
    named = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert named == ports == {port["targetPort"]: port["port"] for port in service["spec"]["ports"]}
    assert {port["name"] for port in service["spec"]["ports"]} >= {e["port"] for e in manifests["ServiceMonitor"]["spec"]["endpoints"]}
    # The operator calls a job what its service is called.
    assert f'job="{service["metadata"]["name"]}"' in (deploy / "prometheus/epo.rules.yml").read_text()
    claims = {claim["metadata"]["name"] for claim in manifests["StatefulSet"]["spec"]["volumeClaimTemplates"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys() | claims
    assert volumes["model"]["persistentVolumeClaim"]["claimName"] == manifests["PersistentVolumeClaim"]["metadata"]["name"]
    assert manifests["Namespace"]["metadata"]["name"] == manifests["Kustomization"]["namespace"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_pods_settings_fit_the_image(root, image, manifests, pod, container, defaults, check_dockerfile):
    assert image["USER"] == [f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    (entrypoint,) = map(json.loads, image["ENTRYPOINT"])
    assert {entrypoint[entrypoint.index("--model") + 1], entrypoint[entrypoint.index("--state-dir") + 1]} <= set(mounts)
    for argument in container["args"]:
        _, _, value = argument.partition("=")
        assert not value.startswith("/") or str(pathlib.PurePosixPath(value).parent) in mounts, argument
    assert pod["terminationGracePeriodSeconds"] >= seconds(defaults["--drain-timeout"]) + GRACE_SECONDS
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["exec"]["command"] == check_dockerfile.command(image["HEALTHCHECK"][0].partition("CMD ")[2], [])
    (used,) = manifests["Kustomization"]["images"]
    assert used["name"] == container["image"]
    assert used["newTag"] in check_dockerfile.stages((root / "Dockerfile").read_text())


# Dockerfile


def test_the_dockerfile_copies_what_is_there(root, check_dockerfile):
    stages = check_dockerfile.stages((root / "Dockerfile").read_text())
    ignored = check_dockerfile.copied(root / ".dockerignore")
    copied = set()
    for stage in stages.values():
        for number, name, value in stage.steps:
            if name == "COPY":
                source, paths, _ = check_dockerfile.copy_parts(value)
                assert source is None or source in stages, f"Dockerfile:{number}"
                copied.update(paths if source is None else [])
    assert copied == set(ignored) and all((root / path).exists() for path in copied)


def test_the_dockerfiles_check_reads_it_as_an_engine_does(check_dockerfile):
    assert check_dockerfile.instructions("RUN a \\\n# between\n  b\n\nUSER 1") == [(1, "RUN", "a   b"), (5, "USER", "1")]
    assert check_dockerfile.copy_parts("--from=build /a /b /to/") == ("build", ["/a", "/b"], "/to/")
    for text, problem in [
        ("FROM a AS b\nADD x y", "Dockerfile:2: ADD is not known"), ("FROM a", "Dockerfile:1: FROM a: expected FROM IMAGE AS NAME"),
        ("RUN x", "Dockerfile:1: RUN stands before FROM"), ("FROM a AS b\nRUN x \\", "Dockerfile:2: the last line is continued"),
    ]:
        with pytest.raises(check_dockerfile.Problem, match=re.escape(problem)):
            check_dockerfile.stages(text)


def test_images_are_pinned_and_ports_published(root, compose, image, ports, check_dockerfile):
    stages = check_dockerfile.stages((root / "Dockerfile").read_text())
    outside = {stage.base for stage in stages.values()} - stages.keys()
    outside |= {service["image"] for service in compose["services"].values() if "build" not in service}
    for name in outside:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", name), f"{name} names no version"
    assert {int(port) for port in image["EXPOSE"][0].split()} == set(ports.values())


# What all of them start


def test_flags_and_variables_exist(bin_dir, deploy, server_help, image, compose, container):
    flags = {
        "systemd/epo-server.service": settings((deploy / "systemd/epo-server.service").read_text())["ExecStart"][0],
        "systemd/server.env": (deploy / "systemd/server.env").read_text(),
        "Dockerfile": " ".join(json.loads(image["ENTRYPOINT"][0]) + json.loads(image["CMD"][0])),
        "compose.yaml": " ".join(compose["services"]["epo"]["command"]),
        "kubernetes": " ".join(container["args"]),
    }
    known = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", server_help))
    for where, text in flags.items():
        used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
        assert used and used <= known, f"{where}: epo-server has no {used - known}"
    client = subprocess.run([bin_dir / "epo", "info", "--help"], check=True, capture_output=True, text=True).stdout
    client += subprocess.run([bin_dir / "epo", "--help"], check=True, capture_output=True, text=True).stdout
    variables = {pair.partition("=")[0] for pair in shlex.split(image["ENV"][0])} | {entry["name"] for entry in container["env"]}
    for name in variables - {"PATH"}:
        assert re.search(rf"\b{name}\b", client), f"epo knows no {name}"


def test_what_the_container_runs_is_a_valid_command_line(bin_dir, root, image, compose, tmp_path):
    entrypoint = json.loads(image["ENTRYPOINT"][0])
    for arguments in (json.loads(image["CMD"][0]), compose["services"]["epo"]["command"]):
        line = [argument.replace("/state", str(tmp_path)) for argument in [*entrypoint[1:], *arguments]]
        # An address that cannot be listened on: the options are taken, and nothing is served.
        line = [argument.replace("0.0.0.0", "203.0.113.1") for argument in line]
        line[line.index("--model") + 1] = str(root / "tests/parity/phi-tiny")
        result = subprocess.run([bin_dir / "epo-server", *line], capture_output=True, text=True, timeout=60)
        assert result.returncode == 1 and "cannot listen on 203.0.113.1" in result.stderr, result.stderr


def test_compose_gives_a_drain_its_time(compose, defaults):
    assert seconds(compose["services"]["epo"]["stop_grace_period"]) >= seconds(defaults["--drain-timeout"]) + GRACE_SECONDS
