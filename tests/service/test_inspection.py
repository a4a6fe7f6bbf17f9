"""A look into a state, against transformers run one-shot over ids with and without a turn."""

from __future__ import annotations

import asyncio
import math

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForCausalLM

from falcon_mamba_app.api.routes import create_api
from falcon_mamba_app.checkpoint.locate import BUNDLED_FOLDER
from falcon_mamba_app.engine.states.measures import half_lives
from falcon_mamba_app.errors import NotFound, Overloaded
from falcon_mamba_app.inspection import HALF_LIFE_BOUNDS, HALF_LIFE_SHARES, StateLook
from falcon_mamba_app.protocol import (
    Conversation,
    GenerationRequest,
    Message,
    SamplingParams,
    TokenIds,
)
from falcon_mamba_app.service.local import inspecting
from falcon_mamba_app.service.local.inspecting import Part, choose_parts
from falcon_mamba_app.text.turns import opening_of_turns, turn_starts
from tests.support.api_fixtures import in_process
from tests.support.services import collect, make_local_service, reply_text

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTIONS = ("My name is Zorvic.", "I live by the sea, and I have a dog.", "What is my name?")
GREEDY = SamplingParams(temperature=0.0, max_new_tokens=12)
KEY = "talk"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service():
    service = make_local_service()
    await service.start()
    messages: list[Message] = []
    for question in QUESTIONS:
        messages.append(Message("user", question))
        request = GenerationRequest(
            prompt=Conversation(messages), sampling=GREEDY, session_id="talk"
        )
        messages.append(Message("assistant", reply_text(await collect(service, request))))
    yield service
    await service.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def looked(service):
    return await service.inspect_state("talk", StateLook())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ids(service):
    asked = service._worker.call(lambda engine: engine.snapshots.newest("talk").token_ids)
    return await asyncio.wrap_future(asked)


