"""What cannot be deployed is refused in one sentence, before anything is applied."""

import shutil
import time
from pathlib import Path

import pytest
import yaml

from deployment import __main__ as command
from deployment import local, release
from promolift import kubectl
from promolift.errors import InputError, PromoliftError, UnavailableError
from promolift.kubectl import Kubectl, need_images, need_kserve

UNREACHABLE = "https://127.0.0.1:1"
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on the PATH")


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


@needs_kubectl
def test_a_cluster_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "delivery")))
    for arguments in (["deploy"], ["undeploy", "--context", "delivery"]):
        status, sentence = said(arguments, capsys)
        assert status == 4 and "No cluster answers at context 'delivery'" in sentence and sentence.count("\n") == 1


@needs_kubectl
def test_no_context_and_an_unknown_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nothing"))
    assert "kubectl has no current context" in said(["deploy"], capsys)[1]
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, "delivery")))
    status, sentence = said(["deploy", "--context", "kind"], capsys)
    assert status == 2 and "There is no context 'kind'" in sentence


@needs_kubectl
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


def kubectl_that(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Kubectl:
    """A program of that name in place of the real one: what a cluster would say that is not at hand."""
    program = folder / "bin/kubectl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return Kubectl("test")


def test_a_cluster_without_kserve_or_with_an_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bare = kubectl_that(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(UnavailableError, match=r"has no inferenceservices\.serving\.kserve\.io; install KServe 0\.17"):
        need_kserve(bare)
    (tmp_path / "bin/kubectl").write_text("#!/bin/sh\necho v1alpha2\n")
    with pytest.raises(UnavailableError, match="as v1alpha2, not as v1beta1; update KServe"):
        need_kserve(bare)


def test_an_image_that_no_node_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    answer = '{"items": [{"status": {"images": [{"names": ["docker.io/promolift/serving:a"]}]}}]}'
    nodes = kubectl_that(tmp_path, monkeypatch, f"echo '{answer}'")
    monkeypatch.setattr(kubectl, "REPORTED_S", 0)
    need_images(nodes, ["promolift/serving:a"])
    with pytest.raises(UnavailableError, match=r"No node of 'test' has the image promolift/online:b; build it with `make images`"):
        need_images(nodes, ["promolift/serving:a", "promolift/online:b"])


def test_what_a_forwarding_prints_for_every_connection_does_not_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    much = kubectl_that(
        tmp_path, monkeypatch, "echo 'Forwarding from 127.0.0.1:4711 -> 80'; yes x | head -c 200000; touch $0.done; exec sleep 60"
    )
    with much.forwarded("svc/x", 80) as port:
        assert port == 4711
        deadline = time.monotonic() + 20
        while not (tmp_path / "bin/kubectl.done").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_service_that_cannot_be_forwarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    refused = kubectl_that(tmp_path, monkeypatch, "echo 'error: services \"x\" not found' >&2; exit 1")
    with (
        pytest.raises(UnavailableError, match="svc/x cannot be reached through kubectl port-forward: error: services"),
        refused.forwarded("svc/x", 80),
    ):
        pass


def test_a_forwarding_that_says_nothing_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kubectl, "OPENED_S", 0.5)
    second = kubectl_that(
        tmp_path, monkeypatch, "[ -e $0.once ] && echo 'Forwarding from 127.0.0.1:4711 -> 80'; touch $0.once; exec sleep 60"
    )
    with second.forwarded("svc/x", 80) as port:
        assert port == 4711
    (tmp_path / "bin/kubectl").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(UnavailableError, match=r"svc/x cannot be reached: kubectl port-forward opened no port within 0\.5 s, 3 times"):
        second.forwarded("svc/x", 80).__enter__()


def test_a_redis_whose_volume_is_full_ends_the_deployment_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object) -> None:
        raise UnavailableError("Redis does not answer.")

    answers = """case "$*" in
    *port-forward*) echo 'Forwarding from 127.0.0.1:4711 -> 6379'; exec sleep 60;;
    *logs*) printf '1:M # Short write while writing to the AOF file\n1:M # Exiting...\n';;
    esac"""
    monkeypatch.setattr(release, "materialize", refused)
    said = r"answer\. Its container ended with: 1:M # Short write .* # Exiting\.\.\. If its volume is full, enlarge the claim data"
    with pytest.raises(UnavailableError, match=said):
        local._features_online(kubectl_that(tmp_path, monkeypatch, answers), tmp_path, tmp_path / "registry.db")


def test_a_cluster_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kubectl, "MOST_S", 0.5)
    silent = kubectl_that(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(UnavailableError, match=r"did not answer `kubectl --context test get pods -o` within 0\.5 s"):
        silent.get("pods")


def test_what_the_cluster_refuses_is_said_in_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    refused = kubectl_that(tmp_path, monkeypatch, "echo 'Error from server (Forbidden): not yours' >&2; exit 1")
    with pytest.raises(PromoliftError, match=r"refuses `kubectl get pods -o`: Error from server \(Forbidden\): not yours"):
        refused.get("pods")
