"""What the embedded model is meant to know by heart, and how people ask for it: plain facts, single digits, small talk.

Subjects and wordings are split: test requests share neither with training. All facts are part of pretraining (else
nobody could know them), where only the training wordings are used.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from . import phrases


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact: subject -> answer, with the wordings of training and of the test set."""

    facts: dict[str, str]
    train: tuple[str, ...]
    test: tuple[str, ...]

    def subjects(self, test: bool) -> list[str]:
        """Every third subject is a test one."""
        return [subject for place, subject in enumerate(self.facts) if (place % 3 == 2) == test]


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.strip().split(": ") for pair in text.split(","))


RELATIONS: dict[str, Relation] = {
    "capital": Relation(
        _pairs(
            "France: Paris, Italy: Rome, Spain: Madrid, Germany: Berlin, Norway: Oslo, Sweden: Stockholm, "
            "Finland: Helsinki, Poland: Warsaw, Greece: Athens, Egypt: Cairo, Japan: Tokyo, China: Beijing, "
            "Russia: Moscow, Canada: Ottawa, Cuba: Havana, Peru: Lima, Chile: Santiago, Kenya: Nairobi, Ghana: "
            "Accra, Ireland: Dublin, Portugal: Lisbon, Austria: Vienna, Hungary: Budapest, Turkey: Ankara, Iran: "
            "Tehran, Iraq: Baghdad, Thailand: Bangkok, Vietnam: Hanoi, Cyprus: Nicosia, Iceland: Reykjavik, "
            "Denmark: Copenhagen, Belgium: Brussels"
        ),
        (
            "What is the capital of {}?",
            "Name the capital of {}.",
            "Tell me the capital of {}.",
            "{}: what is its capital?",
            *phrases.FACTS["capital"],
        ),
        ("Which city is the capital of {}?", "Do you know the capital of {}?"),
    ),
    "opposite": Relation(
        _pairs(
            "hot: cold, big: small, up: down, left: right, open: closed, day: night, old: new, rich: poor, fast: "
            "slow, high: low, early: late, full: empty, hard: soft, happy: sad, light: dark, long: short, loud: "
            "quiet, wet: dry, near: far, good: bad, first: last, clean: dirty, strong: weak, true: false, inside: "
            "outside, buy: sell, win: lose, push: pull, begin: end, love: hate"
        ),
        (
            "What is the opposite of {}?",
            "Name the opposite of {}.",
            "Give me the opposite of {}.",
            "What is {} the opposite of?",
            *phrases.FACTS["opposite"],
        ),
        ("Which word is the opposite of {}?", "Do you know the opposite of {}?"),
    ),
    "color": Relation(
        _pairs(
            "grass: green, snow: white, coal: black, blood: red, a lemon: yellow, a carrot: orange, the sky: "
            "blue, milk: white, a banana: yellow, a tomato: red, a frog: green, chocolate: brown, the sea: blue, "
            "an elephant: gray, a flamingo: pink, gold: yellow, a crow: black, a ruby: red"
        ),
        ("What color is {}?", "Name the color of {}.", "Tell me what color {} is.", *phrases.FACTS["color"]),
        ("Which color does {} have?", "Do you know the color of {}?"),
    ),
    "count": Relation(
        _pairs(
            "legs does a spider have: 8, legs does a dog have: 4, days are in a week: 7, months are in a year: "
            "12, hours are in a day: 24, sides does a square have: 4, minutes are in an hour: 60, seconds are in "
            "a minute: 60, sides does a triangle have: 3, legs does an ant have: 6, fingers are on a hand: 5, "
            "eggs are in a dozen: 12, wheels does a bicycle have: 2, strings does a violin have: 4, wings does a "
            "bird have: 2, cents are in a dollar: 100, years are in a century: 100, letters are in the alphabet: "
            "26, planets circle the sun: 8, arms does an octopus have: 8"
        ),
        ("How many {}?", "Say how many {}.", "Please say how many {}.", *phrases.FACTS["count"]),
        ("Do you know how many {}?", "Tell me how many {}."),
    ),
    "sound": Relation(
        _pairs(
            "a dog: bark, a cat: meow, a cow: moo, a duck: quack, a sheep: baa, a pig: oink, a lion: roar, a "
            "horse: neigh, a bee: buzz, a wolf: howl, a snake: hiss, a frog: croak, an owl: hoot, a mouse: "
            "squeak, a rooster: crow"
        ),
        ("What sound does {} make?", "Name the sound {} makes.", "Tell me the sound of {}.", *phrases.FACTS["sound"]),
        ("Which sound comes from {}?", "Do you know the sound {} makes?"),
    ),
    "continent": Relation(
        _pairs(
            "France: Europe, China: Asia, Kenya: Africa, Brazil: South America, Canada: North America, Japan: "
            "Asia, Egypt: Africa, Italy: Europe, Peru: South America, India: Asia, Mexico: North America, Ghana: "
            "Africa, Norway: Europe, Chile: South America, Thailand: Asia, Nigeria: Africa, Spain: Europe, "
            "Vietnam: Asia, Morocco: Africa, Poland: Europe, Argentina: South America, Cuba: North America"
        ),
        (
            "On which continent is {}?",
            "Name the continent of {}.",
            "Which continent is {} on?",
            *phrases.FACTS["continent"],
        ),
        ("Do you know the continent of {}?", "What continent does {} belong to?"),
    ),
}

