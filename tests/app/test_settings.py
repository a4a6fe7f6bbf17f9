"""Settings come from the command line and the environment, and nonsense is refused in one line."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.settings import (
    SECTIONS,
    EngineSettings,
    LimitSettings,
    ModelSettings,
    Platform,
    StorageSettings,
    load_settings,
    parse_bytes,
)
from falcon_mamba_app.settings.contradictions import LOCAL_NAMES

ROOT = Path(__file__).parents[2]


def test_defaults_hold_without_any_setting():
    settings = load_settings([], {})
    assert settings.server.host == "127.0.0.1"
    assert settings.server.port == 7860
    assert settings.model.model == "auto"


def test_the_command_line_wins_over_the_environment():
    environment = {"FALCON_MAMBA_PORT": "1000", "FALCON_MAMBA_HOST": "localhost", "PATH": "/bin"}
    settings = load_settings(["--port", "2000"], environment)
    assert (settings.server.port, settings.server.host) == (2000, "localhost")


def test_every_option_can_be_set_from_the_environment():
    values = {
        "auth": "me:secret",
        "api_key": "a, b",
        "snapshot_bytes": "500MB",
        "share": "yes",
        "threads": "2",
    }
    environment = {f"FALCON_MAMBA_{name.upper()}": value for name, value in values.items()}
    settings = load_settings([], environment)
    assert settings.server.auth == "me:secret"
    assert settings.server.api_key == ("a", "b")
    assert settings.engine.snapshot_bytes == 500_000_000
    assert settings.server.share is True
    assert settings.engine.threads == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--prot", "1"], "--prot"),
        (["--port", "x"], "--port: 'x' is no whole number"),
        (["--port", "70000"], "at most 65535"),
        (["--port"], "--port"),
        (["--max-running", "-1"], "at least 1"),
        (["--device", "tpu"], "auto, cpu, cuda"),
        (["--dtype", "int8"], "float32"),
        (["--snapshot-bytes", "lots"], "GiB"),
        (["--share", "maybe"], "neither true nor false"),
        (["--backend-url", "host:80"], "http://"),
        (["--backend-url", "http://h", "--device", "cpu"], "--device"),
        (["--backend-url", "http://h", "--snapshot-bytes", "1"], "--snapshot-bytes"),
        (["--backend-api-key", "k"], "--backend-url"),
        (["--backend-url", ""], "http://"),
        (["--backend-url", "http://h", "--max-waiting", "1"], "--max-waiting"),
        (["--backend-url", "http://h", "--max-prompt-tokens", "1"], "--max-prompt-tokens"),
        (["--api-key", ""], "--api-key: the key is empty"),
        (["--api-key", " , "], "--api-key: the key is empty"),
        (["--backend-url", "http://h", "--backend-api-key", ""], "the key is empty"),
        (["--auth", "nocolon"], "USER:PASSWORD"),
        (["--auth", "user:"], "USER:PASSWORD"),
        (["--auth", " : "], "USER:PASSWORD"),
        (["--max-prefill-tokens", "0"], "at least 1"),
        (["--threads", "two"], "--threads: 'two' is no whole number"),
        (["--revision", "main"], "hub model"),
        (["--model", str(ROOT), "--revision", "main"], "folder"),
        (["--device", "cpu", "--dtype", "float16"], "float16"),
        (["--device", "cpu", "--kernels", "triton"], "triton"),
        (["positional"], "positional"),
        (["--session-secret", "short"], "5 characters; at least 16"),
        (["--trusted-proxies", "10.0.0.0/8,nonsense"], "'nonsense' is no address or network"),
        (["--trusted-proxies", "10.0.0.1/8"], "no address or network"),
        (["--cors-origins", "*"], "'*' is no origin, such as https://example.com"),
        (["--cors-origins", "https://*.example.com"], "no origin"),
        (["--cors-origins", "https://a.test/path"], "no origin"),
        (["--frame-ancestors", "https://a.test; script-src *"], "no origin"),
        (["--max-body-bytes", "1"], "at least 1024"),
        (["--visitor-max-replies", "-1"], "at least 0"),
        (["--wrong-keys-per-minute", "0"], "at least 1"),
        (["--key-weights", "a=2"], "--key-weights names 1 keys that --api-key does not have"),
        (["--api-key", "a", "--key-weights", "a=0"], "pair 1 is not KEY=NUMBER"),
        (["--api-key", "a", "--key-weights", "a"], "with a number from 0.01 to 100"),
        (["--state-store", "ftp://host/x"], "'ftp://host/x' is no folder, s3://, gs:// or az://"),
        (["--state-store", " "], "no folder"),
        (
            ["--state-store", "here", "--backend-url", "http://h"],
            "--state-store belongs to a model",
        ),
        (["--session-snapshots", "0"], "at least 1"),
    ],
)
def test_nonsense_is_refused_in_one_line_that_says_what_is_allowed(argv, words):
    with pytest.raises(SettingsError) as caught:
        load_settings(argv, {})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(LOCAL_NAMES))
def test_what_is_about_a_model_that_runs_here_is_refused_beside_another_server(name):
    options = {o.name: o for section in SECTIONS.values() for o in fields(section)}
    value = (options[name].metadata.get("choices") or ("1",))[-1]
    flag = f"--{name.replace('_', '-')}"
    with pytest.raises(SettingsError, match=f"{flag} belongs to a model that runs here"):
        load_settings(["--backend-url", "http://h", flag, value], {})


@pytest.mark.parametrize(
    ("argv", "are_kept"),
    [
        ([], True),
        (["--state-store", "off"], False),
        (["--keep-conversations", "off"], False),
        (["--host", "0.0.0.0"], False),
        (["--host", "0.0.0.0", "--state-store", "s3://bucket/x"], True),
        (["--share"], False),
        (["--trusted-proxies", "127.0.0.1"], False),
        (["--backend-url", "http://h"], False),
    ],
)
def test_unasked_states_outlive_the_process_only_where_nobody_else_is_served(argv, are_kept):
    assert load_settings(argv, {}).keeps_states == are_kept
    assert not load_settings(argv[:-2], {"SPACE_ID": "a/b"}).keeps_states


LOCAL_KINDS = (ModelSettings, EngineSettings, StorageSettings)


def test_all_that_is_about_the_model_or_the_engine_is_local_but_its_name_and_a_replys_length():
    assert {option.name for kind in LOCAL_KINDS for option in fields(kind)} - {
        "model",
        "max_new_tokens",
        "state_store",  # whose "off" says nothing about a model
    } == LOCAL_NAMES


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Platform()),
        ({"SPACE_ID": ""}, Platform()),
        ({"SPACE_ID": "someone/space"}, Platform(is_space=True)),
        ({"SPACE_ID": "a/b", "SPACES_ZERO_GPU": "True"}, Platform(is_space=True, lends_gpus=True)),
        ({"SPACES_ZERO_GPU": "0"}, Platform()),
    ],
)
def test_the_platform_is_what_the_environment_says(environment, expected):
    assert load_settings([], environment).platform == expected


@pytest.mark.parametrize("value", ["", " ", " , "])
@pytest.mark.parametrize("name", ["API_KEY", "AUTH", "BACKEND_API_KEY", "SESSION_SECRET"])
def test_an_empty_secret_in_the_environment_is_no_open_door(name, value):
    with pytest.raises(SettingsError, match=f"--{name.lower().replace('_', '-')}: "):
        load_settings(["--backend-url", "http://h"], {f"FALCON_MAMBA_{name}": value})


def test_origins_lose_their_last_slash_and_patterns_are_for_frames_only():
    argv = ["--cors-origins", "https://a.test/, http://b.test:81"]
    server = load_settings([*argv, "--frame-ancestors", "https://*.a.test"], {}).server
    assert server.cors_origins == ("https://a.test", "http://b.test:81")
    assert server.frame_ancestors == ("https://*.a.test",)


def test_an_empty_variable_counts_as_not_set():
    empty = {"FALCON_MAMBA_PORT": "", "FALCON_MAMBA_BACKEND_URL": "", "FALCON_MAMBA_DEVICE": ""}
    assert load_settings([], empty) == load_settings([], {})


def test_an_unknown_variable_of_ours_is_refused():
    with pytest.raises(SettingsError, match="FALCON_MAMBA_PROT"):
        load_settings([], {"FALCON_MAMBA_PROT": "1"})


def test_auto_stands_for_what_suits_the_device():
    engine = load_settings(["--max-running", "3", "--max-prefill-tokens", "auto"], {}).engine
    on_cpu, on_gpu = engine.on(has_gpu=False), engine.on(has_gpu=True)
    assert (on_cpu.max_running, on_cpu.max_prefill_tokens) == (3, 512)
    assert (on_gpu.max_running, on_gpu.max_prefill_tokens) == (3, 2048)
    assert (on_cpu.max_mixed_prefill_tokens, on_gpu.max_mixed_prefill_tokens) == (64, 128)
    assert load_settings([], {}).engine.on(has_gpu=True).max_running == 32
    assert load_settings(["--threads", "AUTO"], {}).engine.on(has_gpu=False).threads is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1000", 1_000), ("2GiB", 2**31), ("1.5 kB", 1_500), ("3MB", 3_000_000)],
)
def test_sizes_are_read_with_and_without_units(text, expected):
    assert parse_bytes(text) == expected


def test_help_lists_every_setting_with_its_default_and_variable():
    finished = subprocess.run(
        [sys.executable, "app.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    words = " ".join(finished.stdout.split())
    for section in SECTIONS.values():
        for option in fields(section):
            assert f"--{option.name.replace('_', '-')}" in words
            assert f"FALCON_MAMBA_{option.name.upper()}" in words
            assert "(default: " in words


def test_a_bad_setting_ends_the_app_at_once_with_one_line():
    finished = subprocess.run(
        [sys.executable, "app.py", "--port", "x"], cwd=ROOT, capture_output=True, text=True
    )
    assert finished.returncode == 2
    assert finished.stderr == "error: --port: 'x' is no whole number\n"


def test_a_space_tells_host_and_port_as_gradio_reads_them():
    space = {"GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "7861"}
    server = load_settings([], space).server
    assert (server.host, server.port) == ("0.0.0.0", 7861)
    ours = load_settings(["--port", "80"], {**space, "FALCON_MAMBA_HOST": "::1"}).server
    assert (ours.host, ours.port) == ("::1", 80)


def test_the_security_page_lists_every_limit_with_its_default():
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    for option in fields(LimitSettings):
        flag, default = f"`--{option.name.replace('_', '-')}`", option.default
        shown = f"{default // 2**20} MiB" if option.name.endswith("_bytes") else f"{default:,}"
        lines = [line for line in page.splitlines() if line.startswith("|") and flag in line]
        assert len(lines) == 1, flag
        assert re.search(rf"\b{shown}\b", lines[0].partition("`")[2].split("|")[1]), lines[0]
