"""Each error has one code, a blame, an exit code and a status that fits the blame."""

from __future__ import annotations

from minga.core import errors
from minga.core.errors import MingaError

BLAMES = {"tenant", "provider", "network", "ours"}


def every_class():
    found, queue = [], [MingaError]
    while queue:
        kind = queue.pop()
        found.append(kind)
        queue.extend(kind.__subclasses__())
    return found


def test_codes_are_unique_and_blames_known():
    concrete = [k for k in every_class() if "code" in vars(k)]
    assert len({k.code for k in concrete}) == len(concrete)
    assert {k.blame for k in every_class()} <= BLAMES


def test_statuses_fit_the_blame():
    for kind in every_class():
        if kind.blame == "tenant":
            assert 400 <= kind.http_status < 500, kind
        assert 1 <= kind.exit_code <= 6, kind


def test_an_error_says_what_and_what_to_do():
    error = errors.BudgetTooSmall("the budget is 0.01, the smallest lease costs 0.02", "raise --budget", need=20_000)
    assert str(error) == "budget-too-small: the budget is 0.01, the smallest lease costs 0.02 (raise --budget)"
    assert error.as_dict()["error"] == {
        "code": "budget-too-small",
        "blame": "tenant",
        "fact": "the budget is 0.01, the smallest lease costs 0.02",
        "remedy": "raise --budget",
        "details": {"need": 20_000},
    }
