"""Alerts, runbook and dashboard fit each other, the metrics that there are, and the demo's services."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_docs import parse

ROOT = Path(__file__).parents[3]
PROMETHEUS, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
RUNBOOK = ROOT / "docs" / "runbook.md"
# Prometheus' own: of a scrape, and of alerts; every series of a scrape carries the labels.
OWN = {"up": {"job", "instance"}, "ALERTS": {"alertname", "alertstate", "severity", "job", "instance"}}
OF_A_SCRAPE = {"job", "instance"}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}
GRID = 24
_CLAUSE = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\(|\{[^}]*\})?")
_WORDS = {"and", "or", "unless", "bool", "offset"}


@cache
def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """Alerts or recorded series (`alert`, `record`), by name."""
    groups = parsed(PROMETHEUS / "rules.yml")["groups"]
    return {rule[kind]: rule for group in groups for rule in group["rules"] if kind in rule}


ALERTS = rules("alert")


def dashboard() -> dict[str, Any]:
    return dict(json.loads((GRAFANA / "dashboards" / "line.json").read_text(encoding="utf-8")))


def panels() -> list[dict[str, Any]]:
    """All that show something; rows are headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def documented() -> dict[str, set[str]]:
    """Labels of every series that docs/metrics.md promises, by its name."""
    found = {}
    for line in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        name = re.fullmatch(r"`(dapo_\w+)`", cells[0]) if cells else None
        if name is not None:
            labels = set(re.findall(r"\w+", cells[2])) | OF_A_SCRAPE
            for suffix in SUFFIXES.get(cells[1], ("",)):
                more = {"le"} if suffix == "_bucket" else {"encoder", "hash"} if cells[1] == "info" else set()
                found[name[1] + suffix] = labels | more
    return found


def known() -> dict[str, set[str]]:
    """Labels of all series that an expression may name; those that are recorded have at most a scrape's."""
    return documented() | OWN | dict.fromkeys(rules("record"), OF_A_SCRAPE)


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """(name, labels that it is chosen by) of every series that an expression names."""
    bare = _CLAUSE.sub(" ", expression)
    bare = re.sub(r"\[[^]]*\]", " ", bare)  # ranges
    bare = re.sub(r"\boffset\s+\S+", " ", bare)
    for name, behind in _NAME.findall(bare):
        if name not in _WORDS and behind != "(":
            yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", behind))


def grouped(expression: str) -> set[str]:
    """Labels that an expression is added up by or joined on."""
    return {label for clause in _CLAUSE.findall(expression) for label in re.findall(r"\w+", clause)}


def expressions() -> dict[str, str]:
    """Every expression of the rules and of the dashboard, by where it stands."""
    found = {
        f"{kind} {name}": rule["expr"] for kind in ("alert", "record") for name, rule in rules(kind).items()
    }
    for panel in panels():
        found |= {f"{panel['title']} {target['refId']}": target["expr"] for target in panel["targets"]}
    for variable in dashboard()["templating"]["list"]:
        ((metric, label),) = re.findall(r"^label_values\((\w+), *(\w+)\)$", variable["query"]["query"])
        found[f"${variable['name']}"] = f"sum by ({label}) ({metric})"
    return found


