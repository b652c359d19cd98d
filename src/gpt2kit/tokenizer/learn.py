"""Learn a byte-level BPE vocabulary from text, and write it so that GPT-2's programs and transformers read it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain

from gpt2kit.errors import ConfigError, DataError, MissingExtra
from gpt2kit.tokenizer.byte_alphabet import BYTE_OF
from gpt2kit.tokenizer.vocabulary import END

SMALLEST = 257  # 256 bytes and the end token


def learn_vocabulary(texts: Iterable[str], vocab_size: int) -> dict[str, bytes]:
    """Learn at most `vocab_size` tokens. Returns vocab.json, merges.txt, tokenizer.json and tokenizer_config.json.

    Ids are laid out as GPT-2's: 256 bytes, merges by frequency, `<|endoftext|>` last. A short text has fewer pairs
    worth merging and gives fewer tokens. The learning itself is Hugging Face's `tokenizers`, the field's standard.
    """
    if vocab_size < SMALLEST:
        raise ConfigError(f"a byte-level vocabulary has at least {SMALLEST} tokens, got {vocab_size}")
    merges = _learn_merges(texts, vocab_size)
    tokens = [*BYTE_OF, *(left + right for left, right in merges), END]
    return _files({token: id for id, token in enumerate(tokens)}, merges)


def _learn_merges(texts: Iterable[str], vocab_size: int) -> list[tuple[str, str]]:
    try:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    except ImportError:
        raise MissingExtra("learning a vocabulary", "tokenizers") from None

    texts = filter(None, texts)
    first = next(texts, "")
    if not first:
        raise DataError("nothing to learn a vocabulary from: the text is empty")
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1, min_frequency=2, initial_alphabet=list(BYTE_OF), show_progress=False
    )
    learner.train_from_iterator(chain([first], texts), trainer=trainer)
    return [(left, right) for left, right in json.loads(learner.to_str())["model"]["merges"]]


def _files(ids: dict[str, int], merges: list[tuple[str, str]]) -> dict[str, bytes]:
    """The vocabulary as OpenAI's programs read it, and as transformers does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    whole = Tokenizer(models.BPE(vocab=ids, merges=merges))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    whole.post_processor = processors.ByteLevel(trim_offsets=False)
    whole.add_special_tokens([END])
    merge_lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    settings = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
    settings |= dict.fromkeys(("bos_token", "eos_token", "unk_token"), END)
    return {
        "vocab.json": json.dumps(ids, ensure_ascii=False).encode(),
        "merges.txt": ("\n".join(merge_lines) + "\n").encode(),
        "tokenizer.json": whole.to_str(pretty=True).encode(),
        "tokenizer_config.json": json.dumps(settings, indent=2).encode(),
    }
