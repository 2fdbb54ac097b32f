"""Every word of every text gets its own tag: in windows, in batches of uneven length, padded on either side."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.modeling_outputs import TokenClassifierOutput

import nlp_transfer as nt
from nlp_transfer.data.words import WordTokenizer
from tests.conftest import FAMILIES, WORDS

LABELS = nt.LabelSet.for_tags(["X", "Y"])
TAGS = torch.tensor([LABELS.id(tag) for tag in ("O", "B-X", "B-Y")])


class Lexicon(nn.Module):
    """A network that knows one tag for every token, and looks at nothing else."""

    def __init__(self, num_tokens: int, config: PreTrainedConfig) -> None:
        super().__init__()
        self.config = config
        self.tags = TAGS[torch.arange(num_tokens) % len(TAGS)]

    def forward(self, input_ids: Tensor, **_: Tensor) -> TokenClassifierOutput:
        return TokenClassifierOutput(logits=10.0 * nn.functional.one_hot(self.tags[input_ids], len(LABELS)).float())


@pytest.mark.parametrize("family", FAMILIES)
def test_each_word_gets_the_tag_of_its_first_token(make_checkpoint, family):
    model = nt.load_token_classifier(str(make_checkpoint(family)), LABELS)
    lexicon = Lexicon(len(model.tokenizer), model.network.config)
    rng = random.Random(0)
    words = [*WORDS, "", "\u200b", "🙂", "unheardof" * 30]
    texts = [tuple(rng.choices(words, k=length)) for length in (1, 3, 7, 40, 200, 1000)]
    examples = [nt.TaggedExample(text, ("O",) * len(text)) for text in texts]
    evaluation = nt.evaluate(replace(model, network=lexicon), nt.Ner(labels=LABELS), "test", examples)
    tokenizer = WordTokenizer(model.tokenizer, 64)
    for text, tagging in zip(texts, evaluation.predictions, strict=True):
        wanted = [LABELS.names[lexicon.tags[tokenizer.pieces(word)[0]]] for word in text]
        assert list(tagging.tags) == wanted
