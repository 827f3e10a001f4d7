"""KServe's routing semantics, row by row, against steps that answer as told."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from promolift.errors import InputError
from serving.kserve import go_json, go_json_error
from serving.kserve.graph_file import parse_graph
from serving.kserve.router import Answer, Router, compile_patterns, exists

OK, ERROR = Answer(200, b'{"predictions": [{"message": "SUCCESS"}]}'), Answer(404, b'{"detail":"Intentional 404 code"}')
ANSWERS = {"http://ok": OK, "http://error": ERROR, "http://text": Answer(200, b"not json"), "http://list": Answer(200, b"[1]")}


class Steps:
    """Answers by URL and remembers what each step was sent; `http://echo` gives its body back, `http://down` is refused."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes, dict[str, str]]] = []

    async def __call__(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        self.calls.append((url, body, dict(headers)))
        if url == "http://down":
            raise OSError("connection refused")
        if url == "http://slow":
            await asyncio.sleep(30)
        return Answer(200, body) if url == "http://echo" else ANSWERS[url]


def step(name: str, target: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, ("serviceUrl" if "://" in target else "nodeName"): target, **fields}


def ask(nodes: dict[str, Any], body: bytes = b"{}", headers: tuple[tuple[str, str], ...] = (), patterns: str = "") -> tuple[Answer, Steps]:
    document = {
        "apiVersion": "serving.kserve.io/v1alpha1", "kind": "InferenceGraph", "metadata": {"name": "g"},
        "spec": {"nodes": {name: {"routerType": kind, "steps": steps} for name, (kind, steps) in nodes.items()}},
    }  # fmt: skip
    steps = Steps()
    router = Router(parse_graph(document, "test", {}), steps, compile_patterns(patterns))
    return asyncio.run(router.handle(body, headers)), steps


def sequence(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"root": ("Sequence", list(steps)), **more}


R = {"data": "$response"}
ERR_SWITCH = {"inner": ("Switch", [step("a", "http://error", condition="@this")])}
HARD_SWITCH = {"inner": ("Switch", [step("a", "http://error", condition="@this", dependency="Hard")])}
ERR_SPLIT = {"inner": ("Splitter", [step("a", "http://error", weight=100)])}


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (sequence(step("a", "http://ok"), step("b", "http://error", **R)), ERROR),
        (sequence(step("a", "http://error"), step("b", "http://ok", **R)), OK),
        (sequence(step("a", "http://error", dependency="Hard"), step("b", "http://ok", **R)), ERROR),
        (sequence(step("a", "inner"), step("b", "http://ok", **R), **ERR_SWITCH), OK),
        (sequence(step("a", "inner", dependency="Hard"), step("b", "http://ok", **R), **HARD_SWITCH), ERROR),
        (sequence(step("a", "inner", dependency="Soft"), step("b", "http://ok", **R), **HARD_SWITCH), OK),
        (sequence(step("a", "inner"), step("b", "http://ok", **R), **ERR_SPLIT), OK),
        (sequence(step("a", "inner", dependency="Hard"), step("b", "http://ok", **R), **ERR_SPLIT), ERROR),
    ],
)
def test_soft_and_hard_dependencies(graph: dict[str, Any], expected: Answer):
    assert ask(graph)[0] == expected


def test_a_sequence_gives_each_step_the_input_or_the_previous_response():
    graph = sequence(step("a", "http://ok"), step("b", "http://echo"), step("c", "http://error"), step("d", "http://echo", **R))
    answer, steps = ask(graph, b'{"n":  1}')
    assert [body for _, body, _ in steps.calls] == [b'{"n":  1}', b'{"n":  1}', b'{"n":  1}', ERROR.body]
    assert answer == Answer(200, ERROR.body)


@pytest.mark.parametrize("data", ["$request", "$response.predictions", "response"])
def test_other_data_means_the_input(data: str):
    assert ask(sequence(step("a", "http://ok"), step("b", "http://echo", data=data)), b'{"in": 1}')[0].body == b'{"in": 1}'


def test_data_has_no_effect_on_the_first_step():
    assert ask(sequence(step("a", "http://echo", **R)), b'{"in": 1}')[0].body == b'{"in": 1}'


