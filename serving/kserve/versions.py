"""What decided: rules, parameters and models by version, kept beside the decision log so that any logged decision can be made again."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

from promolift.errors import InputError
from promolift.policy.constraints import Policy
from promolift.settings import Settings
from serving.kserve.boxes import Sources, policy_of, rules_of
from serving.kserve.model_folder import load_manifest

FOLDER = "versions"


def keep(sources: Sources, settings: Settings, folder: Path) -> None:
    """Copy what these sources decide by to `folder`/versions, unless it is there."""
    manifest = load_manifest(sources.model)
    rules, policy = rules_of(sources, manifest), policy_of(settings)
    model = folder / FOLDER / "models" / manifest.version
    if not model.exists():
        shutil.copytree(sources.model, model)
    _once(folder / FOLDER / "rules" / f"{rules.version}.yaml", sources.rules.read_bytes())
    _once(folder / FOLDER / "policies" / f"{_digest(policy)}.json", json.dumps(_parameters(policy)).encode())


def kept(folder: Path, kind: str, name: str) -> Path:
    """Where a version is. Raises InputError when it was not kept."""
    path = folder / FOLDER / kind / name
    if not path.exists():
        raise InputError(f"Version {name} of {kind} is not in {folder / FOLDER}; decisions made by it cannot be made again.")
    return path


def policy_named(folder: Path, version: str, salt: str) -> Policy:
    """The policy whose `version` a decision logged. Raises InputError when it was not kept or the salt is another one."""
    for path in sorted((folder / FOLDER / "policies").glob("*.json")):
        policy = Policy(**json.loads(path.read_text(encoding="utf-8")), hash_salt=salt)
        if policy.version == version:
            return policy
    raise InputError(f"No kept policy has the version '{version}' under this PROMOLIFT_HASH_SALT.")


def _parameters(policy: Policy) -> dict[str, object]:
    """Everything but the salt, which is a secret."""
    return {name: value for name, value in asdict(policy).items() if name != "hash_salt"}


def _digest(policy: Policy) -> str:
    return hashlib.sha256(policy.version.encode()).hexdigest()[:16]


def _once(path: Path, content: bytes) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
