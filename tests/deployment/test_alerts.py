"""The drift detector's alert rules: they parse, ask for what it exports, and lead to a heading that is there."""

import re
from pathlib import Path
from typing import Any

import prometheus_client
import promql_parser
import pytest
import yaml

import serving.detector.app  # noqa: F401 (declares the metrics)
from promolift.kubectl import Document

FILE = Path("manifests/components/drift/alerts.yaml")
RULES: list[Any] = yaml.safe_load(FILE.read_text())["groups"][0]["rules"]
NAME = re.compile(r"\bpromolift_\w+")


def headings(path: Path) -> set[str]:
    lines = [line.lstrip("#").strip().lower() for line in path.read_text().splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", line).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_rule_asks_for_what_the_detector_exports_and_leads_to_its_runbook(rule: Any):
    promql_parser.parse(rule["expr"])
    exported = {sample.name for metric in prometheus_client.REGISTRY.collect() for sample in metric.samples}
    declared = {name for metric in prometheus_client.REGISTRY.collect() for name in (metric.name, f"{metric.name}_total")}
    assert (asked := set(NAME.findall(rule["expr"]))) and asked <= exported | declared
    place, _, heading = rule["annotations"]["runbook"].partition("#")
    assert heading in headings(Path(place))


def test_prometheus_finds_them_on_the_cluster(production: list[Document]):
    (rules,) = [d for d in production if d["kind"] == "ConfigMap" and d["metadata"]["name"] == "promo-drift-alerts"]
    assert yaml.safe_load(rules["data"]["alerts.yaml"])["groups"][0]["rules"] == RULES