def test_bytes_pass_untouched():
    body = b'{ "big": 9007199254740993, "f": 0.10, "s": "\\u00e9<&>" }'
    assert ask(sequence(step("a", "http://echo"), step("b", "http://echo", **R)), body)[0].body == body


def test_an_unmet_condition_stops_with_200_and_the_previous_body():
    answer, steps = ask(sequence(step("a", "http://error"), step("b", "http://echo", condition="missing", **R)))
    assert (answer, len(steps.calls)) == (Answer(200, ERROR.body), 1)


def test_an_inner_stop_does_not_stop_the_outer_sequence():
    inner = {"inner": ("Sequence", [step("x", "http://echo"), step("y", "http://error", condition="missing", **R)])}
    answer, steps = ask(sequence(step("a", "inner"), step("b", "http://ok", **R), **inner))
    assert (answer, [url for url, _, _ in steps.calls]) == (OK, ["http://echo", "http://ok"])


@pytest.mark.parametrize(
    ("graph", "status", "cause"),
    [
        (sequence(step("a", "http://ok", condition="@this")), 500, "invalid response"),
        (sequence(step("a", "http://text"), step("b", "http://ok", condition="@this")), 500, "invalid response"),
        (sequence(step("a", "http://down")), 500, "connection refused"),
        (sequence(step("a", "http://ok"), step("b", "http://down", dependency="Soft")), 500, "connection refused"),
        (sequence(step("a", "nowhere")), 500, "invalid route type: "),
        ({"root": ("Switch", [step("a", "http://ok", condition="missing")])}, 404, "None of the routes matched"),
        (sequence(step("a", "i"), i=("Switch", [step("a", "http://ok", condition="x")])), 500, "None of the routes matched"),
        ({"root": ("Ensemble", [step("a", "http://ok"), step("b", "http://down")])}, 500, "connection refused"),
        ({"root": ("Ensemble", [step("a", "http://list")])}, 500, "cannot unmarshal array"),
        ({"root": ("Ensemble", [step("a", "http://text")])}, 500, ""),
        ({"root": ("Ensemble", [step("a", "http://slow"), step("b", "http://down")])}, 500, "connection refused"),
    ],
)
def test_errors_of_the_graph(graph: dict[str, Any], status: int, cause: str):
    answer, _ = ask(graph)
    document = json.loads(answer.body)
    assert answer.status == status
    assert document["error"] == "Failed to process request"
    assert cause in document["cause"]


def test_a_switch_takes_the_first_match_and_an_empty_condition_never_matches():
    steps = [step("a", "http://error"), step("b", "http://echo", condition="[@this].#(n<10)"), step("c", "http://ok", condition="@this")]
    assert ask({"root": ("Switch", steps)}, b'{"n": 3}')[0].body == b'{"n": 3}'
    assert ask({"root": ("Switch", steps)}, b'{"n": 30}')[0] == OK
    assert ask({"root": ("Switch", steps)}, b"no json")[0].status == 404


def test_an_ensemble_merges_objects_and_reencodes_numbers_as_go_does():
    steps = [step("request", "http://echo"), step("", "http://error"), step("", "http://ok")]
    answer, _ = ask({"root": ("Ensemble", steps)}, b'{"b": 9007199254740993, "a": [0.10, 2.0, 1e21, 1e-7, "<&>"]}')
    expected = (
        b'{"1":{"detail":"Intentional 404 code"},"2":{"predictions":[{"message":"SUCCESS"}]},'
        b'"request":{"a":[0.1,2,1e+21,1e-7,"\\u003c\\u0026\\u003e"],"b":9007199254740992}}'
    )
    assert answer == Answer(200, expected)


def test_the_first_hard_failure_in_step_order_answers_for_an_ensemble():
    steps = [step("a", "http://ok", dependency="Hard"), step("b", "http://error", dependency="Hard")]
    assert ask({"root": ("Ensemble", steps)})[0] == ERROR


def test_a_splitter_draws_by_weight():
    graph = {"root": ("Splitter", [step("a", "http://ok", weight=20), step("b", "http://error", weight=80)])}
    drawn = Counter(ask(graph)[0].status for _ in range(600))
    assert drawn[404] / 600 == pytest.approx(0.8, abs=0.08)


