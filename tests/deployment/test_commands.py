"""What cannot be deployed is refused in one sentence, before anything is applied."""

from pathlib import Path

import pytest
import yaml

from deployment import __main__ as command
from deployment import release
from promolift.errors import InputError, UnavailableError

UNREACHABLE = "https://127.0.0.1:1"


def kubeconfig(folder: Path, name: str, server: str = UNREACHABLE, user: dict[str, str] | None = None) -> Path:
    """A file with one context."""
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": user or {"token": "t"}}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status and what was printed on stderr."""
    status = command.main(arguments)
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "server"), [("shop-prod", UNREACHABLE), ("eu1", "https://api.production.example.com"), ("live", UNREACHABLE)]
)
def test_a_context_that_looks_like_production_is_spelled_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, server: str
):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, name, server)))
    status, sentence = said(["deploy"], capsys)
    assert status == 2 and f"looks like production; spell it out with --context {name}." in sentence


def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "delivery")))
    for arguments in (["deploy"], ["undeploy", "--context", "delivery"]):
        status, sentence = said(arguments, capsys)
        assert status == 4 and "No cluster answers at context 'delivery'" in sentence and sentence.count("\n") == 1


def test_no_context_and_an_unknown_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    assert "kubectl has no current context" in said(["deploy"], capsys)[1]
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "delivery")))
    status, sentence = said(["deploy", "--context", "kind"], capsys)
    assert status == 2 and "There is no context 'kind'" in sentence


def test_a_context_without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "delivery", user={"username": ""})))
    assert said(["deploy"], capsys)[1] == "UnavailableError: Context 'delivery' has no valid credentials; log in to its cluster.\n"


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("PATH", "")
    assert said(["deploy"], capsys) == (4, "UnavailableError: A cluster needs the program kubectl, which is not on the PATH; install it.\n")


def test_a_run_without_a_model_and_missing_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="has no model to serve"):
        release.manifest_of(tmp_path)
    for name in release.NEEDED:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY must be set"):
        release.credentials()


@pytest.mark.slow
def test_an_s3_that_does_not_answer(monkeypatch: pytest.MonkeyPatch):
    for name, value in zip(release.NEEDED, ("http://127.0.0.1:1", "id", "secret"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UnavailableError, match=r"S3 at http://127\.0\.0\.1:1 refuses"):
        release.forget()


def test_schemas_come_from_crd_files_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "pod.yaml").write_text("kind: Pod\n")
    status, sentence = said(["schemas", str(tmp_path / "pod.yaml")], capsys)
    assert status == 2 and "holds no CustomResourceDefinition" in sentence
