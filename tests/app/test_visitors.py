"""How much one visitor may have; time stands still unless a test moves it."""

from __future__ import annotations

from contextlib import suppress
from types import SimpleNamespace

import httpx
import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.errors import TooManyRequests
from falcon_mamba_app.rates import MAX_REMEMBERED, Rate
from falcon_mamba_app.settings import LimitSettings
from falcon_mamba_app.visitors import EXPIRY_INTERVAL_S, SESSION_COUNTS_S, Visitors, visitor_in
from tests.support.echo_service import EchoService

ADDRESS = "203.0.113.7"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def limited(clock, **limits):
    return Visitors(LimitSettings(**limits), clock)


def test_a_bucket_gives_what_it_holds_and_fills_again(clock):
    rate = Rate(6, "requests came", clock)
    for _ in range(6):
        rate.take("ada")
    with pytest.raises(TooManyRequests, match=r"more than 6 requests came .* again in 10 s") as no:
        rate.take("ada")
    assert no.value.retry_after_s == 10
    rate.take("bert")
    clock.now_s += 9.9
    with pytest.raises(TooManyRequests):
        rate.take("ada")
    clock.now_s += 0.1
    rate.take("ada")
    clock.now_s += 3_600
    assert rate.check("ada") == 6


def test_what_is_more_than_a_bucket_takes_the_whole_bucket(clock):
    rate = Rate(6, "requests came", clock)
    rate.take("ada", 128)
    with pytest.raises(TooManyRequests):
        rate.take("ada")


def test_buckets_of_the_longest_silent_are_forgotten(clock):
    rate = Rate(1, "requests came", clock)
    for number in range(MAX_REMEMBERED + 1):
        rate.take(f"visitor {number}")
    rate.take("visitor 0")
    with pytest.raises(TooManyRequests):
        rate.take("visitor 2")


def test_replies_at_the_same_time_are_limited_and_given_back(clock):
    visitor = limited(clock, visitor_max_replies=3, visitor_replies_per_minute=0).at(ADDRESS)
    with visitor.replies("a", 2) as width:
        assert width == 2
        with visitor.replies("b", 128) as width:
            assert width == 1  # what is left; the rest of the 128 waits for it
            with pytest.raises(TooManyRequests, match="3 replies are being written"):
                visitor.replies("c").__enter__()
    with visitor.replies("c", 128) as width:
        assert width == 3


def test_a_refused_reply_takes_nothing(clock):
    visitors = limited(clock, visitor_replies_per_minute=1)
    visitor = visitors.at(ADDRESS)
    with visitor.replies(None):
        pass
    for _ in range(3):
        with pytest.raises(TooManyRequests, match="replies were asked for"):
            visitor.replies("new session").__enter__()
    clock.now_s += 60
    with visitor.replies(None):
        pass
    assert not visitors._usages


def use(visitor, session):
    with visitor.session(session):
        pass


def test_a_session_whose_use_fails_does_not_count(clock):
    visitor = limited(clock, visitor_max_sessions=1).at(ADDRESS)
    with pytest.raises(ValueError), visitor.session("a"):
        raise ValueError
    use(visitor, "b")
    with pytest.raises(ValueError), visitor.session("b"):
        raise ValueError
    with pytest.raises(TooManyRequests):
        use(visitor, "a")  # b was there before, and still is


def begin(visitor, session):
    """A use of the session, and how it ends: well, or by raising."""
    use = visitor.session(session)
    use.__enter__()

    def end(*, well):
        error = None if well else ValueError()
        assert not use.__exit__(error and ValueError, error, None)

    return end


@pytest.mark.parametrize("first_ends_first", [True, False])
@pytest.mark.parametrize("first_is_well", [True, False])
@pytest.mark.parametrize("second_is_well", [True, False])
def test_a_new_session_in_two_uses_counts_if_one_succeeds_in_any_order(
    clock, first_ends_first, first_is_well, second_is_well
):
    """The failure of the use that began the session dropped it although the other had stored it:
    any number of sessions could be had so. The clock stands still here, so times tell nothing.
    """
    visitor = limited(clock, visitor_max_sessions=1).at(ADDRESS)
    ends = [(begin(visitor, "a"), first_is_well), (begin(visitor, "a"), second_is_well)]
    for end, is_well in ends if first_ends_first else reversed(ends):
        with pytest.raises(TooManyRequests):
            use(visitor, "b")  # while one is open it counts
        end(well=is_well)
    if first_is_well or second_is_well:
        with pytest.raises(TooManyRequests):
            use(visitor, "b")
    else:
        use(visitor, "b")


def test_a_session_dropped_while_in_use_counts_if_the_use_succeeds(clock):
    visitor = limited(clock, visitor_max_sessions=1).at(ADDRESS)
    for is_well in (False, True):
        end = begin(visitor, "a")
        visitor.drop_session("a")
        end(well=is_well)
        if is_well:
            with pytest.raises(TooManyRequests):
                use(visitor, "b")
        else:
            use(visitor, "b")
            visitor.drop_session("b")


def test_a_reply_in_a_session_keeps_it_whatever_becomes_of_another_use(clock):
    visitor = limited(clock, visitor_max_sessions=1).at(ADDRESS)
    end = begin(visitor, "a")
    with visitor.replies("a"):
        pass
    end(well=False)
    with pytest.raises(TooManyRequests):
        use(visitor, "b")


