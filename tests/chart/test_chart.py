"""What the chart makes of its values, and that the processes know what it tells them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from itertools import product
from pathlib import Path

import pytest
import yaml
from chart import (
    CHART,
    KUBE_VERSION,
    SERVICES,
    Object,
    container,
    environment,
    helm,
    jobs_file,
    of_kind,
    pods,
    render,
    template,
)

from controller_svc.k8s.additions import Additions
from controller_svc.k8s.job_settings import JobSettings
from controller_svc.k8s.placement import Placement
from seal.settings.cluster import AdaptationClusterSettings
from seal.telemetry import metrics
from seal.v1 import adaptation_pb2, evaluator_pb2, generator_pb2, trainer_pb2

PROTOS = (adaptation_pb2, generator_pb2, trainer_pb2, evaluator_pb2)
KIND = f"--values={CHART / 'values-kind.yaml'}"
VOLUME = "--set=models.source=volume"
S3_URI = "s3://bucket/seal"
S3 = (f"--set=artifacts.uri={S3_URI}", "--set=artifacts.existingSecret=s3")
GPU = f"--values={CHART / 'values-gpu.yaml'}"
PRODUCTION = f"--values={CHART / 'values-prod.yaml'}"
OPENSHIFT = f"--values={CHART / 'values-openshift.yaml'}"
HOST = "seal.example.org"
CLUSTER_SCOPE = re.compile("^(Cluster|CustomResource|Namespace$|API|.*(Class|Webhook|Volume$))")
"""Kinds that belong to no namespace."""
GRPC_BEHIND = {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"}
EVALUATOR: Object = {
    "podLabels": {"team": "judges", "app.kubernetes.io/name": "other"},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
        {
            "maxSkew": 2,
            "topologyKey": "node",
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"team": "judges"}},
        },
    ],
    "env": [{"name": "SEAL_JUDGE_API_KEY_FILE", "value": "/etc/judge/key"}],
    "volumes": [{"name": "judge", "secret": {"secretName": "judge"}}],
    "volumeMounts": [{"name": "judge", "mountPath": "/etc/judge", "readOnly": True}],
}
VALUES = {
    "defaults": (),
    "kind": (KIND,),
    "gpu": (GPU,),
    "production": (GPU, PRODUCTION),
    "openshift": (KIND, OPENSHIFT),
    "options": (
        VOLUME,
        *S3,
        "--set=engine.device=cuda,engine.memoryBytes=34359738368,trainer.engine.slots=8",
        "--set-json=trainer.tolerations=[{\"key\": \"nvidia.com/gpu\", \"operator\": \"Exists\"}]",
        "--set=trainer.nodeSelector.pool=gpu,image.pullSecrets={registry},rbac.kserve=true",
        "--set=api.adaptations.queueName=gpus,jobs.queueName=gpus",
        "--set=generator.autoscaling.enabled=true,trainer.autoscaling.enabled=true",
        "--set=monitoring.podMonitor.enabled=true,monitoring.rules.enabled=true",
        "--set=monitoring.dashboards.enabled=true,tracing.endpoint=http://collector.traces:4317",
        "--set=controller.namespaces={a,b}",
        "--set=api.ingress.enabled=true,api.ingress.className=nginx",
        f"--set-json=api.ingress.annotations={json.dumps(GRPC_BEHIND)}",
        f"--set-json=api.ingress.tls={json.dumps([{'secretName': 'seal-tls', 'hosts': [HOST]}])}",
        f"--set=api.ingress.hosts={{{HOST}}}",
    ),
    "yours": (
        VOLUME,
        "--set=commonLabels.team=research,environment.HTTPS_PROXY=http://proxy:3128",
        f"--set-json=evaluator={json.dumps(EVALUATOR)}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", ["helm", "helm3"])
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_finds_nothing_to_complain_of(values: tuple[str, ...], program: str) -> None:
    command = [str(helm(program)), "lint", "--strict", str(CHART), *values]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("enabled", "made"), [("true", True), ("false", False)])
def test_a_parent_chart_has_it_or_not_by_a_condition(
    enabled: str, made: bool, tmp_path: Path
) -> None:
    """Helm hands what the condition names down to the chart, whose schema has to know it."""
    shutil.copytree(CHART, tmp_path / "charts/seal")
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    needed = {"name": "seal", "version": chart["version"], "condition": "seal.enabled"}
    parent = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [needed]}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(parent), encoding="utf-8")
    command = [str(helm()), "template", "ours", str(tmp_path), "--kube-version", KUBE_VERSION]
    done = subprocess.run(
        [*command, f"--set=seal.enabled={enabled}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert ("kind: Deployment" in done.stdout) is made


def test_a_change_of_the_jobs_settings_starts_another_controller() -> None:
    def annotations(*values: str) -> Object:
        return pods(render(*values))["seal-controller"]["metadata"]["annotations"]

    assert annotations() == annotations()
    assert annotations("--set=jobs.parallelism=3") != annotations()


def test_what_every_submitted_adaptation_gets_is_a_file_of_the_front_door() -> None:
    kserve = {"name": "qwen", "modelUri": "hf://o/m", "storeUri": "pvc://artifacts"}
    given = {"publish": {"kserve": kserve}, "ttlSecondsAfterFinished": 604800}
    made = render(f"--set-json=api.adaptations={json.dumps(given)}")
    pod = pods(made)["seal-api"]
    variable = environment(pod)["SEAL_ADAPTATIONS_FILE"]
    folder, _, file = variable.rpartition("/")
    text = of_kind(made, "ConfigMap")["seal-api"]["data"][file]
    read = AdaptationClusterSettings.model_validate(yaml.safe_load(text))
    assert read.model_dump(mode="json", exclude_unset=True) == given
    mounts = {one["mountPath"]: one["name"] for one in container(pod)["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    assert volumes[mounts[folder]]["configMap"]["name"] == "seal-api"
    # It is read once: a change starts another front door
    assert pod["metadata"] != pods(render())["seal-api"]["metadata"]
    assert "SEAL_ADAPTATIONS_FILE" not in environment(pods(render())["seal-api"])


def test_in_production_ended_adaptations_go_in_time() -> None:
    told = of_kind(render(GPU, PRODUCTION), "ConfigMap")["seal-api"]["data"]["adaptations.yaml"]
    assert AdaptationClusterSettings.model_validate(yaml.safe_load(told)).ttl_seconds_after_finished


def test_how_much_is_logged_holds_for_the_pods_of_jobs_too() -> None:
    settings = JobSettings.model_validate(jobs_file(render("--set=logLevel=debug")))
    for told in (settings.worker.environment, settings.trainer.environment):
        assert told["SEAL_LOG_LEVEL"] == "debug"
    given = JobSettings.model_validate(jobs_file(render("--set=environment.SEAL_LOG_LEVEL=error")))
    assert given.worker.environment["SEAL_LOG_LEVEL"] == "error"


def test_labels_and_variables_of_yours_are_on_everything_and_choose_no_pod() -> None:
    made = render(*VALUES["yours"])
    own = [one for one in made if one["kind"] != "CustomResourceDefinition"]
    assert {one["metadata"]["labels"]["team"] for one in own} == {"research"}
    for name, pod in pods(made).items():
        assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container(pod)["env"]
        wanted = "judges" if name == "seal-evaluator" else "research"
        assert pod["metadata"]["labels"]["team"] == wanted
    settings = JobSettings.model_validate(jobs_file(made))
    for told in (settings.worker.environment, settings.trainer.environment):
        assert told["HTTPS_PROXY"] == "http://proxy:3128"
    deployment = of_kind(made, "Deployment")["seal-evaluator"]["spec"]
    chosen = deployment["selector"]["matchLabels"]
    assert chosen.keys() == {
        f"app.kubernetes.io/{one}" for one in ("name", "instance", "component")
    }
    assert chosen.items() <= deployment["template"]["metadata"]["labels"].items()


def test_a_variable_that_several_values_name_is_there_once_and_the_last_holds() -> None:
    """Server-side apply, which helm 4 uses, takes no name twice."""
    own = [{"name": name, "value": "own"} for name in ("SEAL_LOG_LEVEL", "SEAL_MODEL", "SEEN")]
    given = {"SEAL_CACHE": "/cache", "SEAL_LOG_LEVEL": "error", "SEEN": "by all"}
    made = render(
        VOLUME,
        f"--set-json=environment={json.dumps(given)}",
        *(f"--set-json={name}.env={json.dumps(own)}" for name in (*SERVICES, "controller", "api")),
    )
    for name, pod in pods(made).items():
        names = [one["name"] for one in container(pod)["env"]]
        assert sorted(names) == sorted(set(names)), name
        told = environment(pod)
        if "models" in name:
            assert (told["SEAL_CACHE"], told["SEEN"]) == ("/cache", "by all")
        else:
            assert {told["SEAL_LOG_LEVEL"], told["SEAL_MODEL"], told["SEEN"]} == {"own"}


NAMES = (
    "namespace",
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "kubernetes.io/metadata.name",
)


def values_of(names: tuple[str, ...], within: object) -> Iterator[object]:
    """What stands under one of the names, however deep."""
    if isinstance(within, dict):
        yield from (value for name, value in within.items() if name in names)
    inner = within.values() if isinstance(within, dict) else within
    for one in inner if isinstance(within, dict | list) else ():
        yield from values_of(names, one)


def test_a_name_that_would_be_another_thing_to_yaml_stays_a_name() -> None:
    """The API server takes no truth value and no number for a namespace or a label."""
    served = '--set-json=controller.namespaces=["no", "2024"]'
    crds = "--set=crds.enabled=false"
    made = render(served, crds, "--set=nameOverride=on", namespace="no", release="yes")
    assert set(values_of(NAMES, made)) == {"no", "2024", "on", "yes"}


def test_volumes_and_spreads_of_yours_are_the_pods() -> None:
    made = render(*VALUES["yours"])
    spec = pods(made)["seal-evaluator"]["spec"]
    assert EVALUATOR["volumes"][0] in spec["volumes"]
    (only,) = spec["containers"]
    assert EVALUATOR["volumeMounts"][0] in only["volumeMounts"]
    by_itself, as_given = spec["topologySpreadConstraints"]
    chosen = of_kind(made, "Deployment")["seal-evaluator"]["spec"]["selector"]
    assert by_itself["labelSelector"] == chosen
    assert as_given == EVALUATOR["topologySpreadConstraints"][1]
    for name in ("controller", "api", "trainer"):
        given = {"volumes": EVALUATOR["volumes"], "volumeMounts": EVALUATOR["volumeMounts"]}
        pod = pods(render(f"--set-json={name}={json.dumps(given)}"))[f"seal-{name}"]
        assert given["volumes"][0] in pod["spec"]["volumes"]
        assert given["volumeMounts"][0] in container(pod)["volumeMounts"]


def test_large_numbers_stay_numbers() -> None:
    pod = pods(render('--set-json=engine={"memoryBytes": 34359738368, "stallSeconds": 0.5}'))
    given = environment(pod["seal-trainer"])
    assert given["SEAL_MEMORY_BYTES"] == "34359738368"
    assert given["SEAL_STALL_SECONDS"] == "0.5"


def test_a_services_own_engine_wins_also_with_a_zero() -> None:
    made = pods(render("--set=engine.slots=4,engine.maxRank=8,evaluator.engine.slots=0"))
    assert environment(made["seal-trainer"])["SEAL_SLOTS"] == "4"
    assert environment(made["seal-evaluator"])["SEAL_SLOTS"] == "0"
    assert environment(made["seal-evaluator"])["SEAL_MAX_RANK"] == "8"


def test_slots_of_the_gpu_profile_are_for_the_service_that_trains() -> None:
    objects = render(GPU)
    made = pods(objects)
    named = {name for name, pod in made.items() if "SEAL_SLOTS" in str(container(pod).get("env"))}
    assert named == {"seal-trainer"}
    assert environment(made["seal-trainer"])["SEAL_SLOTS"] == "32"
    assert "SEAL_SLOTS" not in str(jobs_file(objects))  # an M-step trains one adapter


def test_adaptations_of_a_model_of_7b_are_of_the_published_profile() -> None:
    told = [
        environment(pods(render(*values))["seal-api"])["SEAL_PROFILE"] for values in ((), (GPU,))
    ]
    assert told == ["embedded", "published"]


def test_an_engine_computes_with_the_threads_that_its_container_may_use() -> None:
    assert environment(pods(render())["seal-trainer"])["SEAL_THREADS"] == "limits.cpu"
    without = render("--set=trainer.resources.limits.cpu=null")
    assert "SEAL_THREADS" not in environment(pods(without)["seal-trainer"])
    given = render("--set=trainer.engine.threads=3")
    assert environment(pods(given)["seal-trainer"])["SEAL_THREADS"] == "3"
    for_all = pods(render("--set-string=environment.SEAL_THREADS=5"))
    assert environment(for_all["seal-trainer"])["SEAL_THREADS"] == "5"


def test_a_rolling_update_keeps_what_is_asked_for_also_a_zero() -> None:
    def strategy(*values: str) -> Object:
        return of_kind(render(*values), "Deployment")["seal-trainer"]["spec"]["strategy"]

    asked = "--set=trainer.strategy.rollingUpdate.maxUnavailable=0"
    assert strategy(asked)["rollingUpdate"] == {"maxSurge": "25%", "maxUnavailable": 0}
    assert strategy("--set=trainer.strategy.type=Recreate") == {"type": "Recreate"}


def test_a_service_is_scaled_by_a_metric_that_it_has() -> None:
    made = render("--set=generator.autoscaling.enabled=true,generator.replicas=7")
    ((name, scaler),) = of_kind(made, "HorizontalPodAutoscaler").items()
    assert scaler["spec"]["scaleTargetRef"]["name"] == name == "seal-generator"
    (metric,) = scaler["spec"]["metrics"]
    exported = {family.name for family in metrics.registry.collect()}
    assert metric["pods"]["metric"]["name"] in exported
    deployments = of_kind(made, "Deployment")
    assert "replicas" not in deployments["seal-generator"]["spec"], "an upgrade would undo it"
    assert "replicas" in deployments["seal-trainer"]["spec"]


def test_a_drain_may_take_a_pod_of_every_deployment_at_a_time() -> None:
    made = render()
    deployments = of_kind(made, "Deployment")
    budgets = of_kind(made, "PodDisruptionBudget")
    assert budgets.keys() == deployments.keys()
    for name, budget in budgets.items():
        assert budget["spec"]["maxUnavailable"] == 1
        assert budget["spec"]["selector"] == deployments[name]["spec"]["selector"]
    assert not of_kind(render("--set=disruptionBudget.enabled=false"), "PodDisruptionBudget")


def test_prometheus_finds_the_metrics_port_of_every_deployment() -> None:
    made = render("--set=monitoring.podMonitor.enabled=true,monitoring.podMonitor.labels.team=ml")
    ((_, monitor),) = of_kind(made, "PodMonitor").items()
    assert monitor["metadata"]["labels"]["team"] == "ml"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    chosen, (expression,) = (
        monitor["spec"]["selector"][f"match{kind}"] for kind in ("Labels", "Expressions")
    )
    for pod in pods(made).values():
        labels = pod["metadata"]["labels"]
        assert chosen.items() <= labels.items()
        assert labels[expression["key"]] in expression["values"]
        assert endpoint["port"] in {one["name"] for one in container(pod)["ports"]}


def test_rules_and_dashboards_are_the_files_word_by_word() -> None:
    values = "--set=monitoring.rules.enabled=true,monitoring.dashboards.enabled=true"
    made = render(values, "--set=monitoring.dashboards.annotations.grafana_folder=SEAL")
    rules = {path.stem: path for path in (CHART / "files/rules").glob("*.yaml")}
    given = of_kind(made, "PrometheusRule")
    assert given.keys() == {f"seal-{name}" for name in rules}
    for name, path in rules.items():
        assert given[f"seal-{name}"]["spec"] == yaml.safe_load(path.read_text())
    boards = {path.stem: path for path in (CHART / "files/dashboards").glob("*.json")}
    labelled = {
        name: one
        for name, one in of_kind(made, "ConfigMap").items()
        if one["metadata"]["labels"].get("grafana_dashboard") == "1"
    }
    assert labelled.keys() == {f"seal-dashboard-{name}" for name in boards}
    for name, path in boards.items():
        assert labelled[f"seal-dashboard-{name}"]["data"] == {path.name: path.read_text()}


def test_an_alert_fires_where_the_values_say_or_is_not_there() -> None:
    alerts = {
        "SealRunStalled": {"threshold": 7200},
        "SealAnswersUngraded": {"threshold": 0},
        "SealControllerDown": {"for": "1h30m"},
        "SealRewardFalling": {"enabled": False},
    }
    switch = "--set=monitoring.rules.enabled=true"
    groups = [
        of_kind(render(switch, *given), "PrometheusRule")["seal-seal"]["spec"]["groups"]
        for given in ((), (f"--set-json=monitoring.rules.alerts={json.dumps(alerts)}",))
    ]
    before, after = (
        {rule.get("alert") or rule["record"]: rule for one in made for rule in one["rules"]}
        for made in groups
    )
    expr = before["SealRunStalled"]["expr"]
    before["SealRunStalled"]["expr"] = expr.replace("> 1800 and", "> 7200 and")
    expr = before["SealAnswersUngraded"]["expr"]
    before["SealAnswersUngraded"]["expr"] = expr.replace("> 0.1", "> 0")
    before["SealControllerDown"]["for"] = "1h30m"
    del before["SealRewardFalling"]
    assert after == before
    assert before["SealRunStalled"]["expr"].count("7200") == 1


@pytest.mark.parametrize(
    ("grafana", "begins"),
    [("", "d/seal-"), ("https://g.example/x/", "https://g.example/x/d/seal-")],
)
def test_alerts_link_to_dashboards_where_grafana_is(grafana: str, begins: str) -> None:
    made = render("--set=monitoring.rules.enabled=true", f"--set=monitoring.grafana={grafana}")
    (rules,) = of_kind(made, "PrometheusRule").values()
    links = [
        rule["annotations"]["dashboard_url"]
        for group in rules["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert len(links) == 9 and all(link.startswith(begins) for link in links)


def test_runbooks_are_linked_where_they_are_read() -> None:
    url = "https://wiki.example/seal"
    switches = "monitoring.rules.enabled=true,monitoring.dashboards.enabled=true"
    made = render(f"--set={switches},monitoring.runbooks={url}")
    rules = [
        group["rules"] for group in of_kind(made, "PrometheusRule")["seal-seal"]["spec"]["groups"]
    ]
    links = [
        one["annotations"]["runbook_url"] for group in rules for one in group if "alert" in one
    ]
    assert f"{url}#sealrunstalled" in links
    panels = of_kind(made, "ConfigMap")["seal-dashboard-seal-overview"]["data"]
    assert f"{url}#sealrunstalled" in panels["seal-overview.json"]
    assert "docs/runbooks.md" not in json.dumps(made)


def test_what_helm_test_asks_is_every_service_as_its_callers_reach_it() -> None:
    made = render()
    ((_, pod),) = of_kind(made, "Pod").items()
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    (asking,) = pod["spec"]["containers"]
    asked = dict(one.split("=") for one in asking["command"][4:])
    addresses = jobs_file(made)["services"]
    named = {one.DESCRIPTOR.services_by_name.keys()[0] for one in PROTOS}
    assert {service.removeprefix("seal.v1.") for service in asked.values()} == named
    assert asked.keys() == {*addresses.values(), "dns:///seal-api.team.svc:50050"}


def test_where_the_pods_of_jobs_run_is_the_controllers_to_say() -> None:
    preferred = {
        "weight": 1,
        "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
    }
    placement = {
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "affinity": {
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}
        },
        "runtimeClassName": "nvidia",
    }
    made = render(f"--set-json=jobs.trainer={json.dumps(placement)}", "--set=jobs.queueName=gpus")
    settings = JobSettings.model_validate(jobs_file(made))
    told = settings.trainer.placement.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    assert told == placement
    assert settings.worker.placement == Placement()
    assert settings.queue_name == "gpus"


def test_jobs_have_the_labels_of_all_and_what_is_given_for_their_pods() -> None:
    volume = {"name": "ca", "secret": {"secretName": "store-ca"}}
    mount = {"name": "ca", "mountPath": "/etc/ca"}
    own = {
        "podLabels": {"team": "ours"},
        "podAnnotations": {"sidecar.istio.io/inject": "false"},
        "volumes": [volume],
        "volumeMounts": [mount],
    }
    made = render(
        "--set=commonLabels.team=research,commonLabels.cost=mind",
        f"--set-json=jobs.worker={json.dumps(own)}",
    )
    settings = JobSettings.model_validate(jobs_file(made))
    assert settings.worker.additions == Additions(
        labels={"team": "ours", "cost": "mind"},
        annotations={"sidecar.istio.io/inject": "false"},
        volumes=(volume,),
        volume_mounts=(mount,),
    )
    assert settings.trainer.additions == Additions(labels={"team": "research", "cost": "mind"})


def test_a_pod_has_the_time_that_its_process_takes_to_end() -> None:
    def seconds(*values: str) -> dict[str, int]:
        made = pods(render(*values))
        found = {name: pod["spec"]["terminationGracePeriodSeconds"] for name, pod in made.items()}
        return {name: found[f"seal-{name}"] for name in ("generator", "trainer", "api")}

    assert seconds() == {"generator": 95, "trainer": 95, "api": 45}
    own = [{"name": "SEAL_GRACE_SECONDS", "value": "120.5"}, {"name": "SEAL_A", "value": "1"}]
    assert seconds(
        "--set-string=environment.SEAL_UNREADY_SECONDS=10,environment.SEAL_GRACE_SECONDS=60",
        f"--set-json=trainer.env={json.dumps(own)}",
    ) == {"generator": 130, "trainer": 191, "api": 80}


def test_a_rollout_is_given_the_time_that_its_pods_may_take_to_start() -> None:
    made = of_kind(render("--set=models.startupSeconds=3600"), "Deployment")
    for name in SERVICES:
        spec = made[f"seal-{name}"]["spec"]
        probe = container(spec["template"])["startupProbe"]
        starts = probe["periodSeconds"] * probe["failureThreshold"]
        assert spec.get("progressDeadlineSeconds", 600) >= starts + 600, "and to pull its image"


def test_a_front_door_is_not_killed_while_it_waits_for_the_api_server() -> None:
    """It listens once all adaptations are listed: another start would be no further."""
    probe = container(pods(render())["seal-api"])["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 1800


def test_a_grace_that_the_chart_cannot_read_is_refused_by_its_name() -> None:
    own = [{"name": "SEAL_GRACE_SECONDS", "valueFrom": {"fieldRef": {"fieldPath": "a"}}}]
    done = template(f"--set-json=api.env={json.dumps(own)}")
    assert done.returncode and "SEAL_GRACE_SECONDS: give it a value" in done.stderr


@pytest.mark.parametrize(
    ("given", "limit"), [("", "16Gi"), ("=3Gi", "3Gi"), ("=", None), ("=null", None)]
)
def test_no_pod_fills_its_nodes_disk_with_temporary_files(given: str, limit: str | None) -> None:
    made = render(VOLUME, *([f"--set=temporaryFiles.sizeLimit{given}"] if given else []))
    specs = [pod["spec"] for pod in (*pods(made).values(), *of_kind(made, "Pod").values())]
    for spec in specs:
        (own,) = [one["emptyDir"] for one in spec["volumes"] if one["name"] == "tmp"]
        pulls = "pull" in spec["containers"][0]["command"]  # a model is as large as it is
        assert own == ({"sizeLimit": limit} if limit and not pulls else {})
    settings = JobSettings.model_validate(jobs_file(made))
    assert settings.temporary_size_limit == limit


def test_how_an_image_is_pulled_holds_for_the_pods_of_jobs_too() -> None:
    settings = JobSettings.model_validate(jobs_file(render("--set=image.pullPolicy=Never")))
    assert settings.image_pull_policy == "Never"


def test_the_requests_of_a_laptops_cluster_fit_two_cores() -> None:
    made = render(KIND)
    standing = [container(pod)["resources"] for pod in pods(made).values()]
    settings = JobSettings.model_validate(jobs_file(made))
    workers = [settings.worker.resources.requests] * settings.parallelism
    for of_jobs in (workers, [settings.trainer.resources.requests]):
        asked = [one["requests"] for one in standing] + of_jobs
        assert sum(cores(str(one["cpu"])) for one in asked) <= Decimal("1.5")


def cores(quantity: str) -> Decimal:
    return Decimal(quantity[:-1]) / 1000 if quantity.endswith("m") else Decimal(quantity)


def test_only_what_writes_may_write_to_the_store() -> None:
    def may_write(component: str) -> bool:
        mounts = {one["name"]: one for one in container(made[f"seal-{component}"])["volumeMounts"]}
        return not mounts["artifacts"].get("readOnly", False)

    made = pods(render())
    assert [name for name in SERVICES if may_write(name)] == ["trainer"]
    assert may_write("controller")
    assert may_write("api")


def test_an_object_store_needs_no_volume_and_its_secret_goes_to_every_process() -> None:
    made = render(*S3)
    assert not of_kind(made, "PersistentVolumeClaim")
    for pod in pods(made).values():
        assert container(pod)["envFrom"] == [{"secretRef": {"name": "s3"}}]
        assert "artifacts" not in {one["name"] for one in pod["spec"]["volumes"]}
    assert jobs_file(made)["store"] == {"uri": S3_URI, "credentialsSecret": "s3"}


def test_a_volume_of_models_is_filled_by_a_job_that_another_model_replaces() -> None:
    def job(*values: str) -> tuple[str, Object]:
        ((name, made),) = of_kind(render(VOLUME, *values), "Job").items()
        return name, container(made["spec"]["template"])

    name, pull = job()
    assert pull["command"] == ["seal", "models", "pull", "smollm2-135m", "--to", "/models"]
    assert job()[0] == name
    assert job("--set=model=hf://org/other")[0] != name
    assert not of_kind(render(VOLUME, "--set=models.volume.pull.enabled=false"), "Job")


def test_a_pull_outlasts_a_night_without_the_hub() -> None:
    """An upgrade finds a Job that has failed as it should be, and starts no other."""
    ((_, made),) = of_kind(render(VOLUME), "Job").items()
    assert made["spec"]["template"]["spec"]["restartPolicy"] == "OnFailure", "what it has it keeps"
    kubelets = [min(10 * 2**restart, 300) for restart in range(made["spec"]["backoffLimit"])]
    assert sum(kubelets) >= 8 * 3600


def test_the_pull_and_helm_test_find_a_node_where_all_are_tainted() -> None:
    anywhere = {"tolerations": [{"key": "team", "operator": "Exists"}], "nodeSelector": {"a": "b"}}
    arm = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "arch", "operator": "Exists"}]}]
            }
        }
    }
    apart = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    made = render(
        VOLUME,
        f"--set-json=models.volume.pull={json.dumps(anywhere | {'affinity': arm})}",
        f"--set-json=controller={json.dumps(anywhere | {'affinity': arm | apart})}",
    )
    ((_, pull),) = of_kind(made, "Job").items()
    ((_, test),) = of_kind(made, "Pod").items()
    for pod in (pull["spec"]["template"]["spec"], test["spec"]):
        assert {name: pod[name] for name in anywhere} == anywhere
        assert pod["affinity"] == arm, "it need not be apart from the controllers"


@pytest.mark.parametrize("change", ["commonLabels.team=research", "nameOverride=other"])
def test_a_pull_whose_pod_has_other_labels_is_another_job(change: str) -> None:
    """The API server refuses any change of a Job's template, and with it the whole upgrade."""
    (before,), (after,) = (
        of_kind(render(VOLUME, "--set=fullnameOverride=seal", *given), "Job").values()
        for given in ((), (f"--set={change}",))
    )
    assert before["spec"]["template"] != after["spec"]["template"]
    assert before["metadata"]["name"] != after["metadata"]["name"]