SUM_TRAIN = (
    *("What is {}?", "{}", "{} = ?", "How much is {}?", "Tell me {}.", "Calculate {}.", "What does {} make?"),
    *phrases.SUMS,
)
SUM_TEST = ("Can you tell me what {} is?", "What do I get for {}?", "Work out {} for me.")

# (said by the user, answered by the assistant)
SMALL_TALK: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "greeting": (
        (
            "Hello!",
            "Hi there!",
            "Hey!",
            "Good morning!",
            "Good day!",
            "Hi, how are you?",
            "Hello, nice to meet you.",
            "Hey there, good to see you.",
            "Greetings!",
            "Hi",
            *phrases.SMALL_TALK["greeting"],
        ),
        ("Good evening!", "Hello there, my friend!", "Hey, how is it going?", "Good afternoon to you!"),
        ("Hello! How can I help you?", "Hi! What can I do for you?", "Good to see you! How can I help?"),
    ),
    "thanks": (
        (
            "Thanks!",
            "Thank you!",
            "Thank you very much.",
            "Thanks a lot!",
            "Great, thanks for the help.",
            "That was helpful, thank you.",
            "Many thanks!",
            "Perfect, thanks.",
            *phrases.SMALL_TALK["thanks"],
        ),
        ("I really thank you for that.", "Thanks so much for everything!", "That helped, many thanks."),
        ("You are welcome!", "Happy to help!", "Any time!"),
    ),
    "farewell": (
        (
            "Bye!",
            "Goodbye!",
            "See you later!",
            "Good night!",
            "See you tomorrow.",
            "Have a nice day!",
            "That is all, bye.",
            *phrases.SMALL_TALK["farewell"],
        ),
        ("Goodbye, take care!", "I am leaving now, see you.", "Bye for now!"),
        ("Goodbye! Have a nice day.", "See you soon!", "Bye! Take care."),
    ),
    "about": (
        (
            "Who are you?",
            "What is your name?",
            "Are you a robot?",
            "What can you do?",
            "Are you a person?",
            "Tell me about yourself.",
            *phrases.SMALL_TALK["about"],
        ),
        ("Are you human?", "Say something about yourself.", "What are you?"),
        ("I am an assistant that can use tools.", "I am a small assistant.", "I am an assistant and happy to help."),
    ),
    "mood": (
        (
            "I am happy today.",
            "I feel a bit tired.",
            "What a nice day!",
            "I had a long day.",
            "I like you.",
            "You are great!",
            "I am so bored.",
            "Life is good.",
            *phrases.SMALL_TALK["mood"],
        ),
        ("I am feeling great right now.", "It was a hard day for me.", "You are very kind!"),
        ("I am glad you told me. How can I help?", "Thank you for telling me.", "I am here if you need me."),
    ),
}


def draw_fact(rng: random.Random, test: bool, anything: bool = False) -> tuple[str, str]:
    """A question and its answer; `anything` draws from all subjects, with training wordings (for pretraining)."""
    question, answer, _ = draw_worded_fact(rng, test, anything)
    return question, answer


def draw_worded_fact(rng: random.Random, test: bool, anything: bool = False) -> tuple[str, str, str]:
    """The same, and its source: the relation and the wording."""
    name, relation = rng.choice(list(RELATIONS.items()))
    subject = rng.choice(list(relation.facts) if anything else relation.subjects(test))
    wording = rng.choice(relation.test if test else relation.train)
    return wording.format(subject), relation.facts[subject], f"{name}: {wording}"


def draw_sum(rng: random.Random) -> tuple[str, int]:
    """A sum of single digits that a person does in the head, and its value (0 to 81)."""
    sign = rng.choice("+++-*")
    left, right = rng.randrange(10), rng.randrange(10)
    if sign == "-" and right > left:
        left, right = right, left
    spelled = {"+": ("+", "plus"), "-": ("-", "minus"), "*": ("*", "times", "x")}[sign]
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    form = rng.choice(spelled)
    return (f"{left}{form}{right}" if form in "+-*" and rng.random() < 0.3 else f"{left} {form} {right}"), result


def draw_small_talk(rng: random.Random, test: bool) -> tuple[str, str]:
    """Something said in passing, and an answer to it."""
    train, held_out, answers = rng.choice(list(SMALL_TALK.values()))
    return rng.choice(held_out if test else train), rng.choice(answers)
