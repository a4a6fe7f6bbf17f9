"""Texts and questions of people, which conversations may be made of where the caller has some."""

from __future__ import annotations

from dataclasses import dataclass

from training.generator.excerpts import Excerpt
from training.generator.retold import AskedByPeople


@dataclass(frozen=True, slots=True)
class Sources:
    excerpt: Excerpt
    asked_by_people: AskedByPeople
