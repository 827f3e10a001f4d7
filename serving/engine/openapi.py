"""The engine's contract as an OpenAPI 3.1 document, derived from the classes in `promolift.contracts`."""

from functools import cache
from typing import Any

from promolift.contracts import engine as api
from promolift.contracts.decisions import Request, adapter

REF = "#/components/schemas/{model}"
CONTRACTS = (
    Request, api.Answer, api.Batch, api.Results, api.Redemption, api.Redeemed, api.BudgetChange, api.BudgetState, api.Explanation,
    api.Problem,
)  # fmt: skip


@cache
def document() -> dict[str, Any]:
    """The whole document."""
    components: dict[str, Any] = {}
    for kind in CONTRACTS:
        schema = adapter(kind).json_schema(ref_template=REF)
        components.update(schema.pop("$defs", {}))
        components[kind.__name__] = schema
    return {
        "openapi": "3.1.0",
        "info": {"title": "Promolift promo engine", "version": "1", "description": "One endpoint that answers with a promo or no_promo."},
        "security": [{"key": []}, {"bearer": []}],
        "paths": _paths(),
        "components": {"schemas": components, "securitySchemes": {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}, "bearer": {"type": "http", "scheme": "bearer"},
        }},
    }  # fmt: skip


def _paths() -> dict[str, Any]:
    decision = _parameter("decision_id", {"type": "string", "minLength": 1})
    budget = _parameter("name", {"type": "string", "minLength": 1})
    return {
        "/v1/decisions": {"post": _operation("decide", "A promo for one shopper.", "Request", "Answer", 409)},
        "/v1/decisions/batch": {"post": _operation("decideAll", "Promos for several shoppers.", "Batch", "Results")},
        "/v1/decisions/{decision_id}": {"get": _operation("explain", "Why it was decided so.", None, "Explanation", 404, decision)},
        "/v1/redemptions": {"post": _operation("redeem", "A till redeems a token, exactly once.", "Redemption", "Redeemed", 409)},
        "/v1/budgets": {"get": _operation("budgets", "All budgets.", None, None)},
        "/v1/budgets/{name}": {"put": _operation("setBudget", "A budget's new total.", "BudgetChange", "BudgetState", 409, budget, 404)},
    }


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _operation(name: str, summary: str, takes: str | None, gives: str | None, *more: Any) -> dict[str, Any]:
    """`more`: further statuses that are problems, and parameters."""
    statuses = [400, 401, 403, 405, 413, 429, 503, *(m for m in more if isinstance(m, int))]
    schema = {"$ref": REF.format(model=gives)} if gives else {"type": "object"}
    problem = {"application/problem+json": {"schema": {"$ref": REF.format(model="Problem")}}}
    found: dict[str, Any] = {
        "operationId": name, "summary": summary, "parameters": [m for m in more if isinstance(m, dict)],
        "responses": {"200": {"description": summary, "content": {"application/json": {"schema": schema}}},
                      **{str(status): {"description": "Why not.", "content": problem} for status in sorted(statuses)}},
    }  # fmt: skip
    if takes:
        found["requestBody"] = {"required": True, "content": {"application/json": {"schema": {"$ref": REF.format(model=takes)}}}}
    return found
