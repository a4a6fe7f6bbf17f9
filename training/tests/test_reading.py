"""Conversations about real texts: what is asked is answered by the text, word for word."""

from __future__ import annotations

import lzma
import re
from random import Random

import numpy as np
import pytest

from training.generator import contrasts, conversations, excerpts, memory, retold
from training.generator.clauses import cuts, parse
from training.generator.excerpts import Text
from training.generator.wording import inflected, reworded
from training.measures import admits_ignorance
from training.rows import Encoder, render
from training.streams import PlainTexts, read_sources
from training.tests.sources import ASKED, SOURCES, excerpt
from training.tests.test_training import TOKENIZER

SAID = re.compile(r"[\w'-]+")


def words(text: str) -> list[str]:
    return SAID.findall(text.casefold())


def occurs(part: str, text: str) -> bool:
    return f" {' '.join(words(part))} " in f" {' '.join(words(text))} "


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        ("The old king gave the boy a horse.", "Who gave the boy a horse?", "The old king"),
        ("The ship was built by monks.", "What was built by monks?", "The ship"),
        ("Peter hid the key under the stone.", "Where did Peter hide the key?", "under the stone"),
        ("In 1320, the town had two mills.", "When did the town have two mills?", "In 1320"),
        ("The farmer sold nine sheep.", "How many sheep did the farmer sell?", "nine"),
        ("She wept because the bird was gone.", "Why did she weep?", "because the bird was gone"),
    ],
)
def test_a_sentence_gives_questions_that_its_words_answer(sentence, question, answer):
    found = {
        (cut.question, cut.answer) for seed in range(9) for cut in cuts(Random(seed), sentence)
    }
    assert (question, answer) in found


@pytest.mark.parametrize("sentence", ["When he came, it rained.", "There was a fox.", "Run!"])
def test_a_sentence_whose_subject_cannot_be_told_gives_none(sentence):
    assert parse(sentence) is None and not cuts(Random(0), sentence)


def test_every_answer_cut_out_of_a_text_stands_in_it():
    rng, count = Random(1), 0
    for _ in range(150):
        for sentence in Text.of(excerpt(rng, 120)).sentences:
            for cut in cuts(rng, sentence):
                count += 1
                assert occurs(cut.answer, sentence), (sentence, cut)
    assert count > 100


def test_replies_about_a_real_text_repeat_its_words():
    rng, found = Random(2), 0
    for _ in range(200):
        turns, _ = excerpts.reading(rng, excerpt)
        text = turns[0][0]
        for _, reply in turns:
            said = re.sub(
                r"^(Yes[.,:]?|It is|It says:?|The text says:)( it says:| it is mentioned\.)?",
                "",
                reply,
            )
            found += occurs(said, text) or occurs(said.split(". ")[-1], text)
        assert not any("{" in part for turn in turns for part in turn)
    assert found > 200


def test_what_only_another_text_says_is_not_answered():
    text, other = Text.of("A fox lived in a den."), Text.of("Mountains rose behind the harbor.")
    made = [excerpts.ask_missing(Random(seed), text, other) for seed in range(60)]
    asked = [each for each in made if each is not None]
    assert len(asked) > 20 and all(each.answer == "" for each in asked)
    assert all(re.search(r"text|mention", each.reply) for each in asked)


def test_people_are_renamed_in_text_question_and_answer_alike():
    names = set()
    for seed in range(30):
        turns, _ = retold.reading(Random(seed), lambda rng: ASKED, excerpt)
        said = "\n".join(part for turn in turns for part in turn)
        (giver,) = set(re.findall(r"There (\S+) gave", said))
        names.add(giver)
        question = next(user for user, _ in turns if "what did" in user.casefold())
        assert giver in question.replace(f"There {giver} gave", "")
    assert len(names) > 15


def test_conversations_of_people_are_taken_apart():
    user = "Read this and answer the question.\n\nA fox came.\n\nIt ran.\n\nWho came?"
    found = retold.parse([("user", user), ("assistant", "A fox.")])
    assert found == retold.HumanQuestion("A fox came.\n\nIt ran.", "Who came?", "A fox.")
    assert retold.parse([("user", "Define oak."), ("assistant", "A tree.")]) is None
    assert retold.parse([("system", "x"), ("user", "A\n\nB?"), ("assistant", "C")]) is None


def test_as_much_is_asked_that_was_not_told_as_that_was():
    flags = []
    for seed in range(400):
        turns, _ = contrasts.contrast(Random(seed), lambda rng: [("Hm?", "Hm.")])
        asked = [reply for user, reply in turns if user != "Hm?"]
        flags += [admits_ignorance(reply) for reply in asked[-2:]]
    assert 0.4 < sum(flags) / len(flags) < 0.6


def test_what_was_not_told_is_not_answered_with_what_was():
    rng = Random(3)
    for _ in range(500):
        facts = contrasts.told(rng)
        asked, reply = contrasts.untold(rng, facts)
        assert admits_ignorance(reply) or "only" in reply or "not" in reply, (asked, reply)
        assert not any(occurs(fact.value, reply) for fact in facts if len(fact.value) > 3)
        assert not any(asked == memory.ask_by_key(rng, fact) for fact in facts)


def test_verbs_keep_their_form_when_they_are_exchanged():
    forms = {form: inflected("come_back", form) for form in ("past", "third", "ing")}
    assert forms == {"past": "came back", "third": "comes back", "ing": "coming back"}
    assert [inflected(verb, "past") for verb in ("stop", "carry", "build")] == [
        "stopped", "carried", "built",
    ]  # fmt: skip
    made = {reworded(Random(seed), "They built a house.", 1.0) for seed in range(20)}
    assert any("constructed" in text for text in made)
    assert all("Zorvin" in reworded(Random(s), "Zorvin built it.", 1.0) for s in range(5))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(TOKENIZER)


def test_a_piece_of_a_plain_text_is_whole_sentences(encoder):
    sentences = [f"This is the sentence with the number {i}." for i in range(80)]
    texts = PlainTexts(encoder.encode([" ".join(sentences)]), encoder)
    for seed in range(40):
        piece = texts.excerpt(Random(seed), 60)
        assert all(f"{each}." in sentences for each in piece.rstrip(".").split(". "))
        assert 2 <= piece.count(".") <= 8


def test_sources_are_read_from_token_files_where_both_are_there(encoder, tmp_path):
    def write(name: str, texts: list[str]) -> None:
        data = np.concatenate(encoder.encode([f"{text}<|endoftext|>" for text in texts]))
        (tmp_path / name).write_bytes(lzma.compress(data.tobytes()))

    write("plain_a.bin.xz", ["The river was wide. A boat lay there. Nobody came."])
    assert read_sources(tmp_path, encoder) is None
    talk = [{"role": "user", "content": f"{ASKED.text}\n\n{ASKED.question}"}]
    talk.append({"role": "assistant", "content": ASKED.answer})
    write("chat_human.bin.xz", [render(talk).removesuffix("<|endoftext|>")])
    sources = read_sources(tmp_path, encoder)
    assert sources is not None and sources.asked_by_people(Random(1)) == ASKED
    assert "boat" in sources.excerpt(Random(1), 200)


def test_with_sources_a_seed_names_the_same_conversations():
    made = conversations("a", 60, sources=SOURCES)
    assert made == conversations("a", 60, sources=SOURCES) != conversations("a", 60)
