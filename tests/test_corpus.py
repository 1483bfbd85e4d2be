"""The hand-written entries of the corpus: well formed, answerable, and nothing of the test requests in them."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from data.corpus import everyday
from data.corpus.tasks import KINDS
from data.world.catalogue import CATALOGUE

PURPOSES = everyday.purposes()


def wording(template: str) -> str:
    """A template without its values, capitals and stops."""
    return " ".join(re.sub(r"[^a-z]+", " ", re.sub(r"\{[^}]*\}", " ", template.lower())).split())


def test_there_are_hundreds_of_purposes_with_a_dozen_wordings_each() -> None:
    assert len(PURPOSES) >= 400
    assert min(len(one.asks) for one in PURPOSES) >= 12


def test_every_wording_mentions_known_fields_and_lacks_what_it_should() -> None:
    for purpose in PURPOSES:
        known = {one.name for one in purpose.fields}
        required = {one.name for one in purpose.fields if one.required}
        for part, lacks in ((purpose.asks, False), (purpose.bare, True)):
            for template in part:
                fields = re.findall(r"\{([^}]*)\}", template)
                assert len(fields) == len(set(fields)), template
                assert known.issuperset(fields), template
                assert bool(required.difference(fields)) == lacks, template


def test_a_name_belongs_to_one_purpose() -> None:
    names = Counter(name for one in PURPOSES for name in one.names)
    assert [name for name, count in names.items() if count > 1] == []


def test_nothing_of_the_worlds_test_requests_is_in_the_corpus() -> None:
    tested = {wording(one) for tool in CATALOGUE for one in (*tool.test, *tool.bare[1])}
    corpus = {wording(one) for purpose in PURPOSES for one in (*purpose.asks, *purpose.bare)}
    assert tested & corpus - {""} == set()
    assert {tool.tool.name for tool in CATALOGUE}.isdisjoint(name for one in PURPOSES for name in one.names)


@pytest.mark.parametrize("kind", ["dispatch", "catalogue"])
def test_a_request_names_every_value_of_its_record_as_it_is_written(kind: str) -> None:
    rng = random.Random(5)
    for _ in range(400):
        entries, _absent = everyday.draw_catalogue(rng, 3)
        for entry in entries:
            ask = everyday.ask_for(rng, entry, entries)
            assert ask is None or all(str(value) in ask.text for value in ask.values.values())
    assert KINDS[kind](rng).tools
