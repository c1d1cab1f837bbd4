"""Files for clusters: what they say is what the server takes."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.server.settings import ServeConfig
from tokenlm.checkpoint import packaged_configs
from tokenlm.config import ConfigError, load_config

FOLDER = Path(__file__).resolve().parents[3] / "inference" / "server" / "deploy"
CHART = FOLDER / "helm"
TEMPLATES = sorted((CHART / "templates").glob("*.yaml"))


def server_of(settings: list[str]) -> ServeConfig:
    return load_config(ServeConfig, packaged_configs() / "serve" / "default.yaml", settings)


def read(path: Path) -> list[Any]:
    return [*yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def values() -> dict[str, Any]:
    (found,) = read(CHART / "values.yaml")
    return found


def test_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    (said,) = read(FOLDER / "ray.yaml")
    (speech,) = said["applications"]
    module, _, name = speech["import_path"].partition(":")
    assert (module, name) == ("inference.server.replicas", "application")
    assert server_of(speech["args"]["settings"]).limits.max_streams == 8
    from inference.server.replicas import application

    # It listens at every network, so that keys are not left out by mistake.
    monkeypatch.delenv("TOKENLM_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="no API keys"):
        application(speech["args"])
    monkeypatch.setenv("TOKENLM_API_KEY", "one")
    deployment = application(speech["args"])._bound_deployment  # type: ignore[attr-defined]
    assert deployment._deployment_config.autoscaling_config.max_replicas == 8


def test_kserve() -> None:
    service, runtime = read(FOLDER / "kserve.yaml")
    model = service["spec"]["predictor"]["model"]
    assert (service["kind"], runtime["kind"]) == ("InferenceService", "ServingRuntime")
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["modelFormat"]["name"] in [
        part["name"] for part in runtime["spec"]["supportedModelFormats"]
    ]
    (container,) = runtime["spec"]["containers"]
    assert container["name"] == "kserve-container"  # the name that KServe looks for
    check_options(container["args"])
    assert service["spec"]["predictor"]["timeout"] >= server_of([]).limits.stream_timeout_seconds
    check_volumes(container, runtime["spec"]["volumes"])


def check_options(arguments: list[str]) -> None:
    """All of them are options of `tokenlm serve`."""
    import typer

    from inference.commands.serve import serve

    app = typer.Typer()
    app.command()(serve)
    known = {name for p in typer.main.get_command(app).params for name in p.opts}
    for argument in arguments:
        if argument.startswith("--"):
            assert argument.partition("=")[0] in known, argument


def check_volumes(container: dict[str, Any], volumes: list[dict[str, Any]]) -> None:
    names = {volume["name"] for volume in volumes}
    assert {mount["name"] for mount in container["volumeMounts"]} <= names


def test_chart_is_complete() -> None:
    (chart,) = read(CHART / "Chart.yaml")
    assert chart["apiVersion"] == "v2" and {"name", "version", "type"} <= chart.keys()
    assert server_of(values()["settings"]).limits.max_streams == 8
    assert {path.stem for path in TEMPLATES} == {"autoscaler", "deployment", "service", "voices"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_read_values_that_there_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for reference in re.findall(r"\.Values((?:\.\w+)+)", text):
        found: Any = values()
        for name in reference[1:].split("."):
            assert name in found, f"{path.name}: .Values{reference}"
            found = found[name]
    opened = len(re.findall(r"{{-? (?:if|range|with)\b", text))
    assert opened == len(re.findall(r"{{-? end\b", text))
    assert text.count("{{") == text.count("}}")


def test_the_rendered_deployment() -> None:
    """With the few constructs of the template resolved by hand, it is what Kubernetes takes."""
    text = (CHART / "templates" / "deployment.yaml").read_text(encoding="utf-8")
    text = text.replace("{{- toYaml .Values.resources | nindent 12 }}", "{}")
    text = re.sub(r"\n *{{-.*}}", "", text)  # conditions hold, lists have one entry
    text = re.sub(r'"{{[^}]*}}:{{[^}]*}}"', "image", text)
    text = re.sub(r"{{ \S+ \| quote }}", '"quoted"', text)
    text = re.sub(r"{{[^}]*}}", "1", text)
    pod = yaml.safe_load(text)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    check_options(container["args"])
    check_volumes(container, pod["volumes"])
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    assert container["ports"][0]["containerPort"] == 8000


@pytest.mark.skipif(shutil.which("helm") is None, reason="helm is not installed")
def test_helm_lint() -> None:
    scaled = ("--set", "autoscaling.enabled=true", "--set", "keys.secret=tokenlm")
    for more in (
        (),
        (*scaled, "--set", "autoscaling.cpuPercent=60"),
        (*scaled, "--set", "autoscaling.scrapedWithKey=true"),
    ):
        subprocess.run(["helm", "lint", "--strict", *more, str(CHART)], check=True)
        subprocess.run(["helm", "template", "speech", *more, str(CHART)], check=True)
    refused = subprocess.run(
        ["helm", "template", "speech", *scaled, str(CHART)], capture_output=True, text=True
    )
    assert refused.returncode != 0 and "autoscaling.cpuPercent" in refused.stderr


def test_the_autoscaler_is_not_made_blind_by_keys() -> None:
    """Without Helm: the template refuses keys unless what it scales by can be read."""
    text = (CHART / "templates" / "autoscaler.yaml").read_text(encoding="utf-8")
    condition, _, rest = text.partition('{{- fail "')
    message = rest.partition('"')[0]
    assert condition.splitlines()[-1].strip() == (
        "{{- if and .Values.keys.secret"
        " (not (or .Values.autoscaling.cpuPercent .Values.autoscaling.scrapedWithKey)) }}"
    )
    for name in ("cpuPercent", "scrapedWithKey"):
        assert f"autoscaling.{name}" in message and not values()["autoscaling"][name]
