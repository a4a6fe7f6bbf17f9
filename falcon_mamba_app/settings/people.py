"""The options of people who have names of their own."""

from __future__ import annotations

from dataclasses import dataclass

from falcon_mamba_app.settings.options import option
from falcon_mamba_app.settings.parsing import parse_file, parse_header_name


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleSettings:
    """Who somebody is, beside the one login that all share."""

    users: str | None = option(
        None,
        "file of users and their passwords, made by `falcon-mamba user add`; they sign in to the"
        " page under their own names",
        parse=parse_file,
        is_secret=True,  # an empty one would leave the page open
    )
    keys: str | None = option(
        None,
        "file of named API keys that belong to users, made by `falcon-mamba key add`",
        parse=parse_file,
        is_secret=True,
    )
    user_header: str | None = option(
        None,
        "header in which one of --trusted-proxies says who signed in there, such as X-Remote-User",
        parse=parse_header_name,
    )

    @property
    def is_lock(self) -> bool:
        """Whether page and API are closed to people without a name."""
        return bool(self.users or self.keys or self.user_header)
