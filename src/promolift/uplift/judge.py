"""A randomised file and scores that somebody else made -> DIR/report.html and DIR/result.json, and the verdict in a few lines.

`python -m promolift.uplift.judge --help` teaches it by an example.
"""

import argparse
import math
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from promolift.contracts.artifacts import write_json
from promolift.errors import InputError, PromoliftError
from promolift.uplift.judge_input import Request, read_columns
from promolift.uplift.judge_options import Options
from promolift.uplift.judging import document
from promolift.uplift.page import render

EXAMPLE = """\
example: a randomised e-mail test, two scores, promos for at most 30 % of the customers

  customer,sent,visited,new_score,old_score
  1,mail,1,0.081,0.02
  2,none,0,0.012,0.05
  ...

  python -m promolift.uplift.judge test.csv --arm sent --outcome visited --score new_score --score old_score \\
      --cluster customer --budget 0.3 --out judged

The first --score is the candidate, the second the champion. A score is the predicted gain in the outcome of giving the promo; one that
only ranks can be judged too, but fails the checks of calibration. The outcome is judged as it stands: for profit, give margin less
promo cost. With several promos, '--score s' means the columns s_<arm>; where there are none, the promos are judged as one. The file must be
randomised, and rows that were used to fit a score should not be in it. Rows are counted from 1, the header not included.

exit status: 0 judged, whatever the verdict; 2 bad input; 4 a library or the folder cannot be had
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m promolift.uplift.judge", description="Judge scores of an uplift model on a randomised file.",
        epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    made.add_argument("file", type=Path, metavar="FILE", help="CSV, CSV.GZ or Parquet, one row a decision")
    made.add_argument("--arm", required=True, metavar="COL", help="what the row was given")
    made.add_argument("--outcome", required=True, metavar="COL", help="what is to be raised, a number")
    made.add_argument("--score", required=True, action="append", metavar="COL", help="a model's score; repeat for more models")
    made.add_argument("--champion", default="", metavar="COL", help="the score in use (default: the second --score)")
    made.add_argument("--control", default="", metavar="VALUE", help="the arm that got nothing (default: 0, control, none and the like)")
    made.add_argument("--promo", action="append", default=[], metavar="VALUE", help="judge this arm against control only; repeatable")
    made.add_argument(
        "--propensity", default="", metavar="COL",
        help="columns COL_<arm> with each arm's probability, or, with two arms, COL with that of the arm given (default: arm shares)",
    )  # fmt: skip
    made.add_argument("--cost", default="", metavar="COL", help="what the promo cost in this row, cents (default: each promo counts as 1)")
    made.add_argument("--cluster", default="", metavar="COL", help="the unit that was randomised, such as the shopper (default: the row)")
    made.add_argument("--segment", action="append", default=[], metavar="COL", help="look for harm by this column; repeatable")
    made.add_argument("--budget", type=float, metavar="CENTS", help="cents per row, or without --cost a share of rows (default: no limit)")
    made.add_argument("--resamples", type=int, default=400, help="half samples for the intervals (default: 400)")
    made.add_argument("--seed", type=int, default=1, help="of folds and half samples (default: 1)")
    made.add_argument("--simulated", default="", metavar="SENTENCE", help="what in the file is simulated; the report repeats it")
    made.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for report.html and result.json")
    return made


def judge_file(request: Request, options: Options, out: Path) -> dict[str, Any]:
    """Judge and write both files; returns what result.json holds. Raises InputError or UnavailableError with a whole sentence."""
    folder = _writable(out)
    columns = read_columns(request)
    found: dict[str, Any] = finite(document(columns, request.outcome, options) | {"versions": versions()})
    page = render(found)
    try:
        write_json(folder / "result.json", found)
        (folder / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise _not_writable(out, error) from error
    return found


def versions() -> dict[str, str]:
    """Versions of what computed the numbers and drew the page."""
    found = {"python": platform.python_version()}
    for name in ("promolift", "numpy", "pandas", "pyarrow", "matplotlib", "jinja2"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def finite(value: Any) -> Any:
    """The document with numbers that JSON has no word for (NaN, infinity) as null."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _writable(out: Path) -> Path:
    """The folder, made if need be and tried before anything is computed."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _not_writable(out, error) from error
    return out


def _not_writable(out: Path, error: OSError) -> InputError:
    return InputError(f"--out {out} cannot be written to ({error.strerror}); give a folder that can.")


def _say(found: dict[str, Any], out: Path) -> None:
    lines = [found["propensities"]] if found["estimated"] else []
    lines.append(f"Candidate '{found['candidate']}', " + (f"champion '{found['champion']}'." if found["champion"] else "no champion."))
    lines += [f"{found['answer'].upper()}: {found['sentence']}", *(f"- {reason}" for reason in found["reasons"][:4])]
    lines += [f"- {len(found['reasons']) - 4} more reasons in the report."] * (len(found["reasons"]) > 4)
    lines += [f"Warning: {warning}" for warning in found["warnings"]]
    print(*lines, *([found["power"]] if found["power"] else []), f"Read {out / 'report.html'}; every number is in result.json.", sep="\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; a failure prints its sentence and gives the status of its class."""
    given = parser().parse_args(arguments)
    request = Request(
        given.file, given.arm, given.outcome, tuple(dict.fromkeys(given.score)), given.control, tuple(dict.fromkeys(given.promo)),
        given.propensity, given.cost, given.cluster, tuple(dict.fromkeys(given.segment)),
    )  # fmt: skip
    options = Options(given.budget, given.resamples, given.seed, given.champion, given.simulated)
    try:
        _say(judge_file(request, options, given.out), given.out)
    except PromoliftError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
