"""The reviewer's page in a real browser and over its API: who may act, what is shown, what is refused."""

import os
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import oidc_provider_mock
import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from deltalake import write_deltalake
from oidc_provider_mock import User
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydantic import SecretStr

from promolift.contracts.artifacts import write_json
from promolift.contracts.tables import LIFT
from promolift.delta_rows import arrow_table, created
from promolift.promotion.actions import Review, dossier_place
from promolift.promotion.dossier import dossier_hash
from promolift.promotion.trail import Entry
from promolift.promotion.trail_table import TrailTable
from promolift.settings import Settings
from serving.kserve.listen import bind
from serving.review.app import ReviewApp, application
from serving.review.oidc import open_id
from serving.review.pages import Pages
from serving.review.people import People, people_in
from tests.serving.candidates import write_dossier
from tests.serving.conftest import listening

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
ROLES = {"bea": ["reviewer"], "ann": ["author", "reviewer"], "vic": ["viewer"]}


@dataclass
class Served:
    """A page that is served: its address, tokens by name, and what it acts on."""

    url: str
    tokens: dict[str, str]
    review: Review
    started: list[str]
    reports: Path


def registered(lake: Path, version: str) -> None:
    dossier = write_dossier(Path(dossier_place(lake, version)), f"linear-{version}")
    entry = Entry(0, version, f"linear-{version}", "register", "candidate", "candidate", "ann", datetime.now(UTC), "passed the gate")
    TrailTable(lake).append(replace(entry, evidence=dossier_hash(dossier)))


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    """An OpenID provider that knows who may do what: bea reviews, mo does something else."""
    users = [User(sub="bea", claims={"email": "bea", "roles": ["reviewer"]}), User(sub="mo", claims={"email": "mo", "roles": ["cook"]})]
    with oidc_provider_mock.run_server_in_thread(user_claims=users) as server:
        yield f"http://localhost:{server.server_port}"


@pytest.fixture
def served(tmp_path: Path, provider: str) -> Iterator[Served]:
    lake, reports, people = tmp_path / "lake", tmp_path / "rollout", tmp_path / "people.json"
    registered(lake, "1")
    registered(lake, "2")
    tokens = {name: people_in(people).add(name, roles) for name, roles in ROLES.items()}
    review, started = Review(lake, TrailTable(lake), "k" * 32), list[str]()
    settings = Settings(oidc_issuer=provider, oidc_client_secret=SecretStr("known to both"))
    account = open_id(settings, secure=False)
    app = application(ReviewApp(review, Pages(review, reports), People(people), started.append, secure=False, provider=account))
    listener = bind("127.0.0.1:0")
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", tokens, review, started, reports)
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("There is no Chromium here; `make setup` installs it as root, or name one with CHROMIUM.")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    context = browser.new_context(base_url=served.url, viewport={"width": 1200, "height": 900})
    yield context.new_page()
    context.close()


def sign_in(page: Page, served: Served, name: str) -> None:
    page.goto("/")
    page.get_by_label("Your token").fill(served.tokens[name])
    page.get_by_role("button", name="Sign in").press("Enter")
    expect(page.get_by_role("heading", name="Model versions")).to_be_visible()


