"""The service-level file -> what a scenario must keep, and what it broke."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked

from promolift.yaml_file import read_yaml

Scenario = Literal[
    "ramp", "spike", "soak", "hot_shopper", "cold_start", "redis_restart", "predictor_killed", "each_killed", "slow_features", "cluster",
]  # fmt: skip
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
FILE = Path(__file__).with_name("service_level.yaml")


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class ServiceLevel:
    """Latencies (ms), shares and memory (MiB: of one process, and what it grows by) at most, answers a second at least."""

    p50_ms: float = Field(gt=0)
    p95_ms: float = Field(gt=0)
    p99_ms: float = Field(gt=0)
    error_share: float = Field(ge=0, le=1)
    degraded_share: float = Field(ge=0, le=1)
    node_mib: float = Field(gt=0)
    growth_mib: float = Field(ge=0)
    least_per_s: float = Field(ge=0)

    def breaches(self, measured: Mapping[str, Any]) -> list[str]:
        """A sentence for everything that `measured`, of the same names with `per_s`, does not keep; what was not measured is not judged."""
        most = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "least_per_s"}
        lines = [
            f"{name} is {measured[name]:g}, at most {limit:g} was promised" for name, limit in most.items() if measured.get(name, 0) > limit
        ]
        slow = measured["per_s"] < self.least_per_s
        return [*lines, *([f"{measured['per_s']:g} answers a second came, at least {self.least_per_s:g} were promised"] if slow else [])]


def read_service_level(path: Path, scenario: str) -> ServiceLevel:
    """What the file says of a scenario. Raises InputError with file and line."""
    file = read_yaml(path, "Service-level file", "--level")
    file.only(file.mapping(), ("defaults", "scenarios"), "key")
    file.only(file.mapping("scenarios"), SCENARIOS, "scenario", "scenarios")
    own = {**file.mapping("defaults"), **file.mapping("scenarios", scenario)}
    level: ServiceLevel = file.checked(ServiceLevel, own, f"scenario '{scenario}', ", "scenarios", scenario)
    return level
