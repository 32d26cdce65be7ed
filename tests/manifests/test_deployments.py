"""compose.yaml and the files for Kubernetes: what they start serves, is probed where it answers, runs as in the image.

`make release-check` holds them against the schemas of both, since these are too large to be kept here.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from ruamel.yaml import YAML

from lium_mcp.settings_table import SETTINGS
from manifests.source import HERE, ROOT
from tests.http_server import serving

KUBERNETES, COMPOSE = HERE / "k8s", HERE / "compose"
BASE = KUBERNETES / "base"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
PARTS = sorted(KUBERNETES.rglob("kustomization.yaml"))
EVERY_ANSWER = "application/json, text/event-stream"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


def read(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def container() -> dict[str, Any]:
    [only] = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    return dict(only)


def composed() -> dict[str, Any]:
    """A server as compose starts it."""
    services = read(COMPOSE / "compose.yaml")["services"]
    return dict(services["lium-mcp-1"])


def assignments(lines: list[str]) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines)


def from_secrets() -> Iterator[str]:
    """The variables whose values come from a secret."""
    for part in PARTS:
        for patch in read(part).get("patches", []):
            for change in YAML(typ="safe").load(patch["patch"]):
                if change["path"].endswith("/env"):
                    for variable in change["value"]:
                        assert set(variable) == {"name", "valueFrom"}, "a secret is named, and no file has its value"
                        yield variable["name"]


def of_kubernetes(overlay: str) -> dict[str, str]:
    """The settings of a server of this overlay, but for those that come from a secret."""
    [generator] = read(KUBERNETES / "overlays" / overlay / "kustomization.yaml")["configMapGenerator"]
    return assignments((BASE / "settings.env").read_text().split()) | assignments(generator["literals"])


def of_compose(**given: str) -> dict[str, str]:
    """The settings of a server, with what whoever starts it has to say put in."""
    settings = composed()["environment"]

    def filled(value: str) -> str:
        return re.sub(r"\$\{(\w+):\?[^}]*\}", lambda name: given[name[1]], value)

    return {name: filled(value) for name, value in settings.items()}


DEPLOYED = {f"kubernetes, {overlay}": of_kubernetes(overlay) for overlay in OVERLAYS} | {
    "compose": of_compose(
        LIUM_MCP_ALLOWED_HOST="gpu.example.com", DATABASE_PASSWORD="hidden", LIUM_MCP_STATE_KEYS="s" * 32
    )
}


@pytest.mark.parametrize("settings", DEPLOYED.values(), ids=DEPLOYED)
def test_what_is_deployed_serves_and_is_ready_where_it_is_probed(settings: dict[str, str], tmp_path: Path) -> None:
    assert set(settings) <= {setting.variable for setting in SETTINGS.values()}
    # A database, and a port, that this machine has.
    own = {"LIUM_MCP_STATE_URL": f"sqlite:///{tmp_path}/rentals.db", "LIUM_MCP_METRICS_PORT": "0"}
    with serving(tmp_path, **settings | own) as served:
        address = f"http://127.0.0.1:{urlsplit(served.url).port}"
        for path in {container()[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")}:
            # Kubernetes asks a pod by its address, under which nobody else may call.
            answer = httpx2.get(f"{address}{path}", headers={"Host": "10.1.2.3:8000"}, trust_env=False)
            assert answer.status_code == 200, path
        for host, status in ((settings["LIUM_MCP_ALLOWED_HOST"], 200), ("10.1.2.3:8000", 421)):
            headers = {"Host": host, "Accept": EVERY_ANSWER}
            answer = httpx2.post(f"{address}/mcp", json=INITIALIZE, headers=headers, trust_env=False)
            assert answer.status_code == status, host


def test_the_ports_that_are_named_are_those_that_it_listens_at() -> None:
    settings = of_kubernetes("production")
    ports = {port["name"]: str(port["containerPort"]) for port in container()["ports"]}
    assert ports == {"http": settings["LIUM_MCP_PORT"], "metrics": settings["LIUM_MCP_METRICS_PORT"]}


def test_what_comes_from_a_secret_is_a_setting_that_is_one() -> None:
    named = set(from_secrets())
    assert named
    assert named <= {setting.variable for setting in SETTINGS.values()}
    everywhere = "".join(path.read_text() for path in KUBERNETES.rglob("*.*"))
    assert "postgresql://" not in everywhere


def test_it_runs_as_the_user_of_the_image_and_writes_where_the_image_does() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    [user, group] = re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE)[0]
    pod = read(BASE / "deployment.yaml")["spec"]["template"]["spec"]
    security = pod["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (int(user), int(group), int(group))
    [home] = re.findall(r'^VOLUME \["(.*)"\]$', dockerfile, re.MULTILINE)
    written = {mount["mountPath"] for mount in container()["volumeMounts"]}
    assert written == {home, "/tmp"}  # noqa: S108 - in the container
    tmpfs = {mount.partition(":")[0] for mount in composed()["tmpfs"]}
    assert tmpfs == written


def test_the_proxy_knows_the_servers_of_compose_and_their_sessions() -> None:
    services = read(COMPOSE / "compose.yaml")["services"]
    servers = {name for name, service in services.items() if service.get("hostname")}
    assert {services[name]["hostname"] for name in servers} == servers
    caddyfile = (COMPOSE / "Caddyfile").read_text()
    [shared] = re.findall(r"^\treverse_proxy ([^@].*) \{$", caddyfile, re.MULTILINE)
    port = composed()["environment"]["LIUM_MCP_PORT"]
    assert set(shared.split()) == {f"{name}:{port}" for name in servers}
    for name in servers:
        [matcher] = re.findall(
            rf"(@\w+) `header\(\{{'Mcp-Session-Id': '{name}\.\*'\}}\) \|\| path\('/messages/{name}/\*'\)`", caddyfile
        )
        [others] = [f"{other}:{port}" for other in servers - {name}]
        assert f"\treverse_proxy {matcher} {name}:{port} {others} {{\n" in caddyfile


def test_who_stops_it_waits_longer_than_it_takes_to_end_what_is_under_way() -> None:
    pod, server = read(BASE / "deployment.yaml")["spec"]["template"]["spec"], composed()
    for waits, settings in (
        (pod["terminationGracePeriodSeconds"], assignments((BASE / "settings.env").read_text().split())),
        (int(server["stop_grace_period"].removesuffix("s")), server["environment"]),
    ):
        delay, drain = (float(settings[f"LIUM_MCP_{name}_SECONDS"]) for name in ("SHUTDOWN_DELAY", "DRAIN"))
        # Services and proxies still send it calls for a moment after it was told to stop.
        assert delay >= 5
        assert waits > delay + drain + 5


@pytest.mark.parametrize("part", PARTS, ids=lambda path: path.parent.name)
def test_kustomize_finds_what_a_part_names(part: Path) -> None:
    named = read(part)
    for path in [*named.get("resources", []), *named.get("components", [])]:
        found = part.parent / path
        assert found.is_file() or (found / "kustomization.yaml").is_file(), path
    if part.parent == BASE:
        assert set(named["resources"]) == {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}


def test_everything_selects_the_servers_and_nothing_else() -> None:
    """An empty selector would take every pod of the namespace."""
    labels = read(BASE / "deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert labels
    assert read(BASE / "deployment.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert read(BASE / "pdb.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert read(BASE / "networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"] == labels
    assert read(BASE / "service.yaml")["spec"]["selector"] == labels