def test_predictions_become_instances_and_everything_else_is_dropped():
    graph = sequence(step("a", "http://ok"), step("b", "http://echo", mapPredictionsToInstances=True, **R))
    assert ask(graph)[0].body == b'{"instances":[{"message":"SUCCESS"}]}'
    graph = sequence(step("a", "http://echo"), step("b", "http://echo", mapPredictionsToInstances=True, **R))
    assert ask(graph, b'{"predictions": []}')[0].body == b'{"predictions": []}'


def test_headers_pass_only_by_pattern_and_canonical_name():
    headers = (("x-request-id", "7"), ("authorization", "secret"), ("content-type", "text/csv"), ("host", "here"))
    graph = sequence(step("a", "http://ok"))
    assert ask(graph, headers=headers)[1].calls[0][2] == {"Content-Type": "application/json"}
    for pattern, expected in (("X-Request", {"X-Request-Id": "7"}), ("x-request", {}), ("*bad*,(?i)^x-", {"X-Request-Id": "7"})):
        sent = ask(graph, headers=headers, patterns=pattern)[1].calls[0][2]
        assert sent == {"Content-Type": "application/json", **expected}
    assert ask(graph, headers=headers, patterns="Host,Content-Type")[1].calls[0][2] == {"Content-Type": "text/csv"}


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("false", True), ("zero", True), ("null", True), ("empty", True), ("text", True), ("missing", False), ("", False),
        ("empty.#", True), ("empty.0", False), ("p.0", True), ("p.0.score>0.5", False), ("p.#(score>0.5)", True),
        ("p.#(score>0.9)", False), ("p.#(label==dog)", True), ("[@this].#(false==true)", False), ("[@this].#(zero<10)", True),
        # gjson has no "and": KServe's own documentation uses it, and it matches what it should not.
        ("p.#(score>0.6 && score<0.65)", True),
    ],
)  # fmt: skip
def test_conditions_ask_whether_a_path_exists(condition: str, expected: bool):
    body = b'{"false":false,"zero":0,"null":null,"empty":[],"text":"","p":[{"score":0.7,"label":"dog"},{"score":0.2}]}'
    assert exists(body, condition) is expected


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1e20, "100000000000000000000"), (1.5e-9, "1.5e-9"), (-2.5, "-2.5"), (1e300, "1e+300")]
)
def test_numbers_as_go_writes_them(value: float, text: str):
    assert go_json.write(value) == text


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53))
def test_a_number_written_as_go_writes_it_is_the_same_number(number: float):
    assert float(json.loads(go_json.write(float(number)))) == float(number)


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_a_document_written_as_go_writes_it_is_the_same_document(document: Any):
    assert json.loads(go_json.write(document)) == document


def graph_document(**nodes: Any) -> dict[str, Any]:
    return {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "InferenceGraph", "spec": {"nodes": nodes}}


