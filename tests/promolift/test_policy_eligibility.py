"""Rules as data: what they allow, the sentence for what they refuse, and whole sentences for a wrong file."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promolift.contracts.decisions import read_request
from promolift.contracts.promos import Promo
from promolift.errors import InputError
from promolift.policy.eligibility import CompiledRules, refusal, situation
from promolift.policy.rules import WEEKDAYS, Rules, load_rules, read_rules
from promolift.yaml_file import YamlFile

PROMOS = (Promo("meat_20", "meat", 0.2, 500), Promo("deli_10", "deli", 0.1, 300))


ATTRIBUTES = {"age_band": ("unknown", "19-24", "25-34"), "area": ("unknown", "north")}


def ask(**fields: Any) -> Any:
    return read_request({"request_id": "r", "shopper_id": "s", "moment": "2017-11-30T23:59:59Z", **fields})


def rules(document: Any) -> Rules:
    return read_rules(YamlFile("rules.yaml", document), PROMOS, ATTRIBUTES)


def eligible(request: Any, found: Rules, **attributes: str) -> Any:
    return CompiledRules(found).candidates(request, attributes)


def test_no_rules_allow_everything_in_catalogue_order() -> None:
    candidates = eligible(ask(), rules({}))
    assert candidates.promo_ids == ("meat_20", "deli_10")
    assert candidates.refused == {}


BASKET = [{"category": "meat", "amount_cents": 1240}]


@pytest.mark.parametrize(
    ("rule", "request_fields", "sentence"),
    [
        ({"valid_from": "2017-12-01"}, {}, "not valid before 2017-12-01"),
        ({"valid_until": "2017-11-29"}, {}, "not valid after 2017-11-29"),
        ({"weekdays": ["sat", "sun"]}, {}, "given on sat, sun, not on thu"),
        ({"stores": ["1"]}, {"store_id": "2"}, "not given in store '2'"),
        ({"channels": ["app"]}, {"channel": "pos"}, "not given in channel 'pos'"),
        ({"segments": {"age_band": ["19-24"]}}, {}, "age_band is 'unknown', not 19-24"),
        ({"categories": ["meat", "deli"]}, {}, "no meat or deli in the basket"),
        ({"without_categories": ["deli", "meat"]}, {"basket": BASKET}, "meat in the basket"),
        ({"min_basket_cents": 2000}, {"basket": BASKET}, "basket 12.40 under 20.00"),
        ({"active": False}, {}, "switched off"),
    ],
)
def test_each_rule_refuses_with_a_sentence(rule: dict[str, Any], request_fields: Any, sentence: str) -> None:
    candidates = eligible(ask(**request_fields), rules({"promos": {"meat_20": rule}}))
    assert candidates.promo_ids == ("deli_10",)
    assert candidates.refused == {"meat_20": f"promo meat_20 is not eligible: {sentence}"}


def test_each_rule_allows_at_its_edge() -> None:
    document = {
        "defaults": {
            "valid_from": "2017-11-30", "valid_until": "2017-11-30", "weekdays": ["thu"], "stores": ["1"], "channels": ["web"],
            "segments": {"age_band": ["19-24", "25-34"]}, "categories": ["meat"], "without_categories": ["produce"],
            "min_basket_cents": 300,
        }
    }  # fmt: skip
    basket = [{"category": "meat", "amount_cents": 100}, {"category": "deli", "amount_cents": 200}]
    assert eligible(ask(store_id="1", channel="web", basket=basket), rules(document), age_band="25-34").refused == {}


RULE = st.fixed_dictionaries({}, optional={
    "valid_from": st.sampled_from(["2017-11-29", "2017-12-01"]), "valid_until": st.sampled_from(["2017-12-01", "2017-12-02"]),
    "weekdays": st.lists(st.sampled_from(WEEKDAYS), max_size=3), "stores": st.lists(st.sampled_from("123"), max_size=2),
    "channels": st.lists(st.sampled_from(["app", "web", "pos"]), max_size=3),
    "segments": st.dictionaries(st.just("age_band"), st.lists(st.sampled_from(["19-24", "25-34"]), max_size=2)),
    "categories": st.lists(st.sampled_from(["meat", "deli"]), max_size=2),
    "without_categories": st.lists(st.sampled_from(["meat", "deli"]), max_size=1),
    "min_basket_cents": st.integers(0, 300), "active": st.booleans(),
})  # fmt: skip


@given(
    own=st.tuples(RULE, RULE), store=st.sampled_from(["", "1", "2", "4"]), channel=st.sampled_from(["app", "web", "pos"]),
    day=st.integers(28, 30), baskets=st.lists(st.sampled_from(["meat", "deli", "produce"]), max_size=3),
    age=st.sampled_from(["", "19-24", "x"]),
)  # fmt: skip
def test_the_masks_allow_what_no_sentence_refuses(own: Any, store: str, channel: Any, day: int, baskets: list[str], age: str) -> None:
    found = rules({"promos": dict(zip(("meat_20", "deli_10"), own, strict=True))})
    lines = [{"category": name, "amount_cents": 100} for name in baskets]
    request = ask(store_id=store, channel=channel, moment=f"2017-11-{day}T12:00:00Z", basket=lines)
    now = situation(request, {"age_band": age})
    allowed = [name for name, rule in found.by_promo.items() if refusal(name, rule, now) is None]
    candidates = CompiledRules(found).candidates(request, {"age_band": age})
    assert list(candidates.promo_ids) == allowed
    assert set(candidates.refused) == set(found.by_promo) - set(allowed) and all(candidates.refused.values())


def test_a_promo_overrides_the_defaults_field_by_field() -> None:
    document = {"defaults": {"stores": ["1"], "min_basket_cents": 5}, "promos": {"meat_20": {"stores": []}}}
    rule = rules(document).by_promo["meat_20"]
    assert (rule.stores, rule.min_basket_cents) == ((), 5)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("promos:\n  fish_5: {}", "line 2: promo 'fish_5' is unknown; known are meat_20, deli_10."),
        ("promos:\n  meat_2: {}", "line 2: promo 'meat_2' is unknown; perhaps you mean 'meat_20'."),
        (
            "promos:\n  meat_20:\n    active: true\n    chanels: [app]",
            "line 4: promo 'meat_20', key 'chanels' is unknown; perhaps you mean 'channels'.",
        ),
        ("defaults: {min_basket_cents: -1}", "line 1: under 'defaults', key 'min_basket_cents' has the value -1: Input should be greater"),
        ("promos: {meat_20: {valid_from: soon}}", "line 1: promo 'meat_20', key 'valid_from' has the value 'soon'"),
        (
            "promos:\n  meat_20:\n    valid_from: 2017-02-01\n    valid_until: 2017-01-01",
            "line 4: promo 'meat_20', key 'valid_until' (2017-01-01) lies before 'valid_from' (2017-02-01).",
        ),
        ("defaults:\n  categories:\n  - meat\n  - fish", "line 4: under 'defaults', key 'categories' names 'fish'; known are"),
        (
            "defaults:\n  segments:\n    age: ['19-24']",
            "line 3: under 'defaults', key 'segments' names the attribute 'age'; known are age_band, area.",
        ),
        (
            "defaults:\n  segments:\n    age_band: ['19-2']",
            "line 3: under 'defaults', key 'segments' names age_band '19-2'; perhaps you mean '19-24'.",
        ),
        ("promos: {deli_10: {excludes: [meat]}}", "line 1: promo 'deli_10', key 'excludes' names 'meat'; perhaps you mean 'meat_20'."),
        ("promotions: {}", "line 1: key 'promotions' is unknown; perhaps you mean 'promos'."),
        ("promos: [meat_20]", "line 1: 'promos' must be a mapping"),
        ("[meat_20]", "line 1: the document must be a mapping"),
        ("shopper: {cap_per_day: x}", "line 1: under 'shopper', key 'cap_per_day' has the value 'x'"),
        (
            "depth_ladders:\n- [meat_20, deli_10]",
            "line 2: a ladder needs two promos or more, shallow to deep; this one is meat_20 (20%), deli_10 (10%).",
        ),
        ("defaults:\n  stores: ['1']\n  stores: ['2']", "line 3: key 'stores' is given twice; keep one."),
        ("defaults: [", "is not YAML: while parsing"),
        ("defaults: {valid_from: 2017-13-01}", "is not YAML"),
    ],
)
def test_a_wrong_file_names_line_and_key(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as problem:
        load_rules(path, PROMOS, ATTRIBUTES)
    assert str(path) in str(problem.value) and sentence in str(problem.value)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read .* with --rules"):
        load_rules(tmp_path / "none.yaml", PROMOS)


def test_the_version_changes_with_what_the_rules_say_and_only_then() -> None:
    same = rules({"promos": {"meat_20": {"stores": ["1"]}}})
    assert same.version == rules({"defaults": {}, "promos": {"meat_20": {"stores": ["1"]}}}).version
    assert same.version != rules({"promos": {"meat_20": {"stores": ["2"]}}}).version
    assert same.version != rules({"promos": {"meat_20": {"stores": ["1"]}}, "shopper": {"cap_per_day": 1}}).version
