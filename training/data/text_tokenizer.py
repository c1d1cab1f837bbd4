"""Trains text tokenizers: pieces of spelling on texts, or letter-to-sound rules on a lexicon.

Shapes: B words, L letters, P phones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from tokenlm.console import track
from tokenlm.text.normalize import normalize
from tokenlm.text.pronunciation import (
    PLACES_PER_LETTER,
    Lexicon,
    Pronouncer,
    encode_letters,
    pad_words,
    split_ending,
)
from tokenlm.text.tokenizers import PhonemeTokenizer, SentencePieceTokenizer
from training.data.exclusion import evaluation_exclusion

WORDS_AT_ONCE = 512


def train_piece_tokenizer(
    texts: Sequence[str], vocab_size: int, *, seed: int = 0
) -> tuple[SentencePieceTokenizer, float]:
    """A tokenizer of pieces of words, by sentencepiece; texts of test sets are left out.

    Args:
        texts: as they are written.
        vocab_size: number of pieces.
        seed: of the draw of texts, where there are too many.

    Returns:
        The tokenizer, and how many characters a piece has on average.

    Raises:
        ValueError: the texts are too few for so many pieces.
    """
    exclusion = evaluation_exclusion()
    kept = [normalize(text) for text in texts if not exclusion.excludes(text)]
    tokenizer = SentencePieceTokenizer.train(kept, vocab_size, seed=seed)
    num_pieces = sum(len(tokenizer.encode(text)) for text in kept)
    return tokenizer, sum(len(text) for text in kept) / max(num_pieces, 1)


def train_phoneme_tokenizer(
    lexicon: Lexicon,
    *,
    num_epochs: int = 10,
    dim: int = 96,
    lr: float = 3e-3,
    seed: int = 0,
) -> PhonemeTokenizer:
    """A phoneme tokenizer whose own lexicon holds the exceptions of `lexicon` alone.

    Args:
        lexicon: as many words as there are; what they have in common becomes the rules. Variants of
            homographs (`live(verb)`) are kept beside them.
        num_epochs: passes over the lexicon.
        dim: channels of the `Pronouncer`.
        lr: highest learning rate of Adam, reached after a tenth of the steps, then falling to 0.
        seed: of the weights and of the order.

    Raises:
        ValueError: the lexicon is empty.
    """
    if all(word.endswith(")") for word in lexicon):
        raise ValueError("there is no word to learn a pronunciation from")
    variants = {word: said for word, said in lexicon.items() if word.endswith(")")}
    words = sorted(lexicon.keys() - variants.keys())
    phones = sorted({phone for said in lexicon.values() for phone in said})
    numbers = {phone: number for number, phone in enumerate(phones)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pronouncer = Pronouncer(len(phones), dim)
    targets = [[numbers[phone] for phone in lexicon[word]] for word in words]
    # CTC cannot write more phones than there are places.
    fits = [
        index
        for index, word in enumerate(words)
        if len(targets[index]) <= PLACES_PER_LETTER * len(encode_letters(word))
    ]
    _fit(pronouncer, words, targets, fits, num_epochs, lr, seed)
    for parameter in pronouncer.parameters():
        parameter.data = parameter.data.half().float()  # the precision that a folder keeps
    pronouncer.eval()
    exceptions: Lexicon = dict(variants)  # which the spelling cannot tell
    for start in range(0, len(words), WORDS_AT_ONCE):
        some = words[start : start + WORDS_AT_ONCE]
        for word, said in zip(some, pronouncer.pronounce(some), strict=True):
            if tuple(phones[phone] for phone in said) != lexicon[word]:
                exceptions[word] = lexicon[word]
    tokenizer = PhonemeTokenizer(phones, exceptions, pronouncer)
    # What the tokenizer would say by the rules of endings, in place of what was learned.
    ended = [word for word in words if split_ending(word) and word not in exceptions]
    for word in ended:
        if tokenizer.decode(tokenizer.encode(word)).split() != list(lexicon[word]):
            exceptions[word] = lexicon[word]
    return PhonemeTokenizer(phones, exceptions, pronouncer)


def _fit(
    pronouncer: Pronouncer,
    words: list[str],
    targets: Sequence[Sequence[int]],
    usable: Sequence[int],
    num_epochs: int,
    lr: float,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(pronouncer.parameters(), lr=lr)
    steps_per_epoch = -(-len(usable) // WORDS_AT_ONCE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, lr, total_steps=num_epochs * steps_per_epoch + 1, pct_start=0.1
    )
    pronouncer.train()
    for _ in track(range(num_epochs), "pronunciation"):
        order = torch.randperm(len(usable), generator=generator).tolist()
        # Words of like length go together; the batches keep a random order.
        order.sort(key=lambda index: len(words[usable[index]]))
        starts = torch.randperm(steps_per_epoch, generator=generator).tolist()
        for start in starts:
            chosen = [usable[i] for i in order[start * WORDS_AT_ONCE : (start + 1) * WORDS_AT_ONCE]]
            letters, lengths = pad_words([words[index] for index in chosen])
            log_probs = pronouncer(letters, lengths)
            loss = functional.ctc_loss(
                log_probs.transpose(0, 1),
                torch.tensor([phone + 1 for index in chosen for phone in targets[index]]),
                lengths * PLACES_PER_LETTER,
                torch.tensor([len(targets[index]) for index in chosen]),
                zero_infinity=True,
            )
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(pronouncer.parameters(), 1.0)
            optimizer.step()
            schedule.step()
