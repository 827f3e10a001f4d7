"""Maven Central -> Settings.jars: the jars that delta-spark needs, resolved once so that no later start asks the network."""

import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import pyspark

from promolift.errors import PromoliftError, UnavailableError, usable
from promolift.java import check_java
from promolift.settings import load


def coordinates() -> str:
    """Maven coordinates of the installed delta-spark."""
    spark = ".".join(version("pyspark").split(".")[:2])
    return f"io.delta:delta-spark_{spark}_2.13:{version('delta-spark')}"


def _resolve(cache: Path) -> None:
    """Let Spark's own Ivy resolve the jars. The class does not exist: spark-submit resolves first and then ends without an application."""
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    command = [str(submit), "--packages", coordinates(), "--conf", f"spark.jars.ivy={cache}", "--class", "none.None", "spark-internal"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not list((cache / "jars").glob("*.jar")):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"Could not fetch {coordinates()} from Maven Central: {last}. Check the network and run `make setup` again.")


def fetch(jars: Path) -> bool:
    """Fill `jars`; false when it already holds this version. Raises UnavailableError when Maven Central cannot be reached."""
    stamp = jars / coordinates().replace(":", "_")
    if stamp.exists():
        return False
    check_java()
    with TemporaryDirectory() as folder:
        _resolve(Path(folder))
        with usable(jars, "set PROMOLIFT_JARS to a folder that can be written"):
            shutil.rmtree(jars, ignore_errors=True)
            shutil.copytree(Path(folder) / "jars", jars)
            stamp.touch()
    return True


def main() -> int:
    """Fetch into Settings.jars."""
    try:
        jars = load().jars
        fetched = fetch(jars)
    except PromoliftError as error:
        print(f"fetch_jars: {error}", file=sys.stderr)
        return error.exit_status
    print(f"fetch_jars: {len(list(jars.glob('*.jar')))} jars in {jars} ({'fetched' if fetched else 'already there'})", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
