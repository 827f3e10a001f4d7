"""The Java that Spark would start: found, new enough, or a sentence that says what to install."""

import os
import re
import shutil
import subprocess

from promolift.errors import UnavailableError

MINIMUM = 17


def check_java() -> str:
    """Its version, as 17.0.15. Raises UnavailableError unless a Java of at least version 17 is named by JAVA_HOME or found on the PATH."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which(f"{home}/bin/java" if home else "java")
    if program is None:
        where = f"JAVA_HOME is '{home}'" if home else "there is no `java` on the PATH"
        raise UnavailableError(
            f"Spark needs Java {MINIMUM} or newer and {where}; run `make setup` or install one (Debian: openjdk-17-jre-headless)."
        )
    said = subprocess.run([program, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)([\d.]*)', said)
    if found is None or int(found[1]) < MINIMUM:
        version = found[1] if found else "unknown"
        raise UnavailableError(f"Spark needs Java {MINIMUM} or newer; {program} is version {version}. Install one or set JAVA_HOME.")
    return found[1] + found[2]
