"""Trail, stages, graph change, approval and guardrails: what must hold before any server is asked."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from promolift.contracts.promos import NO_PROMO
from promolift.errors import ConflictError, InputError, PromoliftError
from promolift.policy.exploration import group_of, rollout_bucket
from promolift.promotion.actions import Review, dossier_place
from promolift.promotion.approval import Person, need_approval
from promolift.promotion.dossier import dossier_hash, seal
from promolift.promotion.graph_change import Window, changed, diff, graph_hash, window_in, window_of, without_canary
from promolift.promotion.guardrails import Foretold, Seen, judge, read_limits
from promolift.promotion.sequential import Gap, mean_bound, mismatch
from promolift.promotion.stages import MOVES, PATH, STAGES, Stage
from promolift.promotion.trail import Entry, linked, standings, verify
from promolift.promotion.trail_table import TrailTable

GRAPH = yaml.safe_load(Path("serving/kserve/graph.yaml").read_text(encoding="utf-8"))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "k" * 32
BEA, ANN, VIC = (
    Person("bea", frozenset({"reviewer"})),
    Person("ann", frozenset({"author", "reviewer"})),
    Person("vic", frozenset({"viewer"})),
)


def entry(version: str = "1", action: str = "register", to: Stage = "candidate", source: Stage | None = None, minute: int = 0) -> Entry:
    at = NOW + timedelta(minutes=minute)
    return Entry(0, version, f"m-{version}", action, source or to, to, "ann", at, "because")  # type: ignore[arg-type]


def on_the_way(trail: TrailTable, *stages: Stage) -> None:
    trail.append(entry())
    path = ["candidate", *stages]
    for minute, (one, two) in enumerate(zip(path, stages, strict=False)):
        trail.append(entry("1", "move", two, one, minute))  # type: ignore[arg-type]


class TestTrail:
    def test_what_is_written_is_read_and_verified_by_another(self, tmp_path: Path):
        on_the_way(TrailTable(tmp_path), "shadow", "canary_10")
        found = TrailTable(tmp_path).entries()
        assert [(e.seq, e.stage_to) for e in found] == [(1, "candidate"), (2, "shadow"), (3, "canary_10")]
        assert verify(found) == ""

    def test_of_two_that_append_at_once_one_is_refused_and_nothing_of_it_is_left(self, tmp_path: Path):
        one, two = TrailTable(tmp_path), TrailTable(tmp_path)
        one.append(entry())
        two.entries()
        assert two._table is not None
        stale = two._table.version()
        one.append(entry("1", "move", "shadow", "candidate"))
        two._read = lambda: None  # type: ignore[method-assign] # as if both had read before either wrote
        with pytest.raises(ConflictError, match="Somebody else changed the trail"):
            two.append(entry("1", "move", "refused", "candidate"))
        assert stale == 1
        assert standings(TrailTable(tmp_path).entries())["1"].stage == "shadow"

    @given(st.integers(0, 4), st.sampled_from(["actor", "reason", "version", "stage_to", "detail", "hash", "previous"]))
    def test_any_change_of_any_entry_is_seen(self, place: int, name: str):
        chain: list[Entry] = []
        for minute in range(5):
            chain.append(linked(entry(minute=minute), chain[-1] if chain else None))
        assert verify(chain) == ""
        chain[place] = replace(chain[place], **{name: "other"})  # type: ignore[arg-type]
        assert f"entry {place + 1}" in verify(chain) or f"entry {place + 2}" in verify(chain)

    def test_a_missing_entry_is_seen(self):
        first = linked(entry(), None)
        third = linked(entry(), linked(entry(), first))
        assert verify([first, third]) == "entry 2 is missing: after 1 comes 3"

    def test_a_broken_chain_stops_everything(self, tmp_path: Path):
        trail = TrailTable(tmp_path)
        on_the_way(trail, "shadow")
        trail._write([replace(linked(entry(minute=9), trail.entries()[-1]), actor="mallory").__dict__])
        with pytest.raises(PromoliftError, match="broken: entry 3 was changed after it was written"):
            TrailTable(tmp_path).append(entry("2"))

    @pytest.mark.parametrize("source", STAGES)
    def test_only_allowed_moves_are_taken(self, source: Stage, tmp_path: Path):
        for number, target in enumerate(STAGES):
            trail = TrailTable(tmp_path / target)
            trail.append(replace(entry(str(number)), stage_from=source, stage_to=source))
            move = entry(str(number), "move", target, source)
            if target == source or target in MOVES[source]:
                assert standings([*trail.append(move)])[str(number)].stage == target
            else:
                with pytest.raises(ConflictError, match=f"From {source} a version goes to"):
                    trail.append(move)

    def test_one_version_at_a_time_is_on_its_way(self, tmp_path: Path):
        trail = TrailTable(tmp_path)
        on_the_way(trail, "shadow")
        trail.append(entry("2", minute=5))
        with pytest.raises(ConflictError, match="Version 1 is on its way already"):
            trail.append(entry("2", "move", "shadow", "candidate", 6))

    def test_a_clock_that_is_behind_is_refused(self, tmp_path: Path):
        trail = TrailTable(tmp_path)
        trail.append(entry(minute=5))
        with pytest.raises(InputError, match="set the clock right"):
            trail.append(entry("2", minute=4))


class TestGraph:
    @given(st.text(min_size=1), st.sampled_from(["canary_10", "canary_50"]), st.sampled_from(STAGES))
    def test_every_stage_is_reached_from_every_other_and_undone(self, model: str, stage: Stage, other: Stage):
        canary = changed(changed(GRAPH, model, other), model, stage)
        assert window_in(canary) == window_of(model, stage)
        assert without_canary(canary) == GRAPH
        assert diff(canary, canary) == ""

    @given(st.text(min_size=1))
    def test_the_half_holds_the_tenth_and_both_have_their_share(self, model: str):
        tenth, half = window_of(model, "canary_10"), window_of(model, "canary_50")
        assert tenth is not None and half is not None
        assert (tenth.share, half.share) == (0.1, 0.5)
        assert half.first == tenth.first and half.end <= 10_000

    def test_share_of_shoppers_is_the_windows_within_half_a_point_at_100000(self):
        window = Window(2_000, 3_000)
        met = [rollout_bucket(f"s{number}", "salt") in window for number in range(100_000)]
        assert abs(np.mean(met) - 0.1) < 0.005
        assert met == [rollout_bucket(f"s{number}", "salt") in window for number in range(100_000)]

    def test_a_graph_edited_by_hand_is_said(self):
        canary = changed(GRAPH, "m", "canary_10")
        canary["spec"]["nodes"]["rollout"]["steps"][0]["condition"] = "[@this].#(rollout<9999)"
        with pytest.raises(InputError, match="it was edited by hand"):
            window_in(canary)
        assert graph_hash(canary) != graph_hash(GRAPH)

    def test_who_tries_out_is_never_given_a_promo(self):
        assert {group_of(f"probe:{number}", 0.0, 0.5, "salt") for number in range(100)} == {"holdout"}


@pytest.fixture
def review(tmp_path: Path) -> Review:
    """One candidate of ann's, with a dossier."""
    folder = Path(dossier_place(tmp_path, "1"))
    folder.mkdir(parents=True)
    (folder / "verdict.json").write_text("{}")
    trail = TrailTable(tmp_path)
    trail.append(replace(entry(), evidence=seal(folder)))
    return Review(tmp_path, trail, KEY, lambda: NOW + timedelta(hours=1))


