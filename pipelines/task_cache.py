"""KFP's local cache, made safe for stages whose outputs lie in one place of the run folder.

KFP keeps every result it ever saw and identifies an artifact by its URI and metadata. Here a rerun overwrites what an earlier entry
points at, so: one entry a task; a task that starts to run loses its entry first; and a task that ran marks its artifacts, so that
everything after it runs too.
"""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kfp import dsl
from kfp.local import cache


class TaskCache(cache.LocalCache):  # type: ignore[misc]
    """One entry a task, named after it; `outputs` collects what each task of this process gave, reused or not."""

    def __init__(self, cache_root: str) -> None:
        super().__init__(cache_root)
        self.outputs: dict[str, dict[str, Any]] = {}

    def compute_key(self, component_name: str, *args: Any, **kwargs: Any) -> str:
        """KFP's key behind the task's name."""
        return f"{component_name.removeprefix('comp-')}.{super().compute_key(component_name, *args, **kwargs)}"

    def get(self, key: str) -> dict[str, Any] | None:
        """The outputs of an unchanged task; None after forgetting what the task gave before."""
        try:
            found: dict[str, Any] | None = super().get(key)
        except (AttributeError, KeyError, TypeError, ValueError):  # JSON, but no entry: KFP itself takes only broken JSON for a miss
            found = None
        task = key.split(".", maxsplit=1)[0]
        if found is None:
            for entry in Path(self.cache_root).glob(f"{task}.*.json"):
                entry.unlink()
        else:
            self.outputs[task] = found
        return found

    def put(self, key: str, outputs: dict[str, Any]) -> None:
        """Keep the outputs, each artifact marked with the time of the run that made it."""
        for output in outputs.values():
            if isinstance(output, dsl.Artifact):
                output.metadata["made_at"] = time.time()
        super().put(key, outputs)
        self.outputs[key.split(".", maxsplit=1)[0]] = outputs

    @classmethod
    @contextlib.contextmanager
    def installed(cls) -> Iterator[None]:
        """Make KFP's local runner use this cache."""
        original = cache.LocalCache
        cache.LocalCache = cls
        try:
            yield
        finally:
            cache.LocalCache = original
            cache.reset_local_cache_singleton()
