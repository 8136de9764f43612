"""The proposals of version 4bcc55e: a sampler of today gives them, from its start and restored in the middle."""

import json
from importlib.metadata import version
from typing import Any

import pytest
from golden import CASES, FILE, LIBRARIES, Search, same

RESTORED = 10  # proposals that are recorded before the sampler is restored

GOLDEN: dict[str, Any] = json.loads(FILE.read_text())


@pytest.fixture(params=CASES, ids=" ".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Algorithm and direction."""
    algorithm, direction = request.param
    library = LIBRARIES.get(algorithm)
    if library and version(library) != GOLDEN["versions"][library]:
        pytest.skip(f"the proposals are those of {library} {GOLDEN['versions'][library]}")
    return algorithm, direction


def assert_as_recorded(found: list[dict[str, Any]], recorded: list[dict[str, Any]]) -> None:
    assert len(found) == len(recorded)
    for one, other in zip(found, recorded, strict=True):
        assert same(one, other), f"proposed {one}, recorded {other}"


def test_proposals_are_the_recorded_ones(case: tuple[str, str]) -> None:
    recorded = GOLDEN[" ".join(case)]
    assert_as_recorded(Search(*case).run(len(recorded)), recorded)


def test_a_restored_sampler_goes_on_with_the_recorded_ones(case: tuple[str, str]) -> None:
    recorded = GOLDEN[" ".join(case)]
    search = Search.restored(*case, recorded[:RESTORED])
    assert_as_recorded(search.run(len(recorded))[RESTORED:], recorded[RESTORED:])
