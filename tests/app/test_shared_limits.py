"""Limits count over all copies of a server: what one visitor spends at each is added up."""

from __future__ import annotations

import logging

import pytest

from falcon_mamba_app.errors import LibraryUnavailable, TooManyRequests
from falcon_mamba_app.library import Library, Place
from falcon_mamba_app.settings import LimitSettings
from falcon_mamba_app.shared_limits import SharedLimits
from falcon_mamba_app.tally import IDLE_ROUNDS, Tally
from falcon_mamba_app.visitors import Visitors

SECRET = "of all copies"
LIMITS = LimitSettings(
    visitor_replies_per_minute=10,
    visitor_tokens_per_minute=1_000,
    visitor_requests_per_minute=60,
    visitor_max_replies=3,
    wrong_keys_per_minute=4,
)
ANNA, TOM = "203.0.113.7", "203.0.113.8"


class Copy:
    """What one copy has of limits; its clock is everybody's."""

    def __init__(self, library: Library, now_s: list[float]) -> None:
        self.library = library
        self.shared = SharedLimits(Tally(SECRET), library.spending)
        self.visitors = Visitors(LIMITS, lambda: now_s[0], tally=self.shared.tally)

    def reply(self, address: str = ANNA, count: int = 1) -> None:
        with self.visitors.at(address).replies(None, count):
            pass


@pytest.fixture
async def copies(tmp_path):
    now_s = [1_000.0]
    libraries = [await Library.open(Place(folder=tmp_path)) for _ in range(2)]
    copies = [Copy(library, now_s) for library in libraries]
    for copy in copies:
        await copy.shared.exchange()
    yield *copies, now_s
    for library in libraries:
        await library.close()


async def exchange(*copies: Copy) -> None:
    """As it is after some seconds: all have told, and all have heard."""
    for copy in 3 * copies:
        await copy.shared.exchange()


async def test_two_copies_give_a_visitor_what_one_gives(copies):
    one, other, now_s = copies
    for _ in range(6):
        one.reply()
    await exchange(one, other)
    for _ in range(4):
        other.reply()
    with pytest.raises(TooManyRequests):
        other.reply()
    other.reply(TOM)
    await exchange(one, other)
    with pytest.raises(TooManyRequests):
        one.reply()
    now_s[0] += 6  # one more by now, for both together
    one.reply()
    await exchange(one, other)
    with pytest.raises(TooManyRequests):
        other.reply()


async def test_what_was_spent_everywhere_in_one_moment_is_paid_with_waiting(copies):
    one, other, now_s = copies
    for copy in (one, other):
        for _ in range(10):
            copy.reply()
    await exchange(one, other)
    now_s[0] += 60  # pays what was taken twice
    for copy in (one, other):
        with pytest.raises(TooManyRequests):
            copy.reply()
    now_s[0] += 6
    one.reply()


async def test_tokens_requests_and_wrong_keys_count_together_too(copies):
    one, other, _ = copies
    for copy in (one, other):
        copy.visitors.at(ANNA).count_tokens(600)
        copy.visitors.at(ANNA).count_request(30)
        for _ in range(2):
            copy.visitors.at(ANNA).count_wrong_key()
    await exchange(one, other)
    for copy in (one, other):
        visitor = copy.visitors.at(ANNA)
        with pytest.raises(TooManyRequests, match="requests"):
            visitor.count_request()
        with pytest.raises(TooManyRequests, match="wrong keys"):
            visitor.check_attempts()
        with pytest.raises(TooManyRequests, match="tokens"), visitor.replies(None):
            pass


async def test_replies_at_the_same_time_count_together_until_their_copy_ends(copies):
    one, other, now_s = copies
    with one.visitors.at(ANNA).replies(None, 2) as width:
        assert width == 2
        await exchange(one, other)
        with other.visitors.at(ANNA).replies(None, 2) as width:
            assert width == 1
            await exchange(one, other)
            with pytest.raises(TooManyRequests, match="3 replies"):
                one.reply()
    now_s[0] += 60
    await exchange(one, other)
    with other.visitors.at(ANNA).replies(None, 3) as width:
        assert width == 3
    with one.visitors.at(ANNA).replies(None, 3):
        await exchange(one, other)
        with pytest.raises(TooManyRequests):
            other.reply()
        await one.library.close()  # as if it were killed: its lock has gone
        await other.shared.sweep()
        other.reply()


async def test_replies_that_are_over_within_a_moment_stand_in_nobodys_way(copies):
    """A figure from another copy is a second old: a reply that it shows may be over."""
    one, other, now_s = copies
    with one.visitors.at(ANNA).replies(None, 3):
        await one.shared.exchange()
    await other.shared.exchange()
    with other.visitors.at(ANNA).replies(None, 3) as width:
        assert width == 3


async def test_a_copy_that_begins_charges_nobody_for_earlier_days(copies, tmp_path):
    one, other, now_s = copies
    for _ in range(10):
        one.reply()
    await exchange(one, other)
    late = Copy(await Library.open(Place(folder=tmp_path)), now_s)
    await late.shared.exchange()
    late.reply()
    await late.library.close()


async def test_without_its_database_a_copy_counts_alone_and_tells_all_of_it_later(copies):
    one, other, _ = copies
    for _ in range(6):
        one.reply()

    async def fails(*_, **__):
        raise LibraryUnavailable("the disk is full")

    works, one.shared._spending.exchange = one.shared._spending.exchange, fails
    with pytest.raises(LibraryUnavailable):
        await one.shared.exchange()
    one.shared._spending.exchange = works
    await exchange(one, other)
    for _ in range(4):
        other.reply()
    with pytest.raises(TooManyRequests):
        other.reply()


async def test_no_name_is_written_and_old_rows_go(copies):
    one, other, _ = copies
    visitor = one.visitors.at("", is_exempt=False).with_key("a secret key")
    visitor.count_request()
    one.visitors.at(ANNA).count_request()
    await exchange(one, other)
    folder = one.library.place.folder
    written = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    assert b"secret key" not in written and ANNA.encode() not in written
    told = await other.library.spending.exchange(1, [], [], {})
    assert len(told) == 2
    one.shared.tally._round += IDLE_ROUNDS
    await one.shared.exchange()
    assert await other.library.spending.exchange(1, [], [], {}) == []


async def test_a_request_never_waits_for_another_copy(copies):
    """What a request does is counted in memory; nobody asks the database before the exchange."""
    one, *_ = copies

    async def asked(*_, **__):
        raise AssertionError("a request asked the database")

    one.library._database.write = one.library._database.read = asked
    for _ in range(5):
        one.reply()
        one.visitors.at(ANNA).count_request()


async def test_copies_without_a_database_say_that_they_count_alone(caplog):
    with caplog.at_level(logging.WARNING):
        assert SharedLimits.begin(None, SECRET) is None
    assert "for this copy alone" in caplog.text
