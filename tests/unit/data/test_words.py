"""Every word stands in exactly one window as that window's own, whatever the tokenizer and the length."""

import random
from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CanineTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from nlp_transfer.data.words import Window, WordTokenizer

ZERO_WIDTH = "\u200b"
ALPHABET = "abcdefgh"
SPECIALS = ["<pad>", "<unk>", "<s>", "</s>"]
FRAME = 2


def wordpiece() -> Tokenizer:
    pieces = [*SPECIALS, *ALPHABET, *(f"##{letter}" for letter in ALPHABET), "ab", "##ab"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_level() -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "a"), ("a", "b")]
    vocab = {piece: i for i, piece in enumerate([*SPECIALS, *letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def unigram() -> Tokenizer:
    pieces = [*SPECIALS, "▁", *ALPHABET, *(f"▁{letter}" for letter in ALPHABET)]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=1))
    tokenizer.normalizer = normalizers.Replace(ZERO_WIDTH, "")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def whole(tokenizer: Tokenizer, *, side: str = "right", types: bool = True) -> PreTrainedTokenizerFast:
    """With the special tokens first and last, or, as XLNet has them, both last."""
    template = "<s> $A </s>" if side == "right" else "$A </s> <s>:2"
    ids = [(name, tokenizer.token_to_id(name)) for name in ("<s>", "</s>")]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        padding_side=side,
        model_input_names=["input_ids", *(["token_type_ids"] if types else []), "attention_mask"],
    )


def own(window: Window) -> list[tuple[int, int]]:
    """(word, position of its first token) of the words that are predicted there."""
    return list(enumerate(window.positions, start=window.start))


KINDS: dict[str, PreTrainedTokenizerBase] = {
    "wordpiece": whole(wordpiece()),
    "byte-level": whole(byte_level(), types=False),
    "unigram": whole(unigram(), types=False),
    "left": whole(unigram(), side="left"),
    "slow": CanineTokenizer(),
}
EVERY_KIND = pytest.mark.parametrize("tokenizer", KINDS.values(), ids=KINDS)
MakeWord = Callable[[random.Random], str]


def letters(rng: random.Random, most: int) -> str:
    return "".join(rng.choices(ALPHABET, k=rng.randint(1, most)))


WORDS: dict[str, MakeWord] = {
    "short": lambda rng: letters(rng, 3),
    "longer than a window": lambda rng: letters(rng, 3) if rng.random() < 0.7 else letters(rng, 60),
    "zero-width": lambda rng: ZERO_WIDTH if rng.random() < 0.5 else letters(rng, 3),
    "unknown": lambda rng: rng.choice(["東京", "🙂", "%", "a"]),
    "empty or blank": lambda rng: rng.choice(["", " ", "a b"]),
}


def random_texts(make_word: MakeWord, count: int = 60) -> list[list[str]]:
    rng = random.Random(0)
    return [[make_word(rng) for _ in range(rng.randint(1, 50))] for _ in range(count)]


def owned(windows: list[Window]) -> list[int]:
    return [word for window in windows for word, _ in own(window)]


@EVERY_KIND
@pytest.mark.parametrize("max_tokens", [8, 13, 32])
@pytest.mark.parametrize("make_word", WORDS.values(), ids=WORDS)
def test_every_word_is_own_in_exactly_one_window_within_the_limit(tokenizer, max_tokens, make_word):
    cutter = WordTokenizer(tokenizer, max_tokens)
    for words in random_texts(make_word):
        windows = list(cutter.windows(words))
        assert owned(windows) == list(range(len(words)))
        assert all(len(window.inputs["input_ids"]) <= max_tokens for window in windows)


@EVERY_KIND
def test_a_text_of_twenty_thousand_words_is_cut_like_a_short_one(tokenizer):
    rng = random.Random(0)
    words = [rng.choice(list(WORDS.values()))(rng) for _ in range(20_000)]
    windows = list(WordTokenizer(tokenizer, 62).windows(words))
    assert owned(windows) == list(range(len(words)))


