"""Words of a raw text keep their place in it."""

import random

import pytest

from nlp_transfer.data.raw_text import split_words

ALPHABET = "aB9é中اक्ा \t\n\u00a0\u200b.,'’\"()-_@#$/:;!?&*+🙂\u0301\ufe0f"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada Lovelace lived in London.", ["Ada", "Lovelace", "lived", "in", "London", "."]),
        ("Ada's, Bob’s cat", ["Ada", "'s", ",", "Bob", "’s", "cat"]),
        ('"Hi!" (she said)', ['"', "Hi", "!", '"', "(", "she", "said", ")"]),
        ("U.S e-mail don't http://x.y/z 1,000.50", ["U.S", "e-mail", "don't", "http://x.y/z", "1,000.50"]),
        ("@user likes #tags, (@home) #", ["@user", "likes", "#tags", ",", "(", "@home", ")", "#"]),
        ("Zürich — मुंबई", ["Zürich", "—", "मुंबई"]),
        ("我在東京。ABCのラーメン!", ["我", "在", "東", "京", "。", "ABC", "の", "ラ", "ー", "メ", "ン", "!"]),
        ("か\u3099く 葛\U000e0100城 \U00030000字", ["か\u3099", "く", "葛\U000e0100", "城", "\U00030000", "字"]),
        ("서울에서", ["서울에서"]),
        ("... 's", [".", ".", ".", "'", "s"]),
        ("", []),
        (" \n\t", []),
    ],
)
def test_punctuation_is_taken_off_both_ends_of_words_and_left_inside(text, words):
    assert [word.text for word in split_words(text)] == words


@pytest.mark.parametrize("seed", range(10))
def test_every_character_but_blanks_stands_in_exactly_one_word_in_its_place(seed):
    rng = random.Random(seed)
    for _ in range(100):
        text = "".join(rng.choices(ALPHABET, k=rng.randint(0, 20)))
        words = split_words(text)
        assert all(text[word.start : word.end] == word.text != "" for word in words)
        covered = [i for word in words for i in range(word.start, word.end)]
        assert covered == [i for i, character in enumerate(text) if not character.isspace()]