# What KServe's own router answered to these bodies; tests/serving/test_kserve_router.py asks it again.
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "unexpected end of JSON input"),
        (b'{"a": [1', "unexpected end of JSON input"),
        (b'{"a": fal', "invalid character ' ' in literal false (expecting 's')"),
        (b"no JSON", "invalid character 'o' in literal null (expecting 'u')"),
        (b"sick", "invalid character 's' looking for beginning of value"),
        (b'{"n": -', "invalid character ' ' in numeric literal"),
        (b'{"n": 2.5e+', "invalid character ' ' in exponent of numeric literal"),
        (b'{"n": 1} 2', "invalid character '2' after top-level value"),
        (b'{"n" 1}', "invalid character '1' after object key"),
        (b'{"n": 1 "m"}', "invalid character '\"' after object key:value pair"),
        (b"{'n': 1}", "invalid character '\\'' looking for beginning of object key string"),
        (b'["\\ud8 "]', "invalid character ' ' in \\u hexadecimal character escape"),
        (b'["\n"]', "invalid character '\\n' in string literal"),
    ],
)
def test_what_is_no_json_is_said_in_gos_words(body: bytes, sentence: str):
    with pytest.raises(ValueError, match="^" + re.escape(sentence) + "$"):
        go_json.read_object(body)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_json_has_no_error(document: Any):
    assert go_json_error.sentence(json.dumps(document).encode()) == ""
    assert go_json_error.sentence(json.dumps(document, ensure_ascii=False, indent=1).encode()) == ""


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "no Kubernetes object"),
        ({"apiVersion": "v1", "kind": "Pod"}, "'Pod' of 'v1'"),
        (graph_document(), "a node named 'root'"),
        (graph_document(root={"routerType": "Loop", "steps": [{}]}), "routerType 'Loop'"),
        (graph_document(root={"routerType": "Switch", "steps": []}), "no steps"),
        (graph_document(root={"routerType": "Switch", "steps": [{"name": "a"}]}), "exactly one of"),
        (graph_document(root={"routerType": "Switch", "steps": [{"name": "a", "serviceName": "s"}]}), "--url a=URL"),
        (graph_document(root={"routerType": "Switch", "steps": [{"serviceUrl": "u", "dependency": "Maybe"}]}), "'Maybe'"),
        (graph_document(root={"routerType": "Splitter", "steps": [{"serviceUrl": "u", "weight": 99}]}), "add up to 99"),
        (graph_document(root={"routerType": "Switch", "steps": [{"nodeName": "root"}]}), "back to itself"),
    ],
)  # fmt: skip
def test_a_wrong_graph_file_gets_one_sentence(document: Any, words: str):
    with pytest.raises(InputError) as problem:
        parse_graph(document, "graph.yaml", {})
    assert words in str(problem.value)
    assert "\n" not in str(problem.value)


TEXTS = st.sampled_from(["", "x", "root", "$response", "Hard", "Sequence", "9" * 300, "2020-99-99"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def places(document: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Path of every value in the document."""
    inner = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    return [here, *(path for key, value in inner for path in places(value, (*here, key)))]


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy with `value` at `path`; `...` takes the value away."""
    if not path:
        return None if value is ... else value
    copy = list(document) if isinstance(document, list) else dict(document)
    if len(path) == 1 and value is ...:
        del copy[path[0]]
    elif len(path) == 1:
        copy[path[0]] = value
    else:
        copy[path[0]] = changed(document[path[0]], path[1:], value)
    return copy


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_to_a_graph_file_gives_a_graph_or_a_sentence(data: st.DataObject):
    document = yaml.safe_load(Path("serving/kserve/graph.yaml").read_text())
    document["spec"]["routerTimeouts"] = {"serviceClient": 2}
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(document)))
        document = changed(document, path, data.draw(JUNK | st.just(...)))
        if not isinstance(document, dict | list):
            break
    try:
        graph = parse_graph(document, "graph.yaml", {})
    except InputError as problem:
        assert str(problem).startswith("graph.yaml") and str(problem).endswith(".")
    else:
        assert all(isinstance(step.weight, int) and isinstance(step.url, str) for node in graph.nodes.values() for step in node.steps)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("spec", "nodes", "root", "steps", 1, "serviceUrl"), 5, r"step 1: serviceUrl is '5' of type int; it must be of type str\."),
        (("spec", "nodes", "root", "steps", 0, "weight"), True, r"weight is 'True' of type bool; it must be of type int\."),
        (("spec", "routerTimeouts"), {"serviceClient": "2s"}, r"spec\.routerTimeouts: serviceClient is '2s' of type str"),
        (("spec", "routerTimeouts"), {"serviceClient": -1}, r"serviceClient is -1; it must be 1 or more"),
        (("metadata",), ["g"], r"metadata is \"\['g'\]\" of type list; it must be of type dict\."),
    ],
)
def test_a_value_of_another_type_is_named_with_its_place(path: tuple[Any, ...], value: Any, sentence: str):
    document = changed(yaml.safe_load(Path("serving/kserve/graph.yaml").read_text()), path, value)
    with pytest.raises(InputError, match=sentence):
        parse_graph(document, "graph.yaml", {name: "http://x" for name in ("transformer", "eligibility", "predictor", "constraints")})
