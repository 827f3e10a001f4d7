"""A small YAML file -> what each column of somebody's randomised experiment means; a mistake in it is a sentence.

file: trial.csv.gz             # CSV or Parquet, relative to this YAML file
arm: segment                   # who was given what
control: No E-Mail             # the arm without a promo; not needed for 0, false, control, none ...
outcome: visit                 # yes or no (0 or 1); or
value: spend                   # an amount of money (3.5 is 350 cents); or both: the policy then maximises value
features: [recency, history]   # known BEFORE the arm was drawn: whatever came after it would leak the outcome
cost: {Womens E-Mail: 0.01}    # money an arm costs, or the name of a column of money; nothing: promos are free
propensity: p                  # columns p_<arm>, or with two arms p of the arm given; or
shares: {No E-Mail: 0.5, Womens E-Mail: 0.5}   # the design's; neither: the file's own shares, and the report says so
shopper: customer              # the unit that was drawn; nothing: each row is another shopper
time: sent_at                  # when the arm was drawn; nothing: all at once
segments: [channel]            # predeclared: no segment may be harmed
budget: 0.005                  # money per decision; nothing: half of what promos cost on average
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from promolift.errors import InputError
from promolift.yaml_file import nearest, read_yaml


class TableSpec(BaseModel):
    """Meaning of the columns, as the head of this file explains; "" and () where there is none. Money is in the main unit."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    file: Path
    arm: str
    features: tuple[str, ...] = Field(min_length=1)
    outcome: str = ""
    value: str = ""
    control: str = ""
    cost: str | dict[str, float] = ""
    propensity: str = ""
    shares: dict[str, float] = {}
    shopper: str = ""
    time: str = ""
    segments: tuple[str, ...] = ()
    budget: float | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _whole(self) -> "TableSpec":
        if not (self.outcome or self.value):
            raise ValueError("name `outcome` (a column of 0 and 1), `value` (a column of money), or both")
        if self.propensity and self.shares:
            raise ValueError("name `propensity` (columns of the file) or `shares` (of the design), not both")
        unknown = [name for name in self.segments if name not in self.features]
        if unknown:
            raise ValueError(f"segment '{unknown[0]}' is not among `features`; name it there too")
        played = [self.arm, self.outcome, self.value, self.shopper, self.time, *([self.cost] if isinstance(self.cost, str) else [])]
        leak = [name for name in self.features if name in played]
        if leak:
            raise ValueError(f"'{leak[0]}' is a feature and something else too; what follows the decision must not be a feature")
        twice = [name for name in self.features if self.features.count(name) > 1]
        if twice:
            raise ValueError(f"feature '{twice[0]}' is named twice")
        return self


def read_spec(path: Path) -> TableSpec:
    """The YAML file at `path`; its `file` is found beside it. Raises InputError that names the key, its value and what is legal."""
    if not path.is_file():
        raise InputError(f"There is no file '{path}'; source table needs --path of a YAML file that says what each column means.")
    file = read_yaml(path, "YAML file", "--path")
    if not isinstance(file.data, dict):
        raise InputError(f"{path} holds {type(file.data).__name__}, not keys with values such as `arm: segment`.")
    try:
        spec = TableSpec.model_validate(file.data)
    except ValidationError as problem:
        sentence = f"{_sentence(problem, file.data)} `components/sources/table_spec.py` shows a whole example."
        raise file.wrong(problem.errors()[0]["loc"], sentence) from problem
    return spec.model_copy(update={"file": spec.file if spec.file.is_absolute() else path.parent / spec.file})


def _sentence(problem: ValidationError, document: dict[str, Any]) -> str:
    first = problem.errors()[0]
    if not first["loc"]:
        return f"{first['ctx']['error']!s}."
    key = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"there is no key '{key}'; {nearest(key, TableSpec.model_fields)}."
    if first["type"] == "missing":
        return f"key '{key}' is missing; it has {', '.join(map(str, document))}."
    return f"key '{key}' has the value {first['input']!r}: {first['msg']}."
