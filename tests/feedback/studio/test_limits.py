"""How often is too often."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from accord.feedback.studio.limits import Limits, _Failures

MINUTE = 60_000


def fail(limits, times, account="ada", address="1.2.3.4", now=0):
    for _ in range(times):
        for name in (limits._name("account", account), limits._name("address", address)):
            limits._failures.setdefault(name, _Failures()).times.append(now)


def test_five_failures_are_free_then_the_wait_doubles():
    limits, waits = Limits(120), []
    for count in range(9):
        waits.append(limits.login_wait("ada", "1.2.3.4", 0))
        fail(limits, 1)
        assert count < 9
    assert waits == [0, 0, 0, 0, 0, 1000, 2000, 4000, 8000]


def test_a_hundred_guesses_at_once_are_not_free():
    limits = Limits(120)
    with ThreadPoolExecutor(20) as pool:
        waits = list(pool.map(lambda _: limits.login_try("ada", "1.2.3.4", 0), range(100)))
    assert waits.count(0) == 5


def test_a_login_that_succeeds_costs_its_address_nothing():
    limits = Limits(120)
    for number in range(50):
        assert limits.login_try(f"person {number}", "1.2.3.4", 0) == 0
        limits.login_succeeded(f"person {number}", "1.2.3.4")


def test_nobody_is_locked_out_for_good():
    limits = Limits(120)
    fail(limits, 100)
    assert limits.login_wait("ada", "1.2.3.4", 0) == 15 * MINUTE
    assert limits.login_wait("ada", "1.2.3.4", 15 * MINUTE) == 0


def test_an_address_that_tries_many_accounts_waits_too_and_others_do_not():
    limits = Limits(120)
    for number in range(6):
        fail(limits, 1, account=f"person {number}")
    assert limits.login_wait("person 7", "1.2.3.4", 0) == 2000
    assert limits.login_wait("person 7", "5.6.7.8", 0) == 0


def test_success_frees_the_account_but_not_the_address():
    limits = Limits(120)
    fail(limits, 6)
    assert limits.login_try("Ada", "1.2.3.4", 2000) == 0
    limits.login_succeeded("Ada", "1.2.3.4")
    assert limits.login_wait("ada", "5.6.7.8", 0) == 0
    assert limits.login_wait("ada", "1.2.3.4", 0) == 2000


def test_a_session_has_its_requests_per_minute_and_they_come_back_evenly():
    limits = Limits(120)
    assert [limits.request_wait("s", 0) for _ in range(120)] == [0] * 120
    assert 0 < limits.request_wait("s", 0) <= 501
    assert limits.request_wait("s", 600) == 0
    assert limits.request_wait("other", 0) == 0


def test_a_clock_that_is_turned_back_makes_nobody_wait():
    limits = Limits(120)
    fail(limits, 5, now=10 * MINUTE)
    assert limits.login_wait("ada", "1.2.3.4", 0) <= 1000
    limits.request_wait("s", 10 * MINUTE)
    assert limits.request_wait("s", 0) == 0