class Oracle:
    """transformers over the same weights: one pass over all ids, from an empty state."""

    def __init__(self) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            BUNDLED_FOLDER, dtype=torch.float32
        ).eval()

    @torch.no_grad()
    def read(self, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The state (l, d, n), the log-probabilities (t, v), and Δ (l, t, d)."""
        steps: list[torch.Tensor] = []
        layers = self.model.backbone.layers

        def note_step(mixer, projected: torch.Tensor) -> None:
            dt = projected[0, :, : mixer.time_step_rank]
            dt = dt * torch.rsqrt(dt.square().mean(-1, keepdim=True) + mixer.rms_eps)
            steps.append(torch.nn.functional.softplus(mixer.dt_proj(dt)))

        hooks = [
            layer.mixer.x_proj.register_forward_hook(
                lambda _, call, projected, mixer=layer.mixer: note_step(mixer, projected)
            )
            for layer in layers
        ]
        told = self.model(torch.tensor([ids]), use_cache=True)
        for hook in hooks:
            hook.remove()
        state = torch.stack([_ssm(told, at) for at in range(len(layers))])
        return state, told.logits[0].log_softmax(-1), torch.stack(steps)


def _ssm(told, layer: int) -> torch.Tensor:
    """The layer's state (d, n), wherever this version of transformers has it."""
    cache = told.cache_params
    states = getattr(cache, "ssm_states", None)
    found = (cache.layers[layer].recurrent_states if states is None else states[layer])[0]
    return found.reshape(found.shape[-2:])


@pytest.fixture(scope="module")
def oracle():
    return Oracle()


async def test_a_turns_influence_is_what_a_reading_without_it_shows(looked, ids, oracle):
    assert (looked.unit, looked.num_turns, len(looked.turns)) == ("turn", 3, 3)
    assert looked.turns[-1].end == looked.num_tokens == len(ids)
    assert [turn.words[:7] for turn in looked.turns] == ["My name", "I live ", "What is"]
    whole, said, _ = oracle.read(ids)
    scored = looked.num_scored_tokens
    for turn in looked.turns[:-1]:
        state, other, _ = oracle.read(ids[: turn.start] + ids[turn.end :])
        apart = (whole - state).flatten(1).norm(dim=1) / whole.flatten(1).norm(dim=1)
        assert turn.layer_distances == pytest.approx(apart.tolist(), rel=2e-3, abs=1e-5)
        assert turn.distance == pytest.approx(
            float((whole - state).norm() / whole.norm()), rel=2e-3
        )
        p, q = said[-scored:].double(), other[-scored:].double()
        kl = (p.exp() * (p - q)).sum(-1)
        assert turn.kl == pytest.approx(float(kl.mean()), rel=5e-3, abs=1e-6)
        assert turn.next_token_kl == pytest.approx(float(kl[-1]), rel=5e-3, abs=1e-6)
        assert turn.distance > 1e-3, "the oracle saw no difference: the model forgets everything"
    last = looked.turns[-1]
    before, _, _ = oracle.read(ids[: last.start])
    assert last.kl is last.next_token_kl is None
    assert last.distance == pytest.approx(float((whole - before).norm() / whole.norm()), rel=2e-3)


async def test_norms_and_half_lives_are_those_of_a_plain_computation(looked, ids, oracle):
    for point in looked.points:
        state, _, steps = oracle.read(ids[: point.num_tokens])
        expected = state.square().mean((1, 2)).sqrt()
        assert point.norms == pytest.approx(expected.tolist(), rel=1e-3)
    assert looked.points[-1].num_tokens == len(ids)
    means = steps[:, -looked.num_scored_tokens :].mean(1)
    for at, layer in enumerate(oracle.model.backbone.layers):
        A = -torch.exp(layer.mixer.A_log.float())
        tokens = (math.log(2) / (-A * means[at][:, None])).flatten().sort().values
        shares = torch.tensor(HALF_LIFE_SHARES)
        expected = tokens[(shares * (len(tokens) - 1)).round().long()]
        assert looked.decays[at].half_lives == pytest.approx(expected.tolist(), rel=2e-3)
        assert sum(looked.decays[at].shares) == pytest.approx(1.0)
        share = float((tokens < HALF_LIFE_BOUNDS[1]).float().mean())
        assert sum(looked.decays[at].shares[:2]) == pytest.approx(share, abs=1e-3)


async def test_a_look_leaves_the_session_and_everybody_else_as_they_were(service, looked, ids):
    def kept(engine):
        store = engine.snapshots
        return len(store), store.newest("talk").packed_token_ids, engine.pool.num_free

    before = await asyncio.wrap_future(service._worker.call(kept))
    again = await service.inspect_state("talk", StateLook(max_turns=1))
    assert await asyncio.wrap_future(service._worker.call(kept)) == before
    [turn] = again.turns
    assert turn.distance == pytest.approx(looked.turns[-1].distance, rel=1e-3)
    assert again.num_tokens_read < looked.num_tokens_read
    assert looked.num_tokens_read < 3 * len(ids)


async def test_one_look_is_taken_at_a_time_and_a_cancelled_one_leaves_nothing(service):
    def num_states(engine):
        return len(engine.snapshots)

    def newest(engine):
        return engine.snapshots.newest("talk")

    before = await asyncio.wrap_future(service._worker.call(num_states))
    snapshot = await asyncio.wrap_future(service._worker.call(newest))
    first = asyncio.create_task(service._inspector.inspect("talk", snapshot, StateLook()))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="already"):
        await service.inspect_state("talk", StateLook())
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await service.inspect_state("talk", StateLook(max_turns=1))
    assert await asyncio.wrap_future(service._worker.call(num_states)) == before


async def test_a_text_without_turns_is_looked_at_in_parts(service):
    request = GenerationRequest(prompt=TokenIds(range(20, 60)), sampling=GREEDY, session_id="plain")
    await collect(service, request)
    looked = await service.inspect_state("plain", StateLook(max_turns=3))
    assert (looked.unit, looked.num_turns, len(looked.turns)) == ("part", 8, 3)
    with pytest.raises(NotFound):
        await service.inspect_state("nobody", StateLook())


