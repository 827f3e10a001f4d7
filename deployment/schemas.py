"""Documents -> what is wrong with them by their schemas, where a field that a schema does not know is an error.

Built-in kinds by the package kubernetes-validate; custom resources by manifests/schemas, made from their own CRD files. An API server drops
unknown fields silently unless it is asked not to, so that a typing error would be found in production.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from deployment.render import MANIFESTS
from promolift.errors import InputError
from promolift.kubectl import Document

KUBERNETES = "1.34"
SCHEMAS = MANIFESTS / "schemas"


def mistakes(documents: Sequence[Document]) -> Iterator[str]:
    """A sentence for each field that a schema refuses."""
    for document in documents:
        if "." in document["apiVersion"].split("/")[0] and (schema := _custom(document["apiVersion"], document["kind"])) is not None:
            found = [(error.absolute_path, error.message) for error in jsonschema.Draft7Validator(schema).iter_errors(document)]
        else:
            found = list(_built_in(document))
        for path, message in found:
            yield f"{name_of(document)}: {'.'.join(map(str, path)) or 'the document'}: {message}"


def name_of(document: Document) -> str:
    """Kind and name."""
    return f"{document['kind']} {document['metadata']['name']}"


def _built_in(document: Document) -> Iterator[tuple[Sequence[Any], str]]:
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as problem:
        yield problem.path, problem.message
    except kubernetes_validate.SchemaNotFoundError:
        yield [], f"there is no schema of {document['apiVersion']}; add its CRD with `python -m deployment schemas FILE`"


@cache
def _custom(api_version: str, kind: str) -> Document | None:
    path = _path(api_version, kind)
    if not path.exists():
        return None
    schema: Document = json.loads(gzip.decompress(path.read_bytes()))
    return schema


def _path(api_version: str, kind: str) -> Path:
    return SCHEMAS / f"{api_version.replace('/', '_')}_{kind}.json.gz"


def add(file: Path) -> list[Path]:
    """Write the schema of each CRD in a file, in the version that it is stored in. Raises InputError for a file without any."""
    crds = [d for d in yaml.safe_load_all(file.read_text(encoding="utf-8")) if d and d.get("kind") == "CustomResourceDefinition"]
    if not crds:
        raise InputError(f"{file} holds no CustomResourceDefinition; take it from a release of the kind's project.")
    SCHEMAS.mkdir(exist_ok=True)
    written = []
    for crd in crds:
        spec = crd["spec"]
        for version in (v for v in spec["versions"] if v["storage"]):
            path = _path(f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            path.write_bytes(gzip.compress(json.dumps(schema, sort_keys=True, separators=(",", ":")).encode(), mtime=0))
            written.append(path)
    return written


def strict(schema: Any) -> Any:
    """A CRD's schema as JSON schema: no descriptions, unknown fields refused, Kubernetes' int-or-string spelled out."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items() if not (key == "description" and isinstance(value, str))}
    if "properties" in found and "x-kubernetes-preserve-unknown-fields" not in found:
        found.setdefault("additionalProperties", False)
    if found.pop("x-kubernetes-int-or-string", False):
        found.pop("anyOf", None)
        found.pop("type", None)
        found["type"] = ["integer", "string"]
    return {key: value for key, value in found.items() if not key.startswith("x-kubernetes-") and key != "format"}
