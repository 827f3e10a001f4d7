"""`python -m pipelines.build_images [GROUP ...]`: the image of each dependency group, built only where its content changed.

An image's tag is the hash of its locked packages, of the source that it carries and of the Dockerfile, so an image that is there is the
right one. Ends with a table of sizes; writes a software bill of materials (CycloneDX) and a build log for each image. Exit status 1 for an
image that holds a key or a file that everybody may write.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from components.interfaces import IMAGE
from pipelines.images import ENTRIES, ON_REQUEST, ROOT, in_registry, pins_hash, source_files, source_hash
from promolift.errors import PromoliftError, UnavailableError

BASE = "python:3.11-slim-bookworm"
# Private keys in what we carry (packages bring some of their own for their tests), and files that any user could change.
SUSPECTS = "grep -rlE 'BEGIN [A-Z ]*PRIVATE KEY' /app; find / -xdev -type f -perm -0002 -not -path '/proc/*' -not -path '/sys/*'"


@dataclass(frozen=True)
class Built:
    """An image: its name with tag, its bytes beyond the base, and the seconds that building it took (0: it was there)."""

    name: str
    bytes: int
    seconds: float


def image_name(group: str, registry: str = "") -> str:
    """Name and tag of the group's image as its content stands now, in `registry` (HOST/PATH) if one is given."""
    return in_registry(f"{IMAGE.format(group=group)}-{pins_hash(group)}-{source_hash(group)}", registry)


def lay_out(group: str, folder: Path) -> None:
    """The build's folder: Dockerfile, the group's locked packages in requirements.txt, and its source below app/."""
    shutil.copy(ROOT / "Dockerfile", folder / "Dockerfile")
    (folder / "requirements.txt").write_text(_requirements(group), encoding="utf-8")
    for file in source_files(group):
        target = folder / "app" / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)


def build(group: str, out: Path) -> Built:
    """Build the group's image unless it is there. Raises UnavailableError without an engine, PromoliftError when the build fails."""
    name, start = image_name(group), time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    there = is_there(name)
    if not there:
        with TemporaryDirectory() as folder:
            lay_out(group, Path(folder))
            _build(group, name, Path(folder), out / f"{group}.log")
    (out / f"{group}.cdx.json").write_text(_materials(group), encoding="utf-8")
    return Built(name, _bytes(name) - _bytes(BASE), 0.0 if there else round(time.perf_counter() - start, 1))


def is_there(name: str) -> bool:
    """Whether the engine has the image."""
    return _docker("image", "inspect", name, check=False).returncode == 0


def suspects(name: str) -> list[str]:
    """Files of the image that hold a private key of ours or that every user may write."""
    return _docker("run", "--rm", "--user", "0", "--network", "none", name, "sh", "-c", SUSPECTS, check=False).stdout.split()


def _build(group: str, name: str, folder: Path, log: Path) -> None:
    with log.open("w", encoding="utf-8") as said:
        command = ["docker", "build", "--build-arg", f"GROUP={group}", "--build-arg", f"BASE={BASE}", "--tag", name, str(folder)]
        status = subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, check=False).returncode
    if status:
        last = (log.read_text(encoding="utf-8").strip().splitlines() or ["it said nothing"])[-1]
        raise PromoliftError(f"Building {name} failed: {last} (all of it: {log}).")


def _requirements(group: str) -> str:
    """The group's packages by hash, so that a layer of packages is built anew only when one of them changes.

    With kfp, but nothing that kfp depends on: a component's own code imports kfp.dsl, and kfp's other pins would meet everyone else's.
    """
    plain = ("--no-emit-project", "--no-header", "--no-annotate")
    theirs = _export("--only-group", "pipelines", *plain).splitlines()
    first = next(number for number, line in enumerate(theirs) if line.startswith("kfp=="))
    last = next(number for number in range(first, len(theirs)) if not theirs[number].endswith("\\"))
    return "\n".join([_export("--no-default-groups", "--group", group, *plain).rstrip(), *theirs[first : last + 1], ""])


def _materials(group: str) -> str:
    """Every package of the group with version and hash, as CycloneDX."""
    return _export("--no-default-groups", "--group", group, "--format", "cyclonedx1.5")


def _export(*options: str) -> str:
    uv = shutil.which("uv") or str(ROOT / "build/uv/bin/uv")
    found = subprocess.run([uv, "export", "--quiet", "--frozen", *options], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        raise UnavailableError(
            f"{uv} cannot export the lock ({found.stderr.strip().splitlines()[-1]}); `make setup` installs one that can."
        )
    return found.stdout


def _bytes(name: str) -> int:
    found = _docker("image", "inspect", "--format", "{{.Size}}", name, check=False)
    if found.returncode:
        raise UnavailableError(f"There is no image {name}; `docker pull {name}` gets it.")
    return int(found.stdout)


def _docker(*arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check)
    except FileNotFoundError as problem:
        raise UnavailableError("Building images needs the program docker, which is not on the PATH; install Docker.") from problem


def check_engine() -> None:
    """Raises UnavailableError where no Docker engine answers."""
    found = _docker("version", "--format", "{{.Server.Version}}", check=False)
    if found.returncode:
        raise UnavailableError(f"No Docker engine answers: {(found.stderr.strip().splitlines() or ['no message'])[-1]} Start it.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; a failure is one sentence on stderr and the exit status of its kind."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.build_images", description="Build the images of the dependency groups.")
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"which ones of {', '.join(ENTRIES)} (default: all but {', '.join(ON_REQUEST)})"
    )
    parser.add_argument("--out", type=Path, default=Path("build/images"), metavar="DIR", help="logs and bills of materials (%(default)s)")
    options = parser.parse_args(arguments)
    if unknown := [group for group in options.groups if group not in ENTRIES]:
        parser.error(f"there is no image '{unknown[0]}'; there are {', '.join(ENTRIES)}")
    open_to_all = 0
    try:
        check_engine()
        for group in options.groups or [name for name in ENTRIES if name not in ON_REQUEST]:
            made = build(group, options.out)
            found = suspects(made.name)
            open_to_all += len(found)
            took = f"built in {made.seconds:.0f} s" if made.seconds else "there"
            print(f"{group:<10} {made.bytes / 1e6:7.0f} MB  {took:<16} {made.name}", flush=True)
            print("".join(f"  holds a key or may be written by everybody: {path}\n" for path in found), end="", flush=True)
    except PromoliftError as problem:
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return problem.exit_status
    print(f"bills of materials and logs: {options.out}; sizes are without {BASE}")
    return 1 if open_to_all else 0


if __name__ == "__main__":
    sys.exit(main())