class TestApproval:
    def approve(self, review: Review, person: Person = BEA, up_to: Stage = "champion") -> Entry:
        return review.approve(person, "1", "read it", up_to, review.evidence("1"))

    def need(self, review: Review, **changes: object) -> Stage:
        now = {"now": NOW + timedelta(days=1), "key": KEY, "days": 14.0, **changes}
        return need_approval(review.standing("1"), str(changes.pop("evidence", review.evidence("1"))), "", **{  # type: ignore[arg-type]
            name: value for name, value in now.items() if name != "evidence"
        })  # fmt: skip

    def test_an_approval_lets_it_go_as_far_as_it_says(self, review: Review):
        self.approve(review, up_to="canary_10")
        assert self.need(review) == "canary_10"

    @pytest.mark.parametrize(("person", "why"), [(ANN, "nobody approves his own"), (VIC, "is no reviewer")])
    def test_neither_the_author_nor_a_viewer_approves(self, review: Review, person: Person, why: str):
        with pytest.raises(ConflictError, match=why):
            self.approve(review, person)
        assert len(review.trail.entries()) == 1

    def test_without_an_approval_nothing_moves(self, review: Review):
        with pytest.raises(ConflictError, match="is not approved"):
            self.need(review)

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"evidence": "f" * 64}, "changed after its approval"), ({"key": "x" * 32}, "is not signed with our key"),
            ({"now": NOW + timedelta(days=15)}, "is older than 14 days"),
        ],
    )  # fmt: skip
    def test_evidence_key_and_age_are_held_against_it(self, review: Review, changes: dict[str, object], why: str):
        self.approve(review)
        with pytest.raises(ConflictError, match=why):
            self.need(review, **changes)

    def test_an_approval_against_another_champion_is_stale(self, review: Review):
        self.approve(review)
        with pytest.raises(ConflictError, match="against champion none, but 7 reigns now"):
            need_approval(review.standing("1"), review.evidence("1"), "7", now=NOW + timedelta(days=1), key=KEY, days=14.0)

    def test_an_entry_written_by_somebody_without_the_key_approves_nothing(self, review: Review):
        detail = json.dumps({"up_to": "champion", "signature": "0" * 64})
        forged = replace(entry("1", "approve", "candidate", minute=90), actor="bea", evidence=review.evidence("1"), detail=detail)
        review.trail.append(forged)
        with pytest.raises(ConflictError, match="is not signed with our key"):
            self.need(review)

    def test_changed_evidence_cannot_be_approved_or_hashed(self, review: Review):
        folder = Path(dossier_place(review.lake, "1"))
        (folder / "verdict.json").write_text('{"promoted": true}')
        with pytest.raises(InputError, match=r"Evidence 'verdict\.json' .* was changed after it was sealed"):
            dossier_hash(folder)
        with pytest.raises(InputError, match="was changed"):
            review.approve(BEA, "1", "read it", "champion", "anything")

    def test_pause_refuse_and_roll_back_need_a_reason_and_a_fitting_stage(self, review: Review):
        with pytest.raises(InputError, match="an actor and a reason"):
            review.refuse(BEA, "1", "  ")
        with pytest.raises(ConflictError, match="pause is not for it"):
            review.pause(BEA, "1", "wait")
        with pytest.raises(ConflictError, match="roll back is not for it; possible: approve, refuse"):
            review.roll_back(BEA, "1", "because")
        assert review.refuse(BEA, "1", "spends too much").stage_to == "refused"
        with pytest.raises(ConflictError, match="approve is not for it; possible: nothing"):
            self.approve(review)

    def test_an_unknown_version_is_said(self, review: Review):
        with pytest.raises(InputError, match="Version '9' is unknown"):
            review.approve(BEA, "9", "read it", PATH[-1], "")