def test_every_namespace_that_is_served_has_a_role_and_an_account_for_its_jobs() -> None:
    made = render("--set=controller.namespaces={a,b}")
    roles = {(one["metadata"].get("namespace"), one["metadata"]["name"]) for one in made
             if one["kind"] == "Role"}  # fmt: skip
    assert roles == {(ns, f"seal-{name}") for ns in "ab" for name in ("controller", "api")} | {
        (None, "seal-lease")
    }
    accounts = [one["metadata"] for one in made if one["kind"] == "ServiceAccount"]
    assert {one["namespace"] for one in accounts if one["name"] == "seal-jobs"} == {"a", "b"}
    served = environment(pods(made)["seal-controller"])["SEAL_NAMESPACES"]
    assert served == environment(pods(made)["seal-api"])["SEAL_NAMESPACES"] == "a,b"


def test_the_page_tells_all_that_is_of_cluster_scope() -> None:
    page = " ".join((CHART.parents[1] / "docs/install.md").read_text(encoding="utf-8").split())
    needs = page.partition("## What it needs")[2].partition("## ")[0]
    for values in VALUES.values():
        found = [one for one in render(*values) if CLUSTER_SCOPE.search(one["kind"])]
        kinds = [one["kind"] for one in found]
        assert sorted(kinds) == ["ClusterRole"] * 2 + ["CustomResourceDefinition"] * 2
        for made in found:
            if made["kind"] == "ClusterRole":
                assert f"`{made['metadata']['name']}`" in needs
    made = render("--set=crds.enabled=false")
    assert not [one for one in made if CLUSTER_SCOPE.search(one["kind"])]


def test_who_may_view_or_edit_a_namespace_may_do_so_with_its_runs() -> None:
    parts = of_kind(render(), "ClusterRole").values()

    def rights(role: str) -> set[tuple[str, str]]:
        label = f"rbac.authorization.k8s.io/aggregate-to-{role}"
        return {
            (resource, verb)
            for part in parts
            if part["metadata"]["labels"].get(label) == "true"
            for rule in part["rules"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    kinds = ("restemruns", "adaptations")
    reading = {(kind, verb) for kind in kinds for verb in ("get", "list", "watch")}
    writing = ("create", "update", "patch", "delete", "deletecollection")
    assert rights("view") == reading
    assert rights("edit") == rights("admin") == reading | set(product(kinds, writing))
    assert not of_kind(render("--set=crds.enabled=false"), "ClusterRole")
