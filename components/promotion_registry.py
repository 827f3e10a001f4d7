"""MLflow as a promotion sees it: a version's dossier and model, who is champion, and tags that mirror the trail."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.register_model import CHALLENGER, CHAMPION, DOSSIER, EVIDENCE, alias_version, registry_client
from promolift.errors import InputError, UnavailableError
from promolift.promotion.dossier import dossier_hash

STAGE = "stage"
"""The tag that mirrors the trail."""


class Registry:
    """One registered model. `cache`: where its files are brought. Raises UnavailableError whenever the registry does not answer."""

    def __init__(self, uri: str, name: str, cache: Path) -> None:
        self._client, self._name, self._cache = registry_client(uri), name, cache
        self._models: dict[str, Path] = {}

    def champion(self) -> str:
        """The version that reigns; "" for none."""
        return alias_version(self._client, self._name, CHAMPION) or ""

    def model(self, version: str) -> Path:
        """The version's model folder, brought here once: what serves it checks its digest."""
        if version not in self._models:
            self._models[version] = self._brought(version, "model")
        return self._models[version]

    def dossier(self, version: str) -> Path:
        """The version's dossier, brought here anew: what the registry has now is what counts."""
        return self._brought(version, EVIDENCE)

    def evidence(self, version: str) -> str:
        """The hash of the dossier as it is now. Raises InputError when it is not what was sealed."""
        found, said = dossier_hash(self.dossier(version)), str(self._version(version).tags.get(DOSSIER, ""))
        if found != said:
            raise InputError(f"The dossier of version {version} is {found[:12]}, but it was registered as {said[:12] or 'none'}.")
        return found

    def mirror(self, version: str, stage: str) -> None:
        """Say in the registry where the trail has the version."""
        with _answering():
            self._client.set_model_version_tag(self._name, version, STAGE, stage)

    def crown(self, version: str) -> None:
        """Make the version champion."""
        with _answering():
            self._client.set_registered_model_alias(self._name, CHAMPION, version)
            if alias_version(self._client, self._name, CHALLENGER) == version:
                self._client.delete_registered_model_alias(self._name, CHALLENGER)

    def _version(self, version: str) -> Any:
        with _answering():
            return self._client.get_model_version(self._name, version)

    def _brought(self, version: str, what: str) -> Path:
        place = self._cache / version
        place.mkdir(parents=True, exist_ok=True)
        with _answering():
            return Path(self._client.download_artifacts(self._version(version).run_id, what, str(place)))


@contextmanager
def _answering() -> Iterator[None]:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 (takes seconds)

    try:
        yield
    except (MlflowException, OSError) as problem:
        raise UnavailableError(f"The registry does not answer ({str(problem)[:200]}); nothing was changed.") from problem