@EVERY_KIND
@pytest.mark.parametrize("make_word", WORDS.values(), ids=WORDS)
def test_the_first_token_of_a_word_stands_where_the_window_says(tokenizer, make_word):
    cutter = WordTokenizer(tokenizer, 13)
    for words in random_texts(make_word, count=20):
        for window in cutter.windows(words):
            for word, position in own(window):
                pieces = list(cutter.pieces(words[word]))
                read = window.inputs["input_ids"][position : position + len(pieces)]
                assert read[0] == pieces[0]
                assert read == pieces or len(pieces) > 13 - FRAME


@EVERY_KIND
@pytest.mark.parametrize("words", [["ab"], ["a", "b", "abcd"], [ZERO_WIDTH], ["a"] * 10, []], ids=len)
def test_a_text_that_fits_is_one_window(tokenizer, words):
    (window,) = WordTokenizer(tokenizer, 32).windows(words)
    assert [word for word, _ in own(window)] == list(range(len(words)))


@EVERY_KIND
def test_a_text_that_just_fits_is_one_window_and_one_more_token_makes_two(tokenizer):
    size = len(WordTokenizer(tokenizer, 99).pieces("a"))
    cutter = WordTokenizer(tokenizer, 6 * size + FRAME)
    assert len(list(cutter.windows(["a"] * 6))) == 1
    assert len(list(cutter.windows(["a"] * 7))) > 1


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "left"])
def test_a_window_is_what_the_tokenizer_makes_of_the_text(kind):
    words = ["ab", "abc", "h", "abab"]
    (window,) = WordTokenizer(KINDS[kind], 32).windows(words)
    assert window.inputs == dict(KINDS[kind](" ".join(words)))


def test_byte_level_words_begin_with_the_blank_before_them():
    (window,) = WordTokenizer(KINDS["byte-level"], 32).windows(["ab", "abc", "h"])
    assert window.inputs == dict(KINDS["byte-level"](" ab abc h"))


@EVERY_KIND
def test_all_inputs_of_a_window_are_equally_long(tokenizer):
    for words in random_texts(WORDS["short"], count=10):
        for window in WordTokenizer(tokenizer, 13).windows(words):
            assert set(window.inputs) == set(tokenizer.model_input_names)
            assert len({len(values) for values in window.inputs.values()}) == 1


@EVERY_KIND
def test_every_window_has_the_special_tokens_of_a_text(tokenizer):
    frame = tokenizer("a")["input_ids"]
    begin, end = ([], frame[-2:]) if tokenizer.padding_side == "left" else (frame[:1], frame[-1:])
    windows = list(WordTokenizer(tokenizer, 13).windows(["abc"] * 30))
    assert len(windows) > 1
    for window in windows:
        ids = window.inputs["input_ids"]
        assert ids[: len(begin)] == begin
        assert ids[-len(end) :] == end
        assert not {tokenizer.cls_token_id, tokenizer.sep_token_id} & set(ids[len(begin) : -len(end)])


@EVERY_KIND
def test_own_words_inside_a_long_text_have_context_on_both_sides(tokenizer):
    cutter = WordTokenizer(tokenizer, 34)
    size = len(cutter.pieces("a"))
    first, *middle, last = cutter.windows(["a"] * 200)
    begin = 0 if tokenizer.padding_side == "left" else 1
    context = 32 // 4 // size * size
    for window in [*middle, last]:
        assert window.positions[0] - begin == context
    for window in [first, *middle]:
        assert len(window.inputs["input_ids"]) - (FRAME - begin) - window.positions[-1] - size == context


@EVERY_KIND
@pytest.mark.parametrize("word", [ZERO_WIDTH, "", " ", "\ufeff"])
def test_a_word_that_the_tokenizer_drops_still_has_a_token(tokenizer, word):
    assert len(WordTokenizer(tokenizer, 32).pieces(word)) >= 1


@EVERY_KIND
def test_words_cut_for_their_length_are_counted(tokenizer):
    cutter = WordTokenizer(tokenizer, 12)
    assert cutter.has_cut(["a", "abc", "c" * 11])
    assert not cutter.has_cut(["a", "abc"])
