"""Every setting, its default and its limits.

Each field of a section is one option: `max_running` is `--max-running` and
`FALCON_MAMBA_MAX_RUNNING`. What an option is besides its name and default stands in its metadata.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from falcon_mamba_app.settings.cluster import ClusterSettings
from falcon_mamba_app.settings.engine import EngineSettings
from falcon_mamba_app.settings.keeping import LibrarySettings
from falcon_mamba_app.settings.options import AUTO as AUTO
from falcon_mamba_app.settings.options import option
from falcon_mamba_app.settings.parsing import (
    parse_bytes,
    parse_key,
    parse_key_weights,
    parse_keys,
    parse_login,
    parse_names,
    parse_networks,
    parse_origin_patterns,
    parse_origins,
    parse_root_path,
    parse_secret,
)
from falcon_mamba_app.settings.people import PeopleSettings
from falcon_mamba_app.settings.platform import Platform
from falcon_mamba_app.settings.storage import OFF, StorageSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """Which model runs, and where."""

    model: str = option(
        AUTO,
        "a known name, a hub id, a folder or a .gguf file;"
        ' "nano" is bundled, "auto" suits the machine',
    )
    revision: str | None = option(None, "branch, tag or commit of a hub model", is_local=True)
    device: str = option(AUTO, "where it runs", is_local=True, choices=(AUTO, "cpu", "cuda"))
    dtype: str = option(
        AUTO,
        "precision of weights and activations",
        is_local=True,
        choices=(AUTO, "float32", "bfloat16", "float16"),
    )
    quantization: str = option(
        AUTO,
        "form of the matrices: int8, or 4 bits through bitsandbytes; auto: as stored, else the"
        " first that fits of none, int8 and nf4",
        is_local=True,
        choices=(AUTO, "none", "int8", "nf4", "fp4"),
    )
    double_quantization: str = option(
        AUTO,
        "also quantise the 4-bit blocks' scales; auto: as stored, else off",
        is_local=True,
        choices=(AUTO, "on", "off"),
    )
    kernels: str = option(
        AUTO,
        "implementation of the recurrence: numba on the CPU; triton or library (mamba-ssm and"
        " causal-conv1d) on a GPU; reference on both",
        is_local=True,
        choices=(AUTO, "reference", "numba", "triton", "library"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Who may reach the service, and what stands behind it."""

    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(7860, "port to listen on", at_least=0, at_most=65_535)
    share: bool = option(False, "also open a public link through Gradio's relay")
    keep_session_s: int = option(
        600,
        "seconds to keep the conversation of a page that was closed, or that lost its connection",
        at_least=0,
    )
    auth: str | None = option(
        None,
        "USER:PASSWORD that the page asks for; without --api-key also the API's only key",
        parse=parse_login,
        is_secret=True,
    )
    api_key: tuple[str, ...] = option(
        (),
        "key, or keys with commas, that /v1 asks for; without --auth also the page's password",
        parse=parse_keys,
        is_secret=True,
    )
    key_weights: tuple[tuple[str, float], ...] = option(
        (),
        "KEY=NUMBER, with commas: API keys with another share of the server than 1",
        parse=parse_key_weights,
        is_secret=True,
    )
    session_secret: str | None = option(
        None,
        "names API sessions and signs logins; with one of your own, both outlive a restart",
        parse=parse_secret,
        is_secret=True,
    )
    trusted_proxies: tuple[str, ...] = option(
        (),
        "addresses or networks, with commas, whose X-Forwarded-For is believed",
        parse=parse_networks,
    )
    root_path: str = option(
        "",
        "path, or whole address, under which a proxy shows the server, as /demo",
        parse=parse_root_path,
    )
    cors_origins: tuple[str, ...] = option(
        (), "web pages elsewhere, as https://host with commas, that may call", parse=parse_origins
    )
    allowed_hosts: tuple[str, ...] = option(
        (), "names, with commas, under which the server answers; none: any", parse=parse_names
    )
    frame_ancestors: tuple[str, ...] = option(
        (),
        "web pages elsewhere, as https://host with commas, that may show this one in a frame",
        parse=parse_origin_patterns,
    )
    served_model_name: tuple[str, ...] = option(
        (), "names, with commas, under which the API offers the model", parse=parse_names
    )
    reuse_prompts: bool = option(
        True,
        "begin API requests from states that earlier ones of the same caller left, unasked; half of"
        " --snapshot-bytes at most",
    )
    backend_url: str | None = option(
        None, "serve the model of another OpenAI-compatible server, such as http://host:8000/v1"
    )
    backend_api_key: str | None = option(
        None, "key for --backend-url", parse=parse_key, is_secret=True
    )
    log_level: str = option(
        "info", "how much the terminal tells", choices=("debug", "info", "warning", "error")
    )
    log_format: str = option(
        "text", "how it tells it; json is one object a line", choices=("text", "json")
    )

    trace_endpoint: str | None = option(
        None,
        "address of an OpenTelemetry collector for traces of replies, as"
        " http://host:4318/v1/traces; needs the extra otel",
    )

    @property
    def base_path(self) -> str:
        """The path of `root_path`, without a slash at its end; "" for none."""
        return urlsplit(self.root_path).path


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What all callers together, and each visitor, may take. A visitor is an API key, or an
    address; this machine's own is not limited, unless the server is shared. 0 is no limit.
    """

    max_body_bytes: int = option(
        16 * 2**20, "longest body of a request", at_least=1_024, parse=parse_bytes
    )
    max_state_bytes: int = option(
        64 * 2**20, "longest body that brings a session's state", at_least=0, parse=parse_bytes
    )
    # About as many tokens as a prompt may have by default.
    max_message_chars: int = option(500_000, "longest message on the page", at_least=1)
    max_page_events: int = option(1_000, "events of all pages that may wait", at_least=1)
    max_connections: int = option(2_000, "connections open at the same time", at_least=0)
    header_timeout_s: int = option(20, "seconds for the head of a request to arrive", at_least=1)
    reader_timeout_s: int = option(
        60, "seconds for a reader to take more of an answer that waits for it", at_least=1
    )
    body_timeout_s: int = option(120, "seconds for the body of a request to arrive", at_least=1)
    visitor_max_connections: int = option(
        200, "requests that a visitor may have open at the same time", at_least=0
    )
    visitor_requests_per_minute: int = option(
        1_200, "requests of any kind; as many at once", at_least=0
    )
    visitor_max_replies: int = option(
        8, "replies that a visitor may be waiting for at the same time", at_least=0
    )
    visitor_replies_per_minute: int = option(
        120, "replies that a visitor may ask for; as many at once", at_least=0
    )
    visitor_tokens_per_minute: int = option(
        600_000,
        "tokens that are read and written for a visitor; what a saved state spares is not counted",
        at_least=0,
    )
    visitor_max_sessions: int = option(
        100, "conversations that a visitor may have used within the last hour", at_least=0
    )
    wrong_keys_per_minute: int = option(
        10, "wrong passwords or API keys from one address, this machine's included", at_least=1
    )


LOOPBACK = ("127.0.0.1", "localhost", "::1")
DEFAULT_LIMITS = LimitSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process, and where it runs."""

    model: ModelSettings = field(default_factory=ModelSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    people: PeopleSettings = field(default_factory=PeopleSettings)
    library: LibrarySettings = field(default_factory=LibrarySettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    platform: Platform = field(default_factory=Platform)

    @property
    def has_login(self) -> bool:
        """Whether visitors of the page sign in at this server."""
        server, people = self.server, self.people
        return bool(server.auth or server.api_key or people.users or people.keys)

    @property
    def keeps_states(self) -> bool:
        """Whether states of conversations outlive the process."""
        server = self.server
        if self.storage.state_store != AUTO:
            return self.storage.state_store != OFF
        is_public = server.share or self.platform.is_space or server.trusted_proxies
        is_private = server.host in LOOPBACK and not is_public and server.backend_url is None
        return is_private and self.library.keep_conversations != OFF


SECTIONS: dict[str, type] = {
    "model": ModelSettings,
    "engine": EngineSettings,
    "server": ServerSettings,
    "people": PeopleSettings,
    "library": LibrarySettings,
    "storage": StorageSettings,
    "cluster": ClusterSettings,
    "limits": LimitSettings,
}
