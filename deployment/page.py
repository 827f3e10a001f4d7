"""Rendered manifests and what was measured on a cluster -> the drawing and the figures of docs/cluster.md."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from deployment.pods import pods_of
from deployment.render import Build, kinds, render
from pipelines.images import ROOT
from promolift.contracts.decisions import NODES
from promolift.errors import ExpectationError, InputError
from promolift.kubectl import Document

PAGE = ROOT / "docs/cluster.md"
BEGIN, END = "<!-- generated: python -m deployment page -->", "<!-- end of generated -->"


def write(measured: Path, out: Path, *, check: bool) -> None:
    """Write the generated part of docs/cluster.md; `check`: only hold its drawing against the manifests.

    Raises InputError without figures, ExpectationError for a drawing that is not what the manifests say.
    """
    drawn = drawing(render(Build("local"), out))
    text = PAGE.read_text(encoding="utf-8")
    if check:
        if drawn not in text:
            raise ExpectationError("docs/cluster.md does not draw what the manifests say; run `python -m deployment page` and commit it.")
        return
    try:
        figures = json.loads(measured.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"{measured} cannot be read ({problem}); `make test-cluster` writes it.") from problem
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{drawn}\n\n{tables(figures)}\n\n{END}{after}", encoding="utf-8")


def drawing(documents: Sequence[Document]) -> str:
    """Mermaid: who asks whom, read off arguments, the graph's steps, and the secrets that pods name."""
    return "\n".join(["```mermaid", "flowchart LR", *dict.fromkeys(f"  {edge}" for edge in _edges(documents)), "```"])


def _edges(documents: Sequence[Document]) -> Iterator[str]:
    (graph,) = kinds(documents, "InferenceGraph")
    name = graph["metadata"]["name"]
    yield "caller([caller]) -->|X-API-Key| promo-engine[promo-engine]"
    yield f'promo-engine --> {name}{{{{"{name}, KServe\'s router"}}}}'
    for number, step in enumerate(graph["spec"]["nodes"]["root"]["steps"], 1):
        yield f"{name} -->|{number}| {step['serviceName']}[{step['serviceName']}]"
    for document in kinds(documents, "InferenceService"):
        if logger := document["spec"]["predictor"].get("logger"):
            copied = re.sub(r"^http://|-predictor\..*$", "", logger["url"])
            yield f"{document['metadata']['name']} -.->|copies, {logger['mode']}| {copied}[{copied}]"
    for pod in pods_of(documents):
        owner = pod.owner.split()[1]
        text = json.dumps(pod.spec)
        if "PROMOLIFT_REDIS_URL" in text:
            yield f"{owner} --> promo-redis[(promo-redis)]"
        if "STORAGE_URI" in text:
            yield f"s3[(S3)] -.->|model| {owner}"
        if place := re.search(r"--lake=(s3://[\w/]+)", text):
            yield f"{owner} -->|{place[1]}| s3"


def tables(figures: dict[str, Any]) -> str:
    """Hops, and what pods that came and went cost callers."""
    hops, parity = figures["hops"]["hops"], figures["parity"]
    lines = [
        f"Medians of {figures['hops']['count']} requests one after another, asked from a pod of another namespace:", "",
        "| asked | answer, ms | of that inside the box, ms |", "|---|---|---|",
        *(f"| {name} | {hops[name]['hop_ms']:.2f} | {hops[name].get('box_ms', '')} |" for name in ("engine", "graph", *NODES)), "",
        f"{parity['asked']:,} decisions through KServe's router, and in one process: {parity['unequal']} differ.",
        "", "20 requests a second, while a pod is killed as a lost node would kill it (one pod of each runs) or the predictor is",
        "replaced. Failed: not answered with 200. Degraded: answered in time, without a promo, because a part was away.", "",
        "| what | asked | failed | degraded | p50, ms | p99, ms |", "|---|---|---|---|---|---|",
        *(_disturbed(name, row) for name, row in figures.items() if name.split()[0] in {"kill", "roll"}),
        *_drift(figures), *_canaries(figures),
    ]  # fmt: skip
    return "\n".join(lines)


def _drift(figures: dict[str, Any]) -> Iterator[str]:
    """What the drift detector saw through KServe's payload logger, where that was tested."""
    if not {"drift", "logger"} <= figures.keys():
        return
    seen, cost = figures["drift"], figures["logger"]
    yield from ("", "The drift detector, which gets copies from KServe's agent beside the predictor:", "")
    yield (
        f"- {seen['answered']:,} decisions of the graph; its pod was killed in between, {seen['rows_lost']} rows of the window were lost. "
        f"A day of all shoppers: {seen['quiet']}. A day of the third with the least `{seen['column']}`: drift, p = {seen['p_value']:.0e}."
    )
    yield (
        f"- Copying costs {cost['with_ms'] - cost['without_ms']:.2f} ms: the predictor answers in {cost['with_ms']:.2f} ms through the "
        f"agent, in {cost['without_ms']:.2f} ms past it (medians of {cost['count']}, asked in turn)."
    )


def _canaries(figures: dict[str, Any]) -> Iterator[str]:
    """What canaries in the graph did, where they were tested."""
    if not (slow := figures.get("canary")):
        return
    yield from ("", "Canaries in the InferenceGraph, while shoppers ask the engine (failed: answered without graph, model or in time):", "")
    yield f"- {slow['approval_to_first_decision_s']} s from the approval to the candidate's first decision."
    yield f"- {slow['asked_twice']:,} shoppers asked KServe's router twice: {slow['share']:.1%} met the candidate, as their buckets say."
    yield f"- Made slow on purpose, it was rolled back; its last decision came {slow['rollback_s']} s after the order. {_failed(slow)}"
    for name in ("canary that always promotes", "champion and back"):
        if found := figures.get(name):
            why = f"rolled back by the guardrail {found['reason'].partition(':')[0]}" if "reason" in found else _back(found)
            yield f"- {name[0].upper()}{name[1:]}: {why}. {_failed(found)}"


def _back(found: dict[str, Any]) -> str:
    return f"its last decision came {found['rollback_s']} s after the reviewer's order"


def _failed(found: dict[str, Any]) -> str:
    failed = found.get("failed", 0)
    return f"{failed} of {found['answered'] + failed:,} answers failed."


def _disturbed(name: str, row: dict[str, Any]) -> str:
    failed = sum(count for status, count in row["statuses"].items() if status != "200")
    return f"| {name} | {row['count']} | {failed} | {row['degraded']} | {row['p50_ms']} | {row['p99_ms']} |"
