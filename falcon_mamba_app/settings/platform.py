"""The platform of the process, from its environment. No other module reads these variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# What a Space sets for it, and Gradio reads.
OAUTH_VARIABLES = (
    "OAUTH_CLIENT_ID",
    "OAUTH_CLIENT_SECRET",
    "OAUTH_SCOPES",
    "OPENID_PROVIDER_URL",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """A machine of one's own, unless it says otherwise.

    is_space: a Hugging Face Space, which has a public address and shows the page in a frame.
    lends_gpus: a Space on ZeroGPU, which lends a GPU for one reply at a time.
    signs_in: a Space with `hf_oauth: true` in its README, whose visitors may sign in at the hub.
    """

    is_space: bool = False
    lends_gpus: bool = False
    signs_in: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Platform:
        return cls(
            is_space=bool(environment.get("SPACE_ID")),
            signs_in=bool(environment.get("SPACE_ID"))
            and all(environment.get(name) for name in OAUTH_VARIABLES),
            lends_gpus=environment.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"),
        )
