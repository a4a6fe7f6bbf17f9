"""Which names mean the one model, and what is said to those that mean none."""

from __future__ import annotations

from dataclasses import replace

import openai
import pytest

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.checkpoint.locate import locate
from falcon_mamba_app.protocol import ServiceStats
from falcon_mamba_app.settings import ModelSettings
from tests.support.api_fixtures import USER, in_process, on_loopback
from tests.support.checkpoints import make_tiny_checkpoint
from tests.support.echo_service import EchoService

CHAT = "/v1/chat/completions"


class HubModel(EchoService):
    """Known by a hub id and a short name."""

    def stats(self) -> ServiceStats:
        stats = super().stats()
        assert stats.model is not None
        model = replace(stats.model, id="tiiuae/Big-7B", aliases=("big-7b", "Big-7B"))
        return replace(stats, model=model)


async def ask(client, **fields):
    return await client.post(CHAT, json={"messages": [USER], **fields})


async def started() -> HubModel:
    service = HubModel()
    await service.start()
    return service


@pytest.mark.parametrize(
    "name", ["tiiuae/Big-7B", "big-7b", "BIG-7B", "", "default", "dummy", "tgi", None]
)
async def test_every_name_of_the_model_means_it_and_so_does_none(name):
    async with in_process(create_api(await started())) as client:
        answer = await ask(client, model=name)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "tiiuae/Big-7B"


async def test_the_operators_names_are_listed_and_answered_with():
    api = create_api(await started(), served_names=("small", "gpt-4o-mini"))
    async with in_process(api) as client:
        listed = (await client.get("/v1/models")).json()["data"]
        assert [entry["id"] for entry in listed] == ["small", "gpt-4o-mini"]
        assert (await client.get("/v1/models/gpt-4o-mini")).json()["id"] == "gpt-4o-mini"
        for asked, answered in (("gpt-4o-mini", "gpt-4o-mini"), ("big-7b", "small"), ("", "small")):
            assert (await ask(client, model=asked)).json()["model"] == answered


async def test_a_name_of_no_model_is_quoted_beside_those_there_are():
    api = create_api(await started(), served_names=("small", "other"))
    async with in_process(api) as client:
        for answer in (await ask(client, model="gpt-4"), await client.get("/v1/models/gpt-4")):
            assert answer.status_code == 404
            error = answer.json()["error"]
            assert error["code"] == "model_not_found"
            assert '"gpt-4"' in error["message"] and "small, other" in error["message"]


async def test_the_openai_client_reads_ids_names_and_errors():
    async with (
        on_loopback(create_api(await started(), served_names=("small",))) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
    ):
        models = await client.models.list()
        assert [model.id for model in models.data] == ["small"]
        with pytest.raises(openai.NotFoundError, match="there is no endpoint"):
            await client.embeddings.create(model="small", input="x")


def test_a_folders_model_has_the_folders_name(tmp_path):
    folder = make_tiny_checkpoint(tmp_path / "my-model")
    checkpoint = locate(ModelSettings(model=str(folder)), has_cuda=False)
    assert "my-model" in (checkpoint.id, *checkpoint.aliases)