def sections() -> dict[str, str]:
    """Text of each section of the runbook, by its heading."""
    parts = re.split(r"^## (.+)$", RUNBOOK.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def tried(name: str) -> set[bool]:
    """Whether rules_test.yml has cases in which an alert must fire (True), and in which it must not (False)."""
    found = set()
    for test in parsed(PROMETHEUS / "rules_test.yml")["tests"]:
        for case in test.get("alert_rule_test", ()):
            if case["alertname"] == name:
                found.add(bool(case.get("exp_alerts")))
        for case in test.get("promql_expr_test", ()):
            said = re.fullmatch(r'ALERTS\{alertname(=~?)"([^"]+)", alertstate="firing"[^}]*\}', case["expr"])
            if said and name in (said[2].split("|") if said[1] == "=~" else [said[2]]):
                found.add(bool(case.get("exp_samples")))
    return found


def commands(text: str, program: str) -> list[list[str]]:
    """Arguments of a program wherever it is called in the runbook (`...`) or in a description ('...')."""
    named = re.sub(r"\{\{ \$labels\.job \}\}", "worker", text)  # jobs are services
    calls = re.findall(rf"[`']({program} [^`']+)[`']", named)
    return [shlex.split(call)[len(program.split()) :] for call in calls]


def texts() -> dict[str, str]:
    """What people read on an alert, by its name."""
    said = sections()
    return {
        name: f"{rule['annotations']['description']}\n{said.get(name, '')}" for name, rule in ALERTS.items()
    }


def test_every_alert_has_a_section_of_the_runbook_and_every_section_an_alert():
    assert list(sections()) == list(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_where_how_bad_and_where_to_read_on(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    said = rule["annotations"]
    assert set(said) == {"summary", "description", "runbook_url"}
    document, _, place = said["runbook_url"].partition("#")
    assert ROOT / document == RUNBOOK
    assert place in {anchor(heading) for heading in sections()}
    assert place == anchor(name)
    for label in re.findall(r"\$labels\.(\w+)", said["summary"] + said["description"]):
        assert label in grouped(rule["expr"]) | OF_A_SCRAPE, label
    for aggregated in ("camera", "kind"):  # which one it is must be said
        if aggregated in grouped(rule["expr"]):
            assert f"$labels.{aggregated}" in said["summary"], aggregated


@pytest.mark.parametrize("name", ALERTS)
def test_a_section_says_what_it_means_to_the_plant_what_to_look_at_and_what_to_do(name):
    text = sections()[name]
    assert re.findall(r"^- \*\*(.+?)\*\*: ", text, re.MULTILINE) == ["It means", "The plant", "Look", "Do"]
    look = re.search(r"^- \*\*Look\*\*: (.*?)(?=^- )", text, re.MULTILINE | re.DOTALL)
    assert look is not None
    assert re.search(r"`(dapo|docker) [^`]+`", look[1]), "no command to look with"


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_is_tried_firing_and_quiet(name):
    assert tried(name) == {True, False}


def test_a_start_and_kills_that_heal_are_tried_against_all_alerts():
    cases = [
        case
        for test in parsed(PROMETHEUS / "rules_test.yml")["tests"]
        for case in test.get("promql_expr_test", ())
        if case["expr"] == 'ALERTS{alertstate="firing"}'
    ]
    assert len(cases) > 10
    assert not any(case.get("exp_samples") for case in cases)


@pytest.mark.parametrize("where", expressions())
def test_an_expression_names_metrics_and_labels_that_there_are(where):
    expression, series = expressions()[where], known()
    named = list(selectors(expression))
    assert named, expression
    for name, chosen in named:
        assert name in series, f"{name} is not in docs/metrics.md"
        assert chosen <= series[name], f"{name} has no label {chosen - series[name]}"
    every = set().union(*(series[name] for name, _ in named))
    assert grouped(expression) <= every, expression


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("sum by (a) (rate(dapo_x_total{b=~\"c\", d!='e'}[5m])) > 0", [("dapo_x_total", {"b", "d"})]),
        ("nv_x offset $__range / on (job) up", [("nv_x", set()), ("up", set())]),
        ("max_over_time(worker:y[1h]) unless worker:y offset 1h", [("worker:y", set()), ("worker:y", set())]),
    ],
)
def test_series_are_found_wherever_they_stand(expression, found):
    assert list(selectors(expression)) == found


def test_documented_metrics_are_found_with_their_labels():
    found = documented()
    assert found["dapo_results_total"] == {"camera", "result_state", "evaluation"} | OF_A_SCRAPE
    assert "le" in found["dapo_latency_seconds_bucket"]
    assert "dapo_latency_seconds" not in found


def test_what_people_are_told_to_type_is_what_the_programs_take():
    services, called = parsed(ROOT / "deploy" / "docker-compose.yml")["services"], 0
    for name, text in texts().items():
        for arguments in commands(text, "dapo"):
            parse(arguments, typed=False)
            called += 1
        for arguments in commands(text, "docker compose"):
            assert arguments[0] in ("ps", "logs", "up", "restart"), (name, arguments)
            for word in arguments[1:]:
                if not re.match(r"-|\d+$", word):
                    assert word.partition("=")[0] in services, (name, arguments)
            called += 1
    assert called > len(ALERTS)


def test_a_dashboard_is_one_page_of_questions_with_an_answer_each():
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))
    for panel in panels():
        assert panel["title"].endswith("?"), panel["title"]
        assert panel["targets"], panel["title"]
        assert all(target["expr"].strip() for target in panel["targets"]), panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["noValue"], panel["title"]
        assert defaults["unit"], panel["title"]
        assert panel["description"], panel["title"]


