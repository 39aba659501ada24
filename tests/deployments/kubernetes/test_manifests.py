"""The manifests are what Kubernetes takes, keep what they promise, and their command is one that runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.engine.context.shared.bucket import EXTRAS
from flows.engine.context.shared.state import is_address
from infrastructure.targets.target_file import load_targets
from infrastructure.workspace import workspace_at
from tests.support.prefect_api import SetUpTarget

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "deployments" / "kubernetes"
KUSTOMIZATIONS = ("job/overlays/dev", "job/overlays/prod", "job/overlays/workspace", "worker", "process-workers")
# From the oldest that clouds still run to the newest whose schemas the validator carries.
VERSIONS = ("1.29", "1.31", "1.33", "1.35", "1.37")
# Where the image has HOME, Prefect's folder and the state.
_HOME, _STATE = "/var/lib/tributary", "TRIBUTARY_STATE"
_VARIABLE = re.compile(r"\$\((\w+)\)")

Object = dict[str, Any]


def kustomized(folder: str) -> list[Object]:
    """Return the objects that `kubectl apply -k` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which has kustomize in it")
    built = subprocess.run(["kubectl", "kustomize", str(FOLDER / folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return [document for document in yaml.safe_load_all(built.stdout) if document]


def written() -> Iterator[tuple[Path, Object]]:
    """Yield the objects as they are in the files, before kustomize."""
    for path in sorted(FOLDER.rglob("*.yaml")):
        if path.name != "kustomization.yaml" and path.parent.name != "helm":
            for document in yaml.safe_load_all(path.read_text()):
                yield path, document


def pod_of(document: Object) -> Object | None:
    """Return the pod that an object makes; None when it makes none."""
    spec = document.get("spec") or {}
    spec = spec["jobTemplate"]["spec"] if document["kind"] == "CronJob" else spec
    return spec["template"]["spec"] if "template" in spec else None


def named(kind: str, name: str = "tributary") -> Object:
    return next(found for _, found in written() if found["kind"] == kind and found["metadata"].get("name") == name)


def job_of_a_flow_run() -> Object:
    """Return the job that a worker makes of the base job template with its defaults."""
    from prefect.utilities.templating import apply_values

    template = json.loads((FOLDER / "worker" / "base-job-template.json").read_text())
    variables = template["variables"]["properties"]
    values = {name: about["default"] for name, about in variables.items() if "default" in about}
    # What the worker itself puts in, each as it would.
    values |= {"name": "a-run", "labels": {"prefect.io/flow-run-name": "a-run"}, "command": ["prefect", "flow-run"]}
    values["env"] = [{"name": "PREFECT__FLOW_RUN_ID", "value": "1"}]
    wanted = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert wanted == set(variables)
    rendered = apply_values(template["job_configuration"], values, remove_notset=True)
    return rendered["job_manifest"]  # type: ignore[index]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_the_api_takes(version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs: uv sync --group kubernetes")
    documents = [document for folder in KUSTOMIZATIONS for document in kustomized(folder)]
    documents += [document for _, document in written()] + [job_of_a_flow_run()]
    for document in documents:
        validate.validate(document, version, strict=True)


@pytest.mark.parametrize("folder", ["job/overlays/dev", "job/overlays/prod"])
def test_an_overlay_puts_everything_into_its_namespace_and_names_the_image(folder: str) -> None:
    objects = kustomized(folder)
    kinds = {"ServiceAccount", "ConfigMap", "CronJob", "NetworkPolicy", "PersistentVolumeClaim"}
    assert {found["kind"] for found in objects} == kinds - (
        {"PersistentVolumeClaim"} if folder.endswith("prod") else set()
    )
    assert {found["metadata"]["namespace"] for found in objects} == {f"tributary-{folder.rpartition('/')[2]}"}
    cron_job = next(found for found in objects if found["kind"] == "CronJob")
    (container,) = (pod_of(cron_job) or {})["containers"]
    assert re.fullmatch(r"registry\.example\.org/tributary:\S+", container["image"])
    assert cron_job["spec"].get("suspend", False) is (folder == "job/overlays/dev")


def test_the_scheduled_run_never_meets_itself_and_always_ends() -> None:
    spec = named("CronJob")["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == ("0 */6 * * *", "Etc/UTC", "Forbid")
    job = spec["jobTemplate"]["spec"]
    asked_to_end = 60 * float(named("ConfigMap")["data"]["TRIBUTARY_RUN_MINUTES"])
    assert asked_to_end + 120 <= job["activeDeadlineSeconds"] < 6 * 3600
    (container,) = job["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "250m", "memory": "256Mi"},
        "limits": {"cpu": "500m", "memory": "512Mi"},
    }


def test_no_pod_has_more_rights_than_it_needs() -> None:
    pods = [(str(path), pod) for path, document in written() if (pod := pod_of(document))]
    pods.append(("base job template", job_of_a_flow_run()["spec"]["template"]["spec"]))
    assert len(pods) == 5
    for where, pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True, where
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert "memory" in container["resources"]["limits"], where
            # Whatever it writes goes to a volume.
            mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}, where
            assert "/tmp" in mounts.values(), where


def test_what_a_pod_refers_to_is_there() -> None:
    there = {(found["kind"], found["metadata"].get("name")) for _, found in written()}
    for path, document in written():
        pod = pod_of(document)
        if pod is None:
            continue
        assert ("ServiceAccount", pod["serviceAccountName"]) in there, path
        for container in pod["containers"]:
            known = {entry["name"] for entry in container.get("env", ())}
            for source in container.get("envFrom", ()):
                kind, field = ("ConfigMap", "data") if "configMapRef" in source else ("Secret", "stringData")
                known |= named(kind, next(iter(source.values()))["name"])[field].keys()
            words = [*container["command"], *container["args"]]
            assert {name for word in words for name in _VARIABLE.findall(word)} <= known, path


def settings_in(objects: list[Object]) -> dict[str, str]:
    return next(
        found["data"] for found in objects if found["kind"] == "ConfigMap" and found["metadata"]["name"] == "tributary"
    )


def where_state_is(pod: Object, beside: list[Object]) -> str:
    """Return the address that a pod is given, or the claim that it mounts where the image has its state."""
    (container,) = pod["containers"]
    (volume,) = (
        volume
        for mount in container["volumeMounts"]
        for volume in pod["volumes"]
        if mount["mountPath"] == _HOME and volume["name"] == mount["name"]
    )
    if "persistentVolumeClaim" in volume:
        claim = volume["persistentVolumeClaim"]["claimName"]
        assert ("PersistentVolumeClaim", claim) in {(found["kind"], found["metadata"]["name"]) for found in beside}
        return claim
    assert {"configMapRef": {"name": "tributary"}} in container["envFrom"]
    settings = settings_in(beside)
    address = settings[_STATE]
    assert is_address(address)
    return address


def test_what_a_run_leaves_outlives_its_pod() -> None:
    by_folder = {folder: kustomized(folder) for folder in KUSTOMIZATIONS}
    prod = by_folder["job/overlays/prod"]
    found = {
        folder: where_state_is(pod, objects if folder.startswith("job") else prod)
        for folder, objects in by_folder.items()
        for document in objects
        if (pod := pod_of(document)) and document["metadata"]["name"] != "prefect-worker"
    }
    by_hand = next(document for path, document in written() if path.name == "by-hand.yaml")
    found["by hand"] = where_state_is(pod_of(by_hand) or {}, prod)
    found["a flow run's job"] = where_state_is(job_of_a_flow_run()["spec"]["template"]["spec"], prod)

    address = found.pop("job/overlays/prod")
    assert found.pop("job/overlays/dev") == "tributary"
    others = ("job/overlays/workspace", "process-workers", "by hand", "a flow run's job")
    assert found == dict.fromkeys(others, address)
    # The image can speak to it.
    extras = re.findall(r"--extra (\w+)", (ROOT / "deployments" / "docker" / "Dockerfile").read_text())
    assert EXTRAS[address.partition("://")[0]] in extras


def test_a_pod_that_begins_with_an_empty_folder_is_not_started_without_an_address() -> None:
    pods = [pod_of(found) or {} for path, found in written() if path.name == "by-hand.yaml"]
    pods += [pod_of(found) or {} for found in kustomized("process-workers") if found["kind"] == "Deployment"]
    pods.append(job_of_a_flow_run()["spec"]["template"]["spec"])
    assert len(pods) == 3
    for pod in pods:
        (container,) = pod["containers"]
        # Not optional: the kubelet says which key is missing.
        assert {"name": _STATE, "valueFrom": {"configMapKeyRef": {"name": "tributary", "key": _STATE}}} in container[
            "env"
        ]


def test_a_pod_runs_a_workspace_of_ones_own(tmp_path: Path) -> None:
    objects = kustomized("job/overlays/workspace")
    settings = settings_in(objects)
    (pod,) = (pod_of(found) for found in objects if found["kind"] == "CronJob")
    assert pod
    (container,) = pod["containers"]
    # Neither a project of the image nor one of its targets.
    assert "--project-dir" not in container["args"]
    assert {name for word in container["args"] for name in _VARIABLE.findall(word)} <= settings.keys()
    (volume,) = (
        volume["configMap"]["name"]
        for mount in container["volumeMounts"]
        for volume in pod["volumes"]
        if mount["mountPath"] == settings["TRIBUTARY_WORKSPACE"] and volume["name"] == mount["name"]
    )
    (files,) = (found["data"] for found in objects if found["metadata"]["name"] == volume)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    found = workspace_at(tmp_path)
    assert found.named_project(None)
    targets = load_targets(found.targets, settings | named("Secret")["stringData"])
    assert settings["TRIBUTARY_RUN_TARGET"] in targets.names


def test_no_secret_is_filled_in_and_none_is_applied_by_an_overlay() -> None:
    assert set(named("Secret")["stringData"].values()) == {""}
    for folder in KUSTOMIZATIONS:
        assert "Secret" not in {found["kind"] for found in kustomized(folder)}


def test_the_variables_of_a_pod_are_those_that_the_targets_read() -> None:
    targets = (ROOT / "infrastructure" / "targets.yml").read_text()
    of_prefect_or_the_command = re.compile(r"PREFECT_|TRIBUTARY_RUN_")
    for name in {**named("ConfigMap")["data"], **named("Secret")["stringData"]}:
        assert of_prefect_or_the_command.match(name) or re.search(rf"\b{name}\b", targets), name


def test_the_command_of_the_scheduled_run_runs(prefect_server: str, set_up_target: SetUpTarget, tmp_path: Path) -> None:
    (container,) = (pod_of(named("CronJob")) or {})["containers"]
    settings = named("ConfigMap")["data"] | {
        "PREFECT_API_URL": prefect_server,
        "TRIBUTARY_RUN_TARGET": set_up_target(),
        "TRIBUTARY_RUN_PROJECT": str(ROOT / "tests" / "projects" / "shop"),
    }
    words = [*container["command"], *container["args"]]
    command = [_VARIABLE.sub(lambda found: settings[found[1]], word) for word in words]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    own = {entry["name"]: entry["value"] for entry in container["env"]}
    # What the image sets, with the volume somewhere else.
    volume = {"HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect"), "TRIBUTARY_STATE": str(tmp_path / "s")}
    done = subprocess.run(
        [sys.executable, *command[1:]],
        env=inherited | settings | own | volume,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("s/*/*/runs/*/ledger.jsonl"))) >= 1