async def test_the_api_tells_the_same_and_refuses_what_it_cannot(service):
    app = create_api(service)
    async with in_process(app) as client:
        chat = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "prompt_cache_key": KEY}
        assert (await client.post("/v1/chat/completions", json=chat)).status_code == 200
        told = await client.get(f"/v1/sessions/{KEY}/state/inspect?turns=2")
        assert told.status_code == 200, told.text
        looked = told.json()
        assert looked["object"] == "session.inspection" and len(looked["turns"]) == 1
        assert len(looked["decays"]) == len(looked["points"][-1]["norms"]) == 12
        for turns in ("0", "17", "many", "²"):
            refused = await client.get(f"/v1/sessions/{KEY}/state/inspect?turns={turns}")
            assert (refused.status_code, "1 to 16" in refused.text) == (400, True)
        assert (await client.get("/v1/sessions/nobody/state/inspect")).status_code == 404


async def test_a_book_that_a_session_stands_on_is_not_read_again(service):
    app = create_api(service)
    async with in_process(app) as client:
        text = "The miller kept a red lamp in the cellar. " * 60
        book = (await client.post("/v1/books", json={"text": text, "name": "mill.txt"})).json()
        while book["status"] == "reading":
            await asyncio.sleep(0.01)
            book = (await client.get(f"/v1/books/{book['id']}")).json()
        chat = {"messages": [{"role": "user", "content": "Where is it?"}], "max_tokens": 4}
        asked = {**chat, "prompt_cache_key": "reader", "book": book["id"]}
        assert (await client.post("/v1/chat/completions", json=asked)).status_code == 200
        path = "/v1/sessions/reader/state/inspect?turns=1"
        cold = (await client.get(path)).json()
        warm = (await client.get(f"{path}&book={book['id']}")).json()
        assert warm["num_tokens_read"] < 60 < book["tokens"] < cold["num_tokens_read"]
        assert warm["turns"][0]["distance"] == pytest.approx(cold["turns"][0]["distance"], rel=1e-2)
        assert (await client.get(f"{path}&book=book_nowhere")).status_code == 404
        await app.state.books.close()


async def test_a_look_that_takes_too_long_ends_with_a_sentence(service, monkeypatch):
    monkeypatch.setattr(inspecting, "MAX_S", 0.0)
    with pytest.raises(Overloaded, match="fewer turns"):
        await service.inspect_state("talk", StateLook())
    monkeypatch.undo()
    assert (await service.inspect_state("talk", StateLook(max_turns=1))).turns


async def test_turns_begin_at_the_templates_markup_and_never_at_words_that_look_like_it(service):
    tokenizer = service.tokenizer
    opening = opening_of_turns(tokenizer)
    told = "You wrote: <|im_start|>user\nwhich is markup."
    talk = [Message("user", told), Message("assistant", "No."), Message("user", told)]
    ids = tokenizer.encode(Conversation(talk))
    starts = turn_starts(ids, opening)
    assert len(starts) == 2 and all(ids[at : at + len(opening)] == list(opening) for at in starts)
    assert turn_starts(ids, ()) == turn_starts([], opening) == []


async def test_the_newest_turns_that_are_worth_their_reading_are_chosen():
    def chosen(max_tokens, known=None, max_turns=8):
        num_known = {0: 0, 10: 0, 30: 0} | (known or {})
        return choose_parts(
            [0, 10, 30], 40, num_known=num_known, max_turns=max_turns, max_tokens=max_tokens
        )

    assert chosen(1_000) == [Part(0, 10), Part(10, 30), Part(30, 40)]
    assert chosen(1_000, max_turns=1) == [Part(30, 40)]
    # To the end 40, to the last turn 30, without the middle turn 10 more, without the first 30.
    assert chosen(110) == [Part(0, 10), Part(10, 30), Part(30, 40)]
    assert chosen(109) == [Part(10, 30), Part(30, 40)]
    assert chosen(79) == [Part(30, 40)] and chosen(69) == []
    assert chosen(69, known={30: 30}) == [Part(10, 30), Part(30, 40)]


async def test_what_never_forgets_has_a_bound_and_every_number_is_counted():
    rates = torch.tensor([[[0.0, math.log(2), math.log(2) / 50, math.log(2) / 5e4]]])
    [(lives, shares)] = half_lives(rates, (0.0, 1.0), (2.0, 100.0))
    assert lives == pytest.approx((1.0, 1e9), rel=1e-6)
    assert shares == (0.25, 0.25, 0.5)
