"""scripts/setup.sh on a machine without a usable Java and without a package manager that may install one."""

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "setup.sh"
NEEDED = ("bash", "dirname", "uname", "sed", "head", "id")


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with what the script itself calls, and a uv with nothing to install; no java, apt-get or sudo."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NEEDED:
        (folder / name).symlink_to(shutil.which(name) or name)
    program(folder / "uv", "exit 0")
    return folder


def setup(tools: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [str(tools / "bash"), str(SCRIPT)]
    return subprocess.run(command, env={"PATH": str(tools), **environment}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("said", "found"), [(None, "none"), ('openjdk version "11.0.2" 2019-01-15', "11"), ("no such thing", "none")])
def test_a_missing_or_old_java_ends_setup_with_one_sentence_that_says_what_to_install(tools: Path, said: str | None, found: str):
    if said:
        program(tools / "java", f"echo '{said}' >&2")
    done = setup(tools)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.splitlines()[-1] == (
        f"setup: Spark needs Java 17 or newer and found '{found}'. "
        "Install one (Debian: sudo apt-get install openjdk-17-jre-headless) or set JAVA_HOME."
    )
    assert not [line for line in done.stderr.splitlines() if not line.startswith("setup: ")]


def test_java_home_goes_before_the_path(tools: Path, tmp_path: Path):
    program(tools / "java", "echo 'openjdk version \"17.0.1\"' >&2")
    program(tmp_path / "old" / "bin" / "java", "echo 'openjdk version \"8\"' >&2")
    assert "found '8'" in setup(tools, JAVA_HOME=str(tmp_path / "old")).stderr.splitlines()[-1]


def test_another_system_is_told_so_before_anything_is_installed(tools: Path):
    (tools / "uname").unlink()
    program(tools / "uname", "echo Darwin arm64")
    done = setup(tools)
    assert done.returncode == 4
    assert done.stderr == "setup: The locked packages are for Linux x86-64 and this is Darwin arm64; use Docker or WSL.\n"
