"""The page's named endpoints, called the way its users call them: with gradio_client."""

import textwrap

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from falcon_mamba_app.settings import LimitSettings
from falcon_mamba_app.ui.events import endpoints
from tests.support.echo_service import EchoService
from tests.support.page_server import serve_page


@pytest.fixture(scope="module")
def service():
    return EchoService()


@pytest.fixture(scope="module")
def url(service):
    with serve_page(service, limits=LimitSettings(max_message_chars=1_000)) as url:
        yield url


@pytest.fixture
def client(url):
    client = Client(url, verbose=False)
    yield client
    client.close()


def test_a_client_s_conversation_goes_on_from_call_to_call(client, service):
    assert client.predict("one two", api_name="/chat") == "You said: one two"
    assert client.predict("three", api_name="/chat") == "You said: three"
    assert [m.content for m in service.requests[-1].prompt] == [
        "one two",
        "You said: one two",
        "three",
    ]


def test_the_documented_example_runs(url, service, capsys):
    """The example in the module's docstring, which the README repeats."""
    example = textwrap.dedent(endpoints.__doc__.split("\n\n", 2)[2])
    exec(example.replace("http://127.0.0.1:7860", url), {})
    assert "You said: My name is Ada." in capsys.readouterr().out
    assert service.requests[-1].prompt[0].content == "My name is Ada."
    assert service.requests[-1].sampling.seed == 7


def test_two_clients_have_two_conversations(client, url, service):
    other = Client(url, verbose=False)
    client.predict("mine", api_name="/chat")
    other.predict("yours", api_name="/chat")
    other.close()
    assert [m.content for m in service.requests[-1].prompt] == ["yours"]


@pytest.mark.parametrize("endpoint", ["/chat", "/complete"])
def test_a_reply_without_a_word_is_an_empty_text(client, endpoint):
    assert client.predict("SILENT", api_name=endpoint) == ""


def test_the_reply_streams(client):
    job = client.submit("SLOW " + "word " * 12, api_name="/chat")
    pieces = list(job)
    assert len(pieces) > 2
    assert all(
        later.startswith(earlier) for earlier, later in zip(pieces, pieces[1:], strict=False)
    )


def test_parameters_have_names_and_what_is_left_out_is_the_model_s_default(client, service):
    client.predict(
        message="hi", system_prompt="Be brief.", temperature=0.1, seed=7, api_name="/chat"
    )
    request = service.requests[-1]
    assert request.prompt[0].content == "Be brief."
    assert (request.sampling.temperature, request.sampling.seed) == (0.1, 7)
    assert request.sampling.top_p == 0.9


def test_clear_begins_a_new_conversation(client, service):
    client.predict("one", api_name="/chat")
    client.predict(api_name="/clear")
    client.predict("two", api_name="/chat")
    assert [m.content for m in service.requests[-1].prompt] == ["two"]


def test_complete_continues_a_text(client):
    assert client.predict("Once upon a time", api_name="/complete") == "and so on."


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"message": " "}, "The message is empty"),
        ({"message": "x" * 1_001}, "1,001 characters"),
        ({"message": "hi", "temperature": 99}, "Temperature is 99"),
        ({"message": "please BREAK"}, "The device failed"),
    ],
)
def test_what_cannot_be_answered_is_a_sentence(client, call, sentence):
    with pytest.raises(AppError, match=sentence):
        client.predict(**call, api_name="/chat")


def test_only_the_intended_endpoints_are_offered(client):
    api = client.view_api(return_format="dict", print_info=False)
    assert set(api["named_endpoints"]) == {"/chat", "/complete", "/clear"}
    assert api["unnamed_endpoints"] == {}
    parameters = [p["parameter_name"] for p in api["named_endpoints"]["/chat"]["parameters"]]
    assert parameters == [
        "message",
        "system_prompt",
        "temperature",
        "top_p",
        "max_new_tokens",
        "seed",
    ]


def test_with_a_password_nothing_is_served_to_strangers():
    with serve_page(EchoService(), auth="ada:secret") as url:
        assert httpx.get(f"{url}/config").status_code == 401
        joined = httpx.post(f"{url}/gradio_api/queue/join", json={"data": [], "fn_index": 0})
        assert joined.status_code == 401
        client = Client(url, auth=("ada", "secret"), verbose=False)
        assert client.predict("hi", api_name="/chat") == "You said: hi"
        client.close()


def test_nothing_is_recorded_about_visitors(url):
    config = httpx.get(f"{url}/config").json()
    assert config["run_history"] is False
    assert config["analytics_enabled"] is False
    assert httpx.get(f"{url}/monitoring").status_code == 404
