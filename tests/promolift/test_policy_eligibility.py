"""Rules as data: what they allow, the sentence for what they refuse, and whole sentences for a wrong file."""

from typing import Any

import pytest

from promolift.contracts.decisions import read_request
from promolift.contracts.promos import Promo
from promolift.errors import InputError
from promolift.policy.eligibility import eligible
from promolift.policy.rules import read_rules

PROMOS = (Promo("meat_20", "meat", 0.2, 500), Promo("deli_10", "deli", 0.1, 300))


def ask(**fields: Any) -> Any:
    return read_request({"request_id": "r", "shopper_id": "s", "moment": "2017-11-30T23:59:59Z", **fields})


def rules(document: Any) -> Any:
    return read_rules(document, PROMOS, "rules.yaml")


def test_no_rules_allow_everything_in_catalogue_order() -> None:
    candidates = eligible(ask(), rules({}))
    assert candidates.promo_ids == ("meat_20", "deli_10")
    assert candidates.refused == {}


@pytest.mark.parametrize(
    ("rule", "request_fields", "sentence"),
    [
        ({"valid_from": "2017-12-01"}, {}, "promo meat_20 is not valid before 2017-12-01"),
        ({"valid_until": "2017-11-29"}, {}, "promo meat_20 is not valid after 2017-11-29"),
        ({"stores": ["1"]}, {"store_id": "2"}, "promo meat_20 is not given in store '2'"),
        ({"channels": ["app"]}, {"channel": "pos"}, "promo meat_20 is not given in channel 'pos'"),
        ({"categories": ["meat", "deli"]}, {}, "promo meat_20 needs meat or deli in the basket"),
        ({"min_basket_cents": 100}, {}, "promo meat_20 needs a basket of 100 cents and this one has 0"),
        ({"active": False}, {}, "promo meat_20 is switched off"),
    ],
)
def test_each_rule_refuses_with_a_sentence(rule: dict[str, Any], request_fields: Any, sentence: str) -> None:
    candidates = eligible(ask(**request_fields), rules({"promos": {"meat_20": rule}}))
    assert candidates.promo_ids == ("deli_10",)
    assert candidates.refused == {"meat_20": sentence}


def test_each_rule_allows_at_its_edge() -> None:
    document = {
        "defaults": {
            "valid_from": "2017-11-30", "valid_until": "2017-11-30", "stores": ["1"], "channels": ["web"], "categories": ["meat"],
            "min_basket_cents": 300,
        }
    }  # fmt: skip
    basket = [{"category": "meat", "amount_cents": 100}, {"category": "deli", "amount_cents": 200}]
    assert eligible(ask(store_id="1", channel="web", basket=basket), rules(document)).refused == {}


def test_a_promo_overrides_the_defaults_field_by_field() -> None:
    document = {"defaults": {"stores": ["1"], "min_basket_cents": 5}, "promos": {"meat_20": {"stores": []}}}
    rule = rules(document).by_promo["meat_20"]
    assert (rule.stores, rule.min_basket_cents) == ((), 5)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"promos": {"fish_5": {}}}, ("rules.yaml", "fish_5", "meat_20")),
        ({"promos": {"meat_20": {"chanels": ["app"]}}}, ("rules.yaml", "meat_20", "chanels")),
        ({"defaults": {"min_basket_cents": -1}}, ("rules.yaml", "defaults", "min_basket_cents", "-1")),
        ({"promos": {"meat_20": {"valid_from": "soon"}}}, ("rules.yaml", "valid_from", "soon")),
        ({"promos": {"meat_20": {"valid_from": "2017-02-01", "valid_until": "2017-01-01"}}}, ("valid_until", "2017-01-01")),
        ({"defaults": {"categories": ["fish"]}}, ("rules.yaml", "categories", "fish")),
        ({"promotions": {}}, ("rules.yaml", "promotions")),
        ({"promos": ["meat_20"]}, ("rules.yaml", "promos")),
        (["meat_20"], ("rules.yaml",)),
    ],
)
def test_a_wrong_document_names_file_and_key(document: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as problem:
        rules(document)
    for word in words:
        assert word in str(problem.value)


def test_the_version_changes_with_what_the_rules_say_and_only_then() -> None:
    same = rules({"promos": {"meat_20": {"stores": ["1"]}}})
    assert same.version == rules({"defaults": {}, "promos": {"meat_20": {"stores": ["1"]}}}).version
    assert same.version != rules({"promos": {"meat_20": {"stores": ["2"]}}}).version