def test_panels_lie_side_by_side_on_the_grid():
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= GRID, panel["title"]
        for cell in (
            (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
        ):
            assert cell not in taken, (panel["title"], taken.get(cell))
            taken[cell] = panel["title"]
    bottom = max(y for _, y in taken) + 1
    assert len(taken) == GRID * bottom, "there are holes"
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


def test_a_camera_can_be_chosen_wherever_a_metric_tells_cameras_apart():
    assert [variable["name"] for variable in dashboard()["templating"]["list"]] == ["camera"]
    for panel in panels():
        for target in panel["targets"]:
            if "camera" in grouped(target["expr"]):
                for name, chosen in selectors(target["expr"]):
                    assert "camera" not in known()[name] or "camera" in chosen, panel["title"]


def test_panels_ask_the_datasource_that_is_provisioned():
    (source,) = parsed(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    places = [*panels(), *(target for panel in panels() for target in panel["targets"])]
    places += dashboard()["templating"]["list"]
    for place in places:
        assert place["datasource"] == {"type": source["type"], "uid": source["uid"]}


def test_the_dashboard_lies_where_grafana_is_told_to_look():
    (provider,) = parsed(GRAFANA / "provisioning" / "dashboards" / "line.yml")["providers"]
    grafana = parsed(ROOT / "deploy" / "docker-compose.yml")["services"]["grafana"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    assert "./grafana/provisioning:/etc/grafana/provisioning:ro" in grafana["volumes"]
    assert (
        grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        == f"{provider['options']['path']}/line.json"
    )
    assert re.fullmatch(r"[a-z-]+", dashboard()["uid"])


def test_every_part_that_has_metrics_is_scraped_at_its_port():
    config = parsed(PROMETHEUS / "prometheus.yml")
    assert config["rule_files"] == ["rules.yml"]
    assert config["global"]["scrape_interval"] == "5s"
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    (found,) = jobs["worker"]["dns_sd_configs"]  # there may be several
    assert (found["names"], found["type"], found["port"]) == (["worker"], "A", 9400)
    targets = {
        name: job["static_configs"][0]["targets"] for name, job in jobs.items() if "static_configs" in job
    }
    assert targets == {"archiver": ["archiver:9401"], "triton": ["triton:8002"], "minio": ["minio:9000"]}
    services = parsed(ROOT / "deploy" / "docker-compose.yml")["services"]
    for name, port in (("worker", "9400"), ("archiver", "9401")):
        assert services[name]["command"][services[name]["command"].index("--metrics-port") + 1] == port
    assert set(jobs) <= set(services)
    asked = set(re.findall(r'job="(\w+)"', "\n".join(expressions().values())))
    assert asked <= set(jobs)


if shutil.which("promtool") is not None:  # it comes with Prometheus

    @pytest.mark.parametrize(
        "arguments", ["check config prometheus.yml", "check rules rules.yml", "test rules rules_test.yml"]
    )
    def test_promtool_takes_them(arguments):
        done = subprocess.run(
            ["promtool", *arguments.split()], cwd=PROMETHEUS, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
