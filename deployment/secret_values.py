"""Secrets that manifests only name -> made in the cluster where they are not there yet, and read from it."""

import json
import secrets
from pathlib import Path

from deployment import release
from promolift.kubectl import NAMESPACE, Document, Kubectl
from serving.engine.auth import SCOPES, keys_in


def make_secrets(kubectl: Kubectl, out: Path) -> None:
    """Make promo-secrets and promo-api-keys unless they are there; promo-s3 follows the environment. `out` keeps the API key, once."""
    kubectl.apply([s3_secret()])
    if not _is_there(kubectl, "promo-secrets"):
        password = secrets.token_urlsafe(24)
        kubectl.apply([_document("promo-secrets", {
            "redis_password": password, "redis_url": f"redis://:{password}@promo-redis:6379/0", "redis_conf": f"requirepass {password}\n",
            "token_keys": json.dumps({"k1": secrets.token_urlsafe(32)}), "hash_salt": secrets.token_urlsafe(12),
        })])  # fmt: skip
    if not _is_there(kubectl, "promo-api-keys"):
        keys, key = out / "api_keys.json", out / "api_key"
        keys.unlink(missing_ok=True)
        key.touch(0o600)
        key.write_text(keys_in(keys).add("local", list(SCOPES)), encoding="utf-8")
        kubectl.apply([_document("promo-api-keys", {"api_keys.json": keys.read_text(encoding="utf-8")})])


def s3_secret(namespace: str = NAMESPACE) -> Document:
    """promo-s3 by the environment, annotated as KServe's storage initializer reads it. Raises InputError for a variable that is not set."""
    given = release.credentials()
    scheme, _, host = given["AWS_ENDPOINT_URL"].partition("://")
    storage = {"s3-endpoint": host, "s3-usehttps": str(int(scheme == "https")), "s3-region": given["AWS_REGION"]}
    return _document("promo-s3", given, {f"serving.kserve.io/{name}": value for name, value in storage.items()}, namespace)


def _is_there(kubectl: Kubectl, name: str) -> bool:
    return kubectl.attempt("-n", NAMESPACE, "get", "secret", name).returncode == 0


def _document(name: str, values: dict[str, str], annotations: dict[str, str] | None = None, namespace: str = NAMESPACE) -> Document:
    metadata = {"name": name, "namespace": namespace, "annotations": annotations or {}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "stringData": values}
