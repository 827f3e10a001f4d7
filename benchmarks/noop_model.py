"""A `kserve.Model` that gives back what it was sent, under KServe's own server as it comes: what benchmarks/routers.py compares with.

python -m benchmarks.noop_model --http_port PORT --grpc_port PORT
"""

from typing import Any

import kserve


class Noop(kserve.Model):  # type: ignore[misc] # kserve has no types
    """Ready at once; its answer is its input."""

    def __init__(self) -> None:
        super().__init__("noop")
        self.ready = True

    async def predict(self, payload: Any, headers: dict[str, str] | None = None, response_headers: dict[str, str] | None = None) -> Any:
        """The payload."""
        return payload


if __name__ == "__main__":
    kserve.ModelServer().start([Noop()])
