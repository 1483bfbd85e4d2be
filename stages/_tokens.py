"""The embedded model's tokenizer: byte-level BPE whose pieces of a word are the same wherever the word stands.

Copying is what everything else stands on, and a small model copies tokens, not letters. Ordinary byte-level BPE cuts
` Oslo` and `"Oslo` differently. Here a space is a token of its own (only a few function words, which no value starts
with, carry theirs along), so a span has the same tokens in a request and in the call that repeats it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END, PAD = "<|im_end|>", "<|endoftext|>"
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Ordinary added tokens: text to the user of the tokenizer, one token each to the model.
CALL_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")

_FUNCTION_WORDS = (
    "the a an of in on at to for and is are with from by my me you your it that this what how do does can could would "
    "I we our be as or if not no all any one when which please need want have has some there into about up out off now "
    "then will was"
)
_PATTERN = "|".join(
    (
        rf" (?:{'|'.join(_FUNCTION_WORDS.split())})(?![A-Za-z])",
        r"\p{L}+",
        r"\p{N}",  # one digit a token
        r"\n+",
        r"\s",
        r"[^\s\p{L}\p{N}]+ ?[^\s\p{L}\p{N}]*",  # punctuation with the space inside it, as in `": "`
    )
)


def train_tokenizer(texts: Iterable[str], vocabulary: int, chat_template: str) -> PreTrainedTokenizerFast:
    """Train the tokenizer on texts; `vocabulary` counts every token, added ones included."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(CALL_TAGS),
        special_tokens=list(CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(list(CALL_TAGS))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        padding_side="left",
    )
