"""What counts as a right answer, as ignorance, as a loop; and that a checkpoint can be measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import evaluate
from training.answers import Answerer
from training.held_out import Question
from training.measures import (
    admits_ignorance,
    is_echo,
    is_honest,
    is_loop,
    is_right,
    repeated_ngrams,
    says_yes_or_no,
)

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


def test_one_of_several_words_or_all_of_them_may_be_expected():
    assert is_right(Question("paragraphs", [], "three|3"), "She keeps 3 goats.")
    assert is_right(Question("lists", [], "ink&string"), "String, and ink.")
    assert not is_right(Question("lists", [], "ink&string"), "Only ink.")


def test_yes_and_no_are_what_a_reply_begins_with():
    yes, no = Question("yes or no", [], "yes|right"), Question("yes or no", [], "no|not right")
    assert says_yes_or_no(yes, "Yes, you are Bo.") and not says_yes_or_no(no, "Yes, you are Bo.")
    assert says_yes_or_no(no, "Not quite. You are Bo.") and not says_yes_or_no(yes, "You are Bo.")


def test_a_conversation_loops_that_has_no_end_or_says_the_same_three_times():
    assert not is_loop(["a", "a", "b", "a"], [True] * 4)
    assert is_loop(["b", "a", "a", "a"], [True] * 4)
    assert is_loop(["a", "b"], [True, False])


def test_an_echo_is_the_object_and_nothing_besides():
    asked = Question("json echo", [], '{"a": 1}')
    assert is_echo(asked, '{ "a": 1 }') and not is_echo(asked, 'Here it is: {"a": 1}')


def test_honesty_is_short():
    asked = Question("code", [])
    assert is_honest(asked, "I am sorry, but I cannot write programs.")
    assert not is_honest(asked, "It prints 3. It is code. It is good. It is short.")


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


def test_a_table_is_saved_beside_its_figures(tmp_path):
    figure = evaluate.Figure("sums", 97.5, goal="≥ 95", count=231)
    evaluate.save(tmp_path / "model", {"new": [figure]})
    assert "| sums | 97.5 % | ≥ 95 | 231 |" in (tmp_path / "model.md").read_text()
    assert '"value": 97.5' in (tmp_path / "model.json").read_text()


def test_what_was_not_measured_is_a_dash_in_the_table():
    whole = evaluate.Figure("recall", 90.0, count=4)
    part, same = evaluate.Figure("  name", 80.0), evaluate.Figure("sums", 70.0)
    lines = evaluate.markdown({"a": [whole, part, same, part], "b": [whole, part]}).splitlines()
    assert lines[2:] == [
        "| recall | 90.0 % | 90.0 % |  | 4 |",
        "|   name | 80.0 % | 80.0 % |  |  |",
        "| sums | 70.0 % | – |  |  |",
        "|   name | 80.0 % | – |  |  |",
    ]


def test_figures_of_two_machines_are_joined(tmp_path, capsys):
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, value in zip(files, (95.0, 97.5), strict=True):
        evaluate.save(file, {file.stem: [evaluate.Figure("sums", value, count=231)]})
    evaluate.main(["--join", *map(str, files), "--save", str(tmp_path / "both")])
    assert "| sums | 95.0 % | 97.5 % |" in (tmp_path / "both.md").read_text()
    assert "| sums | 95.0 % | 97.5 % |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        evaluate.main(["--save", str(tmp_path / "nothing")])
    assert "name folders" in capsys.readouterr().err


def test_figures_stand_side_by_side():
    figure = evaluate.Figure("sums", 97.5, goal="≥ 95", count=231)
    loss = evaluate.Figure("loss", 0.25, "nats/byte", "< v0", 400)
    lines = evaluate.markdown({"old": [figure, loss], "new": [figure, loss]}).splitlines()
    assert lines[0] == "| measure | old | new | goal | questions |"
    assert lines[2] == "| sums | 97.5 % | 97.5 % | ≥ 95 | 231 |"
    assert lines[3] == "| loss (nats/byte) | 0.2500 | 0.2500 | < v0 | 400 |"
