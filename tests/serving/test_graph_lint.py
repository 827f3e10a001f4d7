"""`graph lint`: what KServe's schema and webhooks let through, with the line where it stands."""

from pathlib import Path

import pytest

from promolift.errors import InputError
from serving.kserve.graph import main
from serving.kserve.graph_file import read_graph
from serving.kserve.graph_lint import lint
from serving.kserve.serve import GRAPH

HEAD = """apiVersion: serving.kserve.io/v1alpha1
kind: InferenceGraph
metadata: {name: NAME}
spec:
  routerTimeouts: {serviceClient: 1}
  nodes:
"""
OK = "    root:\n      routerType: Sequence\n      steps:\n"


def written(folder: Path, nodes: str, name: str = "g") -> Path:
    path = folder / "graph.yaml"
    path.write_text(HEAD.replace("NAME", name) + nodes)
    return path


def steps(*lines: str, router: str = "Sequence") -> str:
    return f"    root:\n      routerType: {router}\n      steps:\n" + "".join(f"      - {{{line}}}\n" for line in lines)


A = "name: a, serviceName: s"
TRAPS = [
    (steps("name: a, nodeName: rot"), 10, "error", "no node 'rot', and every request through it is a 500; perhaps you mean 'root'"),
    (
        steps(A) + "    other:\n      routerType: Sequence\n      steps: [{serviceName: s}]\n",
        11,
        "warning",
        "no step leads to 'other'",
    ),
    (steps(f"{A}, condition: x.0"), 10, "error", "is the first of a Sequence and has a condition"),
    (steps(A, "name: b, serviceName: s, condition: 'x>0.5'"), 11, "error", "compares outside a query in 'x>0.5', which never matches"),
    (steps(A, "name: b, serviceName: s, condition: 'x.#(a>1 && b<2)'"), 11, "error", "in which && and || match what they should not"),
    (steps(A, "name: b, serviceName: s, condition: ready"), 11, "warning", "which false, 0, null and [] match too"),
    (steps(f"{A}, data: $response"), 10, "warning", "there is no response yet"),
    (steps(f"{A}, data: $response.predictions"), 10, "error", "only $response has an effect"),
    (steps(f"{A}, mapPredictionsToInstances: true"), 10, "warning", "drops every field but the predictions"),
    (steps(A, router="Switch"), 10, "error", "has no condition and never matches"),
    (steps(f"{A}, condition: '[@this].#(x==1)'", router="Switch"), 10, "warning", "has no last step with condition '@this'"),
    (steps(f"{A}, condition: '@this', dependency: Hard", router="Switch"), 10, "warning", "is Hard, which in a Switch changes nothing"),
    (steps(f"{A}, weight: 100", router="Splitter"), 8, "warning", "draws anew for every request"),
    (steps(f"{A}, condition: x.0", router="Ensemble"), 10, "warning", "has a condition, which a Ensemble does not look at"),
]


@pytest.mark.parametrize(("nodes", "line", "level", "words"), TRAPS)
def test_each_trap_is_found_with_its_line(tmp_path: Path, nodes: str, line: int, level: str, words: str):
    found = [(f.line, f.level, f.sentence) for f in lint(written(tmp_path, nodes))]
    assert [f for f in found if f[:2] == (line, level) and words in f[2]], found


def test_the_graph_that_we_ship_has_no_error():
    assert [finding.sentence for finding in lint(GRAPH) if finding.level == "error"] == []


def test_a_name_that_the_webhook_refuses_and_a_missing_timeout_are_said(tmp_path: Path):
    path = written(tmp_path, OK + "      - {name: a, serviceName: s}\n", name="Graph.1")
    path.write_text(path.read_text().replace("  routerTimeouts: {serviceClient: 1}\n", ""))
    assert [(f.line, f.level) for f in lint(path)] == [(3, "error"), (4, "warning")]


def test_the_command_counts_and_its_status_follows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["lint", str(written(tmp_path, OK + "      - {name: a, nodeName: rot}\n"))]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 errors, 0 warnings"
    assert main(["lint", str(GRAPH)]) == 0
    assert main(["lint", str(tmp_path / "none.yaml")]) == 2


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (OK + "      - {name: a, serviceName: s, dependancy: Hard}\n", "line 10: node 'root', step 0 ('a') has the key 'dependancy'"),
        ("    root:\n      routerType: Sequense\n      steps: [{serviceName: s}]\n", "line 8: node 'root' has routerType 'Sequense'"),
        (OK + "      - {name: a, serviceName: s, dependency: Hart}\n", "line 10: node 'root', step 0 ('a') has dependency 'Hart'"),
    ],
)
def test_what_a_cluster_refuses_is_told_with_its_line(tmp_path: Path, nodes: str, words: str):
    with pytest.raises(InputError) as problem:
        read_graph(written(tmp_path, nodes), {"a": "http://a"})
    assert words in str(problem.value)
