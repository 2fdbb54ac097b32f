"""Whole Hugging Face checkpoints of eleven families, made on the spot: two layers, random weights, few pieces."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from nlp_transfer import cli
from nlp_transfer.signals import STOPPING
from tests.corpus import REVIEWS, SENTENCES, write_conll, write_tsv

for number in STOPPING:  # a shell that put the tests in the background may have them ignored, here and in what we start
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.2,  # at the usual 0.02 a network this small tells no words apart
}
POSITIONS = 64
SPECIALS = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]


# Written out, not trained: the trainers of `tokenizers` break ties differently in every process.
TEXTS = [" ".join(words) for words, _ in SENTENCES] + [text for text, _ in REVIEWS]
WORDS = sorted({word for text in TEXTS for word in text.split()})
CHARACTERS = sorted({character for word in WORDS for character in word + word.lower()})


def halves(word: str) -> tuple[str, str]:
    middle = (len(word) + 1) // 2
    return word[:middle], word[middle:]


def wordpiece() -> Tokenizer:
    starts, ends = zip(*(halves(word.lower()) for word in WORDS), strict=True)
    pieces = {*CHARACTERS, *starts} | {f"##{piece}" for piece in {*CHARACTERS, *ends} if piece}
    vocab = {piece: i for i, piece in enumerate([*SPECIALS, *sorted(pieces)])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_level() -> Tokenizer:
    starts = {f"Ġ{halves(word)[0]}" for word in WORDS}
    merges = sorted(
        {(start[:i], start[i]) for start in starts for i in range(1, len(start))}, key=lambda m: (len(m[0]), m)
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {piece: i for i, piece in enumerate([*SPECIALS, *alphabet, *("".join(merge) for merge in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def unigram() -> Tokenizer:
    starts, ends = zip(*(halves(word) for word in WORDS), strict=True)
    pieces = sorted({"▁", *CHARACTERS, *(f"▁{start}" for start in starts), *filter(None, ends)})
    scores = [(special, 0.0) for special in SPECIALS] + [(piece, -10.0 / len(piece)) for piece in pieces]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=SPECIALS.index("<unk>")))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def write_tokenizer(folder: Path, tokenizer: Tokenizer, *, types: bool, padding_side: str) -> int:
    """Save it with the special tokens of its family's layout; gives the size of the vocabulary."""
    begin, end = ("<s>", tokenizer.token_to_id("<s>")), ("</s>", tokenizer.token_to_id("</s>"))
    single, pair = "<s> $A </s>", "<s> $A </s> $B:1 </s>:1"
    if padding_side == "left":  # XLNet puts its special tokens last
        single, pair = "$A </s> <s>:2", "$A </s> $B:1 </s>:1 <s>:2"
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[begin, end])
    names = ["input_ids", *(["token_type_ids"] if types else []), "attention_mask"]
    hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        model_max_length=POSITIONS - 2,
        model_input_names=names,
        padding_side=padding_side,
    ).save_pretrained(folder)
    return tokenizer.get_vocab_size()


Family = tuple[Callable[[], Tokenizer], bool, Callable[[int], hf.PreTrainedModel]]


def roberta_like(
    model: type[hf.PreTrainedModel], config: type[hf.PretrainedConfig]
) -> Callable[[int], hf.PreTrainedModel]:
    return lambda vocab: model(config(**SIZE, vocab_size=vocab, max_position_embeddings=POSITIONS, pad_token_id=0))


def distilbert(vocab: int) -> hf.PreTrainedModel:
    return hf.DistilBertModel(
        hf.DistilBertConfig(
            vocab_size=vocab,
            dim=32,
            n_layers=2,
            n_heads=2,
            hidden_dim=64,
            max_position_embeddings=POSITIONS,
            pad_token_id=0,
        )
    )


def factorised(
    model: type[hf.PreTrainedModel], config: type[hf.PretrainedConfig]
) -> Callable[[int], hf.PreTrainedModel]:
    """Families whose embeddings are narrower than their layers."""
    sizes = {"embedding_size": 16, "max_position_embeddings": POSITIONS, "pad_token_id": 0}
    return lambda vocab: model(config(**SIZE, **sizes, vocab_size=vocab))


def deberta(vocab: int) -> hf.PreTrainedModel:
    config = hf.DebertaV2Config(
        **SIZE,
        vocab_size=vocab,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        type_vocab_size=0,
        position_biased_input=False,
    )
    return hf.DebertaV2Model(config)


def modernbert(vocab: int) -> hf.PreTrainedModel:
    config = hf.ModernBertConfig(
        **SIZE,
        vocab_size=vocab,
        max_position_embeddings=POSITIONS,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        local_attention=16,
    )
    return hf.ModernBertModel(config)


def xlnet(vocab: int) -> hf.PreTrainedModel:
    config = hf.XLNetConfig(vocab_size=vocab, d_model=32, n_layer=2, n_head=2, d_inner=64, pad_token_id=0)
    return hf.XLNetModel(config)


FAMILIES: dict[str, Family] = {
    "bert": (wordpiece, True, roberta_like(hf.BertModel, hf.BertConfig)),
    "roberta": (byte_level, False, roberta_like(hf.RobertaModel, hf.RobertaConfig)),
    "xlm-roberta": (unigram, False, roberta_like(hf.XLMRobertaModel, hf.XLMRobertaConfig)),
    "distilbert": (wordpiece, False, distilbert),
    "electra": (wordpiece, True, factorised(hf.ElectraModel, hf.ElectraConfig)),
    "albert": (unigram, True, factorised(hf.AlbertModel, hf.AlbertConfig)),
    "deberta-v2": (unigram, True, deberta),
    "mpnet": (wordpiece, False, roberta_like(hf.MPNetModel, hf.MPNetConfig)),
    "camembert": (unigram, False, roberta_like(hf.CamembertModel, hf.CamembertConfig)),
    "modernbert": (byte_level, False, modernbert),
    "xlnet": (unigram, True, xlnet),
}


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a checkpoint of the named family; the same one for the whole session."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            build_tokenizer, types, build_model = FAMILIES[family]
            side = "left" if family == "xlnet" else "right"
            vocab = write_tokenizer(folder, build_tokenizer(), types=types, padding_side=side)
            torch.manual_seed(0)
            build_model(vocab).save_pretrained(folder)
            made[family] = folder
        return made[family]

    return make


@pytest.fixture(scope="session")
def checkpoint(make_checkpoint: Callable[[str], Path]) -> str:
    """A tiny BERT."""
    return str(make_checkpoint("bert"))


@pytest.fixture(scope="session")
def conll(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy corpus with people, places and firms, in CoNLL columns."""
    return write_conll(tmp_path_factory.mktemp("corpus") / "train.conll")


@pytest.fixture(scope="session")
def tsv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy reviews, praise and blame, in a tsv file."""
    return write_tsv(tmp_path_factory.mktemp("corpus") / "train.tsv")


@pytest.fixture(autouse=True, scope="session")
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["NLP_TRANSFER_CACHE"] = str(tmp_path_factory.mktemp("cache"))  # also of the processes that tests start


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run ``nlp-transfer ARGS`` in this process; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nlp-transfer", *map(str, args)])
        try:
            code = cli.main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