def test_sessions_count_until_an_hour_has_passed_or_they_are_gone(clock):
    visitor = limited(clock, visitor_max_sessions=2).at(ADDRESS)
    for session in "ab":
        use(visitor, session)
    with pytest.raises(TooManyRequests, match="you have 2 conversations"):
        visitor.replies("c").__enter__()
    use(visitor, "a")
    visitor.drop_session("b")
    use(visitor, "c")
    clock.now_s += SESSION_COUNTS_S - 1
    use(visitor, "a")
    clock.now_s += EXPIRY_INTERVAL_S
    use(visitor, "d")  # c has been silent for an hour
    with pytest.raises(TooManyRequests):
        use(visitor, "c")


def test_open_requests_are_limited_and_given_back(clock):
    visitor = limited(clock, visitor_max_connections=1).at(ADDRESS)
    with visitor.connection(), pytest.raises(TooManyRequests, match="1 requests from here"):
        visitor.connection().__enter__()
    with visitor.connection():
        pass


def test_zero_is_no_limit(clock):
    nothing = {name: 0 for name in LimitSettings.__dataclass_fields__ if "visitor" in name}
    visitor = limited(clock, **nothing).at(ADDRESS)
    for number in range(300):
        visitor.count_request()
        visitor.replies(f"session {number}", 100).__enter__()
        visitor.connection().__enter__()


def test_an_exempt_visitor_may_everything_but_try_keys(clock):
    visitor = limited(
        clock, visitor_requests_per_minute=1, visitor_max_replies=1, wrong_keys_per_minute=1
    ).at("127.0.0.1", is_exempt=True)
    for _ in range(3):
        visitor.count_request()
        visitor.replies("a").__enter__()
    visitor.check_attempts()
    visitor.count_wrong_key()
    with pytest.raises(TooManyRequests):
        visitor.check_attempts()


def test_a_key_is_one_visitor_wherever_it_calls_from(clock):
    visitors = limited(clock, visitor_max_replies=1)
    with visitors.at(ADDRESS).with_key("k").replies(None):
        with pytest.raises(TooManyRequests):
            visitors.at("198.51.100.1").with_key("k").replies(None).__enter__()
        with visitors.at(ADDRESS).with_key("other").replies(None), visitors.at(ADDRESS).replies(""):
            pass


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8:1:2:3::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("203.0.113.7", "::ffff:203.0.113.7", True),
        ("203.0.113.7", "203.0.113.8", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
    ],
)
def test_a_household_with_ipv6_is_one_visitor(clock, one, other, are_one):
    visitors = limited(clock, visitor_requests_per_minute=1)
    visitors.at(one).count_request()
    if are_one:
        with pytest.raises(TooManyRequests):
            visitors.at(other).count_request()
    else:
        visitors.at(other).count_request()


def test_tokens_that_were_read_are_a_debt_that_time_pays(clock):
    visitors = Visitors(LimitSettings(visitor_tokens_per_minute=6_000), clock)
    visitor = visitors.at(ADDRESS)
    with visitor.replies(None):
        visitor.count_tokens(9_000)
    with pytest.raises(TooManyRequests, match="6000 tokens were read and written .* in 31 s"):
        visitor.replies(None).__enter__()
    clock.now_s += 31
    with visitor.replies(None):
        pass
    with visitors.at("198.51.100.1").replies(None):
        pass


def test_whose_line_it_is_and_what_it_weighs():
    visitors = Visitors(LimitSettings(), weights=[("big", 4.0)])
    stranger = visitors.at(ADDRESS)
    assert stranger.line("a") == stranger.line("b") == ADDRESS
    assert stranger.with_key("big").line("a") == visitors.at("198.51.100.1").with_key("big").line(
        "b"
    )
    assert (stranger.weight, stranger.with_key("big").weight) == (1.0, 4.0)
    here = visitors.at("127.0.0.1", is_exempt=True)
    assert here.line("a") != here.line("b")


def try_keys(visitors, addresses) -> int:
    """How many wrong keys are looked at, one from each address."""
    looked_at = 0
    for address in addresses:
        with suppress(TooManyRequests):
            visitors.at(address).check_attempts()
            visitors.at(address).count_wrong_key()
            looked_at += 1
    return looked_at


@pytest.mark.parametrize(
    ("addresses", "allowed"),
    [
        ([f"2001:db8:0:{n:x}::1" for n in range(0x100)], 40),  # a /56
        ([f"2001:db8:0:{n:x}::1" for n in range(0, 0x10000, 0x80)], 160),  # a /48
        ([f"2001:db8:{n:x}::1" for n in range(1_200)], 1_000),
        ([f"203.0.{n // 250}.{n % 250}" for n in range(1_200)], 1_000),
    ],
)
def test_wrong_keys_count_for_the_networks_around_an_address_and_in_all(clock, addresses, allowed):
    """One /48, which costs nothing, had 655,360 tries at once."""
    visitors = Visitors(LimitSettings(), clock)
    assert try_keys(visitors, addresses) == allowed
    clock.now_s += 60
    assert try_keys(visitors, addresses) == allowed


def test_too_many_wrong_keys_in_all_do_not_lock_out_who_brought_a_right_one(clock):
    visitors = Visitors(LimitSettings(), clock)
    visitors.at(ADDRESS).count_right_key()
    assert try_keys(visitors, [f"198.51.{n // 250}.{n % 250}" for n in range(1_200)]) == 1_000
    visitors.at(ADDRESS).check_attempts()
    with pytest.raises(TooManyRequests, match="1000 wrong keys or passwords came from all sides"):
        visitors.at("192.0.2.1").check_attempts()


async def test_a_request_past_the_layer_that_limits_visitors_is_our_mistake_and_no_guest():
    transport = httpx.ASGITransport(app=create_api(EchoService()))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/v1/models")).status_code == 500


def test_a_page_s_event_past_that_layer_is_too():
    with pytest.raises(AssertionError, match="past the layer that limits visitors"):
        visitor_in(SimpleNamespace())
