"""What the engine knows of a reply's form: a matcher that says which tokens may come next."""

from __future__ import annotations

from typing import Protocol

from falcon_mamba_app.protocol import Form


class Matcher(Protocol):
    """Follows one reply. Both methods may raise InvalidRequest: the reply then fails."""

    @property
    def form(self) -> Form:
        """For whoever must make the matcher again in another process."""
        ...

    def allowed(self) -> bytes:
        """A bit for each token that may come next; an end of text once the form is complete."""
        ...

    def advance(self, token_id: int) -> None:
        """The reply has gone on with this token."""
        ...