def traffic(count: int, seed: int, **canary: object) -> list[Seen]:
    """`count` decisions of shoppers who come several times; those of the canary differ by the fields given."""
    rng = np.random.default_rng(seed)
    rows = []
    for shopper in rng.integers(0, count // 3, count).tolist():
        promo = NO_PROMO if rng.random() < 0.4 else f"p{rng.integers(4)}"
        row = Seen(f"s{shopper}", shopper % 10 == 0, promo, "best_profit", 0 if promo == NO_PROMO else 200, 5.0, False, 0.5)
        rows.append(replace(row, **canary) if row.canary else row)  # type: ignore[arg-type]
    return rows


class TestGuardrails:
    @pytest.mark.parametrize(
        ("name", "canary"),
        [
            ("failed", {"reason": "deadline", "promo_id": NO_PROMO, "cents": 0}), ("degraded", {"degraded": True}), ("slow", {"ms": 400.0}),
            ("no_promo", {"promo_id": "p1", "cents": 200}), ("mix", {"promo_id": "p1"}), ("spend", {"cents": 900}),
            ("propensities", {"propensity": 0.0}),
        ],
    )  # fmt: skip
    def test_what_is_broken_is_found_at_one_look_and_named(self, name: str, canary: dict[str, object]):
        found = {guard.name: guard for guard in judge(traffic(6_000, 1, **canary), 0.1, read_limits(), Foretold(), 1_000)}
        assert found[name].status == "broken", found[name].detail

    def test_a_sound_canary_holds_everywhere(self):
        assert {guard.status for guard in judge(traffic(6_000, 2), 0.1, read_limits(), Foretold(), 1_000)} == {"holds"}

    def test_what_the_shadow_foretold_is_no_surprise(self):
        rows = traffic(6_000, 3, promo_id="p1", cents=200)
        foretold = Foretold(-0.4, {"p1": 0.85, "p0": -0.15, "p2": -0.15, "p3": -0.15}, 80.0)
        found = {guard.name: guard.status for guard in judge(rows, 0.1, read_limits(), foretold, 1_000)}
        assert (found["no_promo"], found["mix"], found["spend"]) == ("holds", "holds", "holds")

    def test_few_decisions_are_too_early_for_means_but_not_for_propensities(self):
        found = {guard.name: guard.status for guard in judge(traffic(100, 4, propensity=0.0), 0.1, read_limits(), Foretold(), 1_000)}
        assert (found["propensities"], found["slow"]) == ("broken", "too early")

    def test_a_wrong_share_breaks_the_sample_ratio(self):
        assert {g.name: g.status for g in judge(traffic(6_000, 5), 0.2, read_limits(), Foretold(), 1_000)}["sample_ratio"] == "broken"

    def test_a_wrong_file_is_named_with_its_line(self, tmp_path: Path):
        file = tmp_path / "guardrails.yaml"
        file.write_text("alpha: 2\n")
        with pytest.raises(InputError, match=rf"{file}, line 1: key 'alpha' has the value 2"):
            read_limits(file)


class TestSequential:
    def test_constants_are_the_papers(self):
        """Waudby-Smith et al. (2021), one-sided boundary with rho for t* = 500, alpha = 0.05, worked out by hand."""
        assert mean_bound(Gap(0.0, 1.0, 500.0), 0.05, 500.0) == pytest.approx(-0.12425, abs=1e-5)
        assert mean_bound(Gap(0.3, 0.0, 0.0), 0.05, 500.0) == 0.3

    @pytest.mark.parametrize(
        ("inside", "outside", "share", "less"), [(500, 500, 0.5, False), (600, 400, 0.5, True), (100, 900, 0.1, False)]
    )
    def test_mismatch_is_small_only_where_counts_are_wrong(self, inside: int, outside: int, share: float, less: bool):
        assert (mismatch(inside, outside, share) < 0.001) is less

    def test_mismatch_keeps_its_promise_under_continuous_looks(self):
        rng, alarms = np.random.default_rng(0), 0
        for _ in range(400):
            inside = np.cumsum(rng.random(400) < 0.1)
            alarms += any(mismatch(int(n), t + 1 - int(n), 0.1) < 0.05 for t, n in enumerate(inside.tolist()))
        assert alarms / 400 <= 0.05


def test_history_of_a_year_is_read_and_verified(tmp_path: Path):
    """As compaction leaves it: in one commit."""
    chain: list[Entry] = []
    for number in range(20_000):
        chain.append(linked(replace(entry(str(number)), at=NOW + timedelta(minutes=number)), chain[-1] if chain else None))
    trail = TrailTable(tmp_path)
    trail._write([one.__dict__ for one in chain])
    assert len(TrailTable(tmp_path).entries()) == len(chain)
