"""What counts as a right answer, as ignorance, as a loop; and that a checkpoint can be measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import evaluate
from training.answers import Answerer
from training.held_out import Question
from training.measures import admits_ignorance, is_right, repeated_ngrams

NANO = Path(__file__).parents[2] / "assets" / "nano"


@pytest.fixture(scope="module")
def answerer() -> Answerer:
    return Answerer(NANO)


@pytest.mark.parametrize(
    ("group", "expected", "reply", "right"),
    [
        ("name 1", "Zorvin", "Your name is Zorvin.", True),
        ("name 1", "Zorvin", "you are zorvin", True),
        ("name 1", "Zorvin", "Your name is Zorvina.", False),
        ("colour 5", "red", "You are tired.", False),
        ("capitals", "Saint John's", "It is Saint John's.", True),
        ("sums", "12", "7 + 5 = 12.", True),
        ("sums", "12", "The answer is 13.", False),
        ("sums", "12", "12 + 5 = 17", False),
        ("sums", "0", "I do not know.", False),
    ],
)
def test_a_right_answer_has_the_whole_word_or_ends_in_the_number(group, expected, reply, right):
    assert is_right(Question(group, [], expected), reply) is right


@pytest.mark.parametrize(
    ("reply", "admits"),
    [
        ("I am sorry, but I do not know that.", True),
        ("I don't know. You have not told me.", True),
        ("I cannot see you.", True),
        ("I’m sorry, I can’t know that.", True),
        ("You have three keys.", False),
        ("The weather is nice, and I know it.", False),
    ],
)
def test_ignorance_is_said_in_many_ways(reply, admits):
    assert admits_ignorance(reply) is admits


def test_a_loop_is_counted_and_a_story_is_not():
    line = "the fox went into the wood to find a key"
    assert repeated_ngrams(line) == (0, 3)
    repeated, total = repeated_ngrams(f"{line} {line} {line}")
    assert repeated >= total - 10 > 0


def test_the_same_conversations_get_the_same_replies(answerer):
    asked = [[{"role": "user", "content": text}] for text in ("Hello!", "Tell me a story.")]
    first = answerer.replies(asked, max_new_tokens=12)
    assert first == answerer.replies(asked, max_new_tokens=12)
    assert all(first)


def test_the_loss_of_what_the_model_says_itself_is_small(answerer):
    asked = [{"role": "user", "content": "Hello!"}]
    (reply,) = answerer.replies([asked], max_new_tokens=40)
    own = [[*asked, {"role": "assistant", "content": reply}]]
    strange = [[*asked, {"role": "assistant", "content": reply[::-1]}]]
    (own_nats, num_bytes), (strange_nats, _) = map(answerer.reply_loss, (own, strange))
    assert num_bytes == len(reply.encode())
    assert own_nats * 3 < strange_nats


@pytest.mark.slow
def test_the_bundled_model_recalls_what_it_was_told_and_admits_what_it_was_not(answerer):
    """In a fifth of the questions what its card says of all."""
    evaluation = evaluate.Evaluation(answerer)
    recall = [f for f in evaluation.recall(5) if f.name.startswith("recall")]
    assert len(recall) == 3
    for figure in (*recall, evaluation.unknown()):
        assert figure.value >= 80, figure


def test_figures_stand_side_by_side():
    figure = evaluate.Figure("sums", 97.5, goal="≥ 95", count=231)
    loss = evaluate.Figure("loss", 0.25, "nats/byte", "< v0", 400)
    lines = evaluate.markdown({"old": [figure, loss], "new": [figure, loss]}).splitlines()
    assert lines[0] == "| measure | old | new | goal | questions |"
    assert lines[2] == "| sums | 97.5 % | 97.5 % | ≥ 95 | 231 |"
    assert lines[3] == "| loss (nats/byte) | 0.2500 | 0.2500 | < v0 | 400 |"
