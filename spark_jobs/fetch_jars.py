"""Maven Central -> Settings.jars: jars that Delta and S3 need beside Spark's own, resolved once so that no later start asks the network."""

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

AWS = "2.35.4"
"""The AWS SDK with which Hadoop 3.5 is built. Its parts: the bundle that hadoop-aws names holds every service of Amazon, 686 MB."""
SPARKS_OWN = (
    "org.apache.hadoop:hadoop-client-*", "org.apache.parquet:*", "org.apache.logging.log4j:*", "org.apache.httpcomponents:*", "org.slf4j:*",
    "org.xerial.snappy:*", "org.roaringbitmap:*", "com.fasterxml.jackson.*:*", "com.github.luben:*", "io.airlift:*", "io.netty:*",
    "commons-*:*", "javax.annotation:*", "org.locationtech.jts:*",
)  # fmt: skip
"""What Spark brings itself, in its own versions."""
NOT_NEEDED = ("software.amazon.awssdk:bundle", "org.wildfly.openssl:wildfly-openssl")


def coordinates() -> list[str]:
    """Maven coordinates: the installed delta-spark, and S3A of the Hadoop that pyspark brings."""
    spark = ".".join(version("pyspark").split(".")[:2])
    (hadoop,) = (Path(pyspark.__file__).parent / "jars").glob("hadoop-client-api-*.jar")
    aws = [f"software.amazon.awssdk:{part}:{AWS}" for part in ("s3-transfer-manager", "sts", "apache-client")]
    s3a = f"org.apache.hadoop:hadoop-aws:{hadoop.stem.rsplit('-', 1)[-1]}"
    return [f"io.delta:delta-spark_{spark}_2.13:{version('delta-spark')}", s3a, *aws]


def _resolve(cache: Path) -> None:
    """Let Spark's own Ivy resolve the jars. The class does not exist: spark-submit resolves first and then ends without an application."""
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    wanted, without = ",".join(coordinates()), ",".join((*SPARKS_OWN, *NOT_NEEDED))
    command = [str(submit), "--packages", wanted, "--exclude-packages", without, "--conf", f"spark.jars.ivy={cache}"]
    done = subprocess.run([*command, "--class", "none.None", "spark-internal"], capture_output=True, text=True, check=False)
    if not list((cache / "jars").glob("*.jar")):
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"Could not fetch {wanted} from Maven Central: {last}. Check the network and run `make setup` again.")


def fetch(jars: Path) -> bool:
    """Fill `jars`; false when it already holds these versions. Raises UnavailableError when Maven Central cannot be reached."""
    stamp = jars / "coordinates"
    if stamp.exists() and stamp.read_text(encoding="utf-8").split() == coordinates():
        return False
    check_java()
    with TemporaryDirectory() as folder:
        _resolve(Path(folder))
        with usable(jars, "set PROMOLIFT_JARS to a folder that can be written"):
            shutil.rmtree(jars, ignore_errors=True)
            shutil.copytree(Path(folder) / "jars", jars)
            stamp.write_text("\n".join(coordinates()), encoding="utf-8")
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