def picture(page: Page, name: str) -> None:
    """A screenshot for docs/review.md, where PICTURES names their folder."""
    if folder := os.environ.get("PICTURES"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def measured(served: Served) -> None:
    """A readout of two promos in one bucket, one of which harms a segment, and of a canary."""
    rows = []
    for contrast, arm, effect in (("programme", "", 66.0), ("arm", "deli_30", 169.0), ("arm", "grocery_10", -149.0), ("canary", "2", 12.0)):
        for segment in ("everybody", "area north"):
            for metric in ("profit_cents", "sales_cents", "cost_cents", "redemptions"):
                scale = 0.001 if metric == "redemptions" else 1.0  # a share, where the others are cents
                for method, error in (("plain", 35.0 * scale), ("cuped", 30.0 * scale)):
                    harm = 0.0001 if (arm, segment, metric, method) == ("grocery_10", "area north", "profit_cents", "cuped") else None
                    rows.append({
                        "experiment": "decisions", "contrast": contrast, "bucket": "randomised", "arm": arm, "segment": segment,
                        "metric": metric, "method": method, "effect": effect * scale, "error": error, "z": 1.96,
                        "low": effect * scale - 1.96 * error, "high": effect * scale + 1.96 * error, "control_mean": 900.0, "theta": 0.1,
                        "decisions": 4000, "control_decisions": 4100, "shoppers": 900, "control_shoppers": 910, "srm_p": 1e-6,
                        "p_harm": harm, "look": 2 if contrast == "canary" else None, "looks": 4 if contrast == "canary" else None,
                    })  # fmt: skip
    created(served.review.lake, LIFT)
    write_deltalake(f"{served.review.lake}/{LIFT.path}", arrow_table(LIFT, rows), mode="append")


def guardrails(served: Served, status: str) -> None:
    guard = {"name": "slow", "status": status, "value": 0.4, "bound": 0.2, "limit": 0.05, "detail": "slower than 50 ms: +0.4, surely +0.2"}
    pace = [{"minute": f"10:{i:02}", "canary": 3 + i % 2, "control": 30 + i} for i in range(30)]
    report = {"stage": "canary_10", "at": "2026-01-01T00:00:00+00:00", "canary": 120, "control": 1080, "guards": [guard], "pace": pace}
    write_json(served.reports / "guardrails-1.json", report)


def moved(served: Served, source: str, to: str, reason: str, actor: str = "promotion") -> None:
    entry = Entry(0, "1", "linear-1", "move", source, to, actor, datetime.now(UTC), reason)  # type: ignore[arg-type]
    served.review.trail.append(replace(entry, evidence=served.review.standing("1").last.evidence))


def test_a_reviewer_approves_and_sees_a_canary_break_and_go_back(page: Page, served: Served):
    sign_in(page, served, "bea")
    picture(page, "versions")
    page.get_by_role("link", name="Version 1").click()
    expect(page.get_by_text("12 cents per decision more than no promo")).to_be_visible()
    expect(page.get_by_text("Weakest segment: area=b")).to_be_visible()
    picture(page, "dossier")
    page.get_by_label("Reason to approve").fill("evidence read, spend is in budget")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("evidence read, spend is in budget").first).to_be_visible()
    assert served.started == ["1"]
    assert served.review.standing("1").approval is not None
    moved(served, "candidate", "shadow", "approved by bea")
    moved(served, "shadow", "canary_10", "approved by bea")
    guardrails(served, "broken")
    page.reload()
    expect(page.locator("td.broken")).to_have_text("broken")
    expect(page.locator("td.broken")).to_have_css("color", "rgb(164, 14, 38)")
    expect(page.get_by_role("img", name=re.compile("slow: surely 0.2, seen 0.4, limit 0.05"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Decisions a minute, from 10:00 to 10:29"))).to_be_visible()
    picture(page, "broken")
    moved(served, "canary_10", "rolled_back", "slow: slower than 50 ms", "guardrails")
    page.reload()
    expect(page.get_by_role("heading", name="Version 1: rolled back")).to_be_visible()
    expect(page.get_by_text("by guardrails: slow: slower than 50 ms")).to_be_visible()
    page.get_by_role("link", name="Trail").click()
    expect(page.get_by_text(re.compile("All links verified"))).to_be_visible()
    picture(page, "trail")


@pytest.mark.parametrize(("name", "said"), [("vic", "You may look; a reviewer decides."), ("ann", "You trained it, so another reviewer")])
def test_who_may_not_approve_is_shown_no_form(page: Page, served: Served, name: str, said: str):
    sign_in(page, served, name)
    page.goto("/versions/1")
    expect(page.get_by_text(said)).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)


@pytest.mark.parametrize("place", ["/", "/versions/1", "/trail", "/lift", "/sign-in"])
def test_pages_are_accessible_and_fit_a_phone(browser: Browser, served: Served, place: str):
    context = browser.new_context(base_url=served.url, viewport={"width": 360, "height": 740}, bypass_csp=True)
    page = context.new_page()
    measured(served)
    guardrails(served, "broken")
    sign_in(page, served, "bea")
    page.goto(place)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    context.close()


def test_the_experiment_is_read_off_one_page(page: Page, served: Served):
    sign_in(page, served, "vic")
    page.get_by_role("link", name="Experiment").click()
    expect(page.get_by_text("Nothing was measured yet")).to_be_visible()
    measured(served)
    page.reload()
    row = page.get_by_role("row", name=re.compile("grocery_10"))
    expect(row.locator("td.broken")).to_have_text("less")
    expect(row).to_contain_text("-149 (-208 to -90)")
    expect(page.get_by_role("row", name=re.compile("look 2 of 4")).locator("td.early")).to_have_text("not told apart")
    expect(page.get_by_role("alert")).to_contain_text("Believe none of its figures")
    page.get_by_text("Segments: profit of grocery_10").click()
    expect(page.locator("li", has_text="area north").locator(".broken").filter(visible=True)).to_have_text("harmed")
    picture(page, "experiment")
    found = httpx.get(f"{served.url}/v1/lift", headers={"Authorization": f"Bearer {served.tokens['vic']}"}, timeout=10).json()
    assert [one["kind"] for one in found["experiments"][0]["contrasts"]] == ["programme", "arm", "canary"]


def test_the_keyboard_alone_is_enough(page: Page, served: Served):
    sign_in(page, served, "bea")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    page.goto("/versions/2")
    page.get_by_label("Reason to refuse").focus()
    page.keyboard.type("spends too much")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Version 2: refused")).to_be_visible()


def api(served: Served, name: str, version: str, act: str, **body: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {served.tokens[name]}"}
    return httpx.post(f"{served.url}/v1/versions/{version}/{act}", json=body, headers=headers, timeout=10)


def test_the_api_holds_everybody_to_the_same_rules(served: Served):
    evidence = served.review.evidence("1")
    given = {"reason": "read", "up_to": "canary_10", "evidence": evidence}
    refused = [api(served, name, "1", "approve", **given) for name in ("vic", "ann")]
    changed = api(served, "bea", "1", "approve", **{**given, "evidence": "0" * 64})
    wordless, unknown = api(served, "bea", "1", "approve", **{**given, "reason": " "}), api(served, "bea", "7", "refuse", reason="no")
    assert [answer.status_code for answer in (*refused, changed, wordless, unknown)] == [409, 409, 409, 400, 400]
    assert "nobody approves his own" in refused[1].json()["detail"] and "read it again" in changed.json()["detail"]
    assert len(served.review.trail.entries()) == 2
    done = api(served, "bea", "1", "approve", **given)
    assert (done.status_code, done.json()["actor"]) == (200, "bea")
    assert httpx.get(f"{served.url}/v1/versions", timeout=10).status_code == 401


def test_forms_cookies_and_headers_are_guarded(served: Served):
    with httpx.Client(base_url=served.url, timeout=10) as client:
        assert client.get("/versions/1").headers["location"] == "/sign-in"
        wrong = client.post("/sign-in", data={"token": "guess"})
        assert (wrong.status_code, "The token is unknown" in wrong.text) == (401, True)
        cookie = client.post("/sign-in", data={"token": served.tokens["bea"]}).headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie
        forged = client.post("/versions/1/refuse", data={"reason": "no", "csrf": "guess"})
        assert (forged.status_code, served.review.standing("1").stage) == (403, "candidate")
        headers = client.get("/").headers
        assert "frame-ancestors 'none'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
        tries = [client.post("/sign-in", data={"token": "guess"}).status_code for _ in range(25)]
        assert tries[-1] == 429


def test_an_account_at_the_provider_signs_in_with_its_roles_and_no_other(page: Page, served: Served):
    page.goto("/")
    page.get_by_role("link", name="Sign in with your account").click()
    page.get_by_role("button", name="bea").first.click()
    expect(page.get_by_role("heading", name="Model versions")).to_be_visible()
    expect(page.get_by_text("bea (reviewer)")).to_be_visible()
    page.goto("/versions/2")
    page.get_by_label("Reason to refuse").fill("spends too much")
    page.get_by_role("button", name="Refuse").click()
    expect(page.get_by_role("heading", name="Version 2: refused")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in with your account").click()
    page.get_by_role("button", name="mo").first.click()
    expect(page.get_by_role("alert")).to_contain_text("mo has none of the roles viewer, author, reviewer")
    page.goto("/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_sign_in_that_did_not_begin_here_is_refused(served: Served):
    forged = httpx.get(f"{served.url}/sign-in/oidc/callback?code=guess&state=guess", timeout=10)
    assert (forged.status_code, "The sign-in failed" in forged.text, "review_session" in forged.cookies) == (401, True, False)


def test_a_code_that_the_provider_did_not_give_signs_nobody_in(served: Served):
    with httpx.Client(base_url=served.url, timeout=10) as client:
        state = httpx.URL(client.get("/sign-in/oidc").headers["location"]).params["state"]
        forged = client.get("/sign-in/oidc/callback", params={"code": "guess", "state": state})
        assert (forged.status_code, "The sign-in failed" in forged.text, "review_session" in client.cookies) == (401, True, False)


@pytest.mark.parametrize("issuer", ["http://127.0.0.1:9", "http://127.0.0.1:9/not a url\n"])
def test_a_provider_that_does_not_answer_is_said_and_tokens_still_work(tmp_path: Path, issuer: str):
    people = tmp_path / "people.json"
    token = people_in(people).add("bea", ["reviewer"])
    review = Review(tmp_path / "lake", TrailTable(tmp_path / "lake"), "k" * 32)
    account = open_id(Settings(oidc_issuer=issuer), secure=False)
    app = application(ReviewApp(review, Pages(review, tmp_path), People(people), None, secure=False, provider=account))
    with listening(app) as url, httpx.Client(base_url=url, timeout=10) as client:
        away = client.get("/sign-in/oidc")
        assert (away.status_code, "does not answer" in away.json()["detail"]) == (503, True)
        assert client.post("/sign-in", data={"token": token}).status_code == 303


def test_changed_evidence_is_said_instead_of_shown(page: Page, served: Served):
    (Path(dossier_place(served.review.lake, "1")) / "verdict.json").write_text("{}")
    sign_in(page, served, "bea")
    page.goto("/versions/1")
    expect(page.get_by_role("alert")).to_contain_text("was changed after it was sealed")
    page.get_by_label("Reason to approve").fill("did not look")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("alert").first).to_contain_text("was changed after it was sealed")
    assert served.review.standing("1").approval is None
