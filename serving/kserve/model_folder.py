"""Model folder -> its manifest and model bytes, refused unless file, features and manifest belong together."""

import hashlib
import json
from pathlib import Path

from promolift.contracts.artifacts import ModelManifest, read_manifest
from promolift.errors import InputError


def load_manifest(folder: Path) -> ModelManifest:
    """The manifest of a model folder. Raises InputError when it is missing, unreadable or without bounds."""
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError as problem:
        raise InputError(f"There is no model in {folder} (manifest.json is missing); name a model folder with --model.") from problem
    except OSError as problem:
        raise InputError(f"{folder / 'manifest.json'} cannot be read ({problem.strerror}); let this program's user read it.") from problem
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as problem:
        raise InputError(f"{folder / 'manifest.json'} is not a model manifest ({problem}); export the model again.") from problem
    unbounded = [promo.promo_id for promo in manifest.promos if not manifest.harm_bound.get(promo.promo_id)]
    if unbounded:
        raise InputError(f"Model '{manifest.name}' in {folder} has no harm_bound for {unbounded[0]}, so do-no-harm cannot be judged.")
    return manifest


def load_model(folder: Path, manifest: ModelManifest) -> bytes:
    """The bytes of model.tflite. Raises InputError unless their sha256 is the manifest's."""
    path = folder / "model.tflite"
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise InputError(f"Model file {path} cannot be read ({problem.strerror}); export the model again.") from problem
    digest = hashlib.sha256(content).hexdigest()
    if digest != manifest.sha256:
        raise InputError(f"Model file {path} has sha256 {digest}, but its manifest says {manifest.sha256}; it was changed or damaged.")
    return content


def need_digest(manifest: ModelManifest, sha256: str) -> None:
    """Raises InputError unless the model is the one whose digest the deployment names ("": any)."""
    if sha256 and manifest.sha256 != sha256:
        raise InputError(
            f"Model '{manifest.name}' has sha256 {manifest.sha256}, but this deployment is for {sha256} (PROMOLIFT_MODEL_SHA256); "
            "its folder was overwritten: deliver the right one, or deploy the new one."
        )


def need_features(manifest: ModelManifest, served: str) -> None:
    """Raises InputError unless the features that are `served` (their hash) are those that the model was trained on."""
    if served != manifest.features_hash:
        raise InputError(
            f"Model '{manifest.name}' was trained on features {manifest.features_hash}, but {served} are online; materialize the "
            "features of the model's own run, or train it again."
        )
