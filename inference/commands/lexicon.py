"""The verb lexicon check: whether a lexicon can be used, and what it changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inference.commands.options import BundleOption, MarkupOption, check_lexicon_file
from inference.commands.speech import read_text
from tokenlm.checkpoint.resolve import find_voices, resolve

if TYPE_CHECKING:
    from tokenlm.text.pronunciation import UserLexicon
    from tokenlm.text.tokenizers import TextTokenizer


def check(
    lexicon: Annotated[
        Path, typer.Argument(help="Lexicon: a word and its phones (CMU or /IPA/) in each line.")
    ],
    bundle: BundleOption = "mini-en",
    text_file: Annotated[
        str | None,
        typer.Option(
            "--text-file",
            help="Text whose words are looked up: those that no lexicon lists are named.",
        ),
    ] = None,
    markup: MarkupOption = True,
) -> None:
    """Check a lexicon: every line, the phones of the bundle, and what each word changes."""
    check_lexicon_file(lexicon)
    text = None if text_file is None else read_text(None, text_file)
    folder = resolve(bundle)
    from tokenlm.text.pronunciation import (
        LexiconError,
        UserLexicon,
        read_lexicon_file,
        read_lines,
    )
    from tokenlm.text.tokenizers import load_text_tokenizer

    phones, problems = read_lines(read_lexicon_file(lexicon))
    tokenizer = load_text_tokenizer(folder / "text_tokenizer")
    for word in [*phones]:
        try:
            tokenizer.with_lexicon(UserLexicon({word: phones[word]}))
        except LexiconError as error:
            problems.append((0, str(error)))
            del phones[word]
    for number, problem in problems:
        place = f"line {number}: " if number else ""
        typer.secho(f"error: {lexicon}: {place}{problem}", fg=typer.colors.RED, err=True)
    own = UserLexicon(phones)
    width = max(map(len, phones), default=0)
    for word in phones:
        before, after = _said(tokenizer, word), _said(tokenizer, word, own)
        note = "as without it" if before == after else f"instead of: {before or 'nothing'}"
        typer.echo(f"{word:<{width}}  {after}  ({note})")
    if text is not None:
        _look_up(tokenizer, own, text, folder=folder, markup=markup)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{len(phones)} words can be said by this bundle")


def _said(tokenizer: TextTokenizer, text: str, lexicon: UserLexicon | None = None) -> str:
    """Text tokens of a text, as names."""
    from tokenlm.text.normalize import frontend

    if lexicon is not None:
        tokenizer, respeller = tokenizer.with_lexicon(lexicon)
        text = respeller(text)
    words = frontend(tokenizer.config.normalizer).normalize(text)
    return tokenizer.decode(tokenizer.encode(words))


def _look_up(
    tokenizer: TextTokenizer, lexicon: UserLexicon, text: str, *, folder: Path, markup: bool
) -> None:
    """Names the entries that a text does not use, and its words that no lexicon lists.

    Args:
        tokenizer: of the bundle.
        lexicon: the entries.
        text: as it was written.
        folder: the bundle, whose voices the text may name.
        markup: whether the text may hold markup.

    Raises:
        MarkupError: the text holds markup that is not understood.
    """
    from tokenlm.text.markup import Style, Text, joined_spans
    from tokenlm.text.normalize import frontend
    from tokenlm.text.pronunciation import Respeller

    used = set()

    def note(word: str, key: str) -> str:
        used.add(key)
        return word

    def check_voice(style: Style) -> None:
        if style.voice:
            find_voices(folder, style.voice)

    with_own, respeller = tokenizer.with_lexicon(lexicon)
    stretches = [text]
    if markup:
        reader = with_own.markup_reader(check_voice)
        spans = joined_spans([*reader.feed(text), *reader.finish()])
        stretches = [span.text for span in spans if isinstance(span, Text)]
    find, normalize = (
        Respeller(lexicon.phones, note),
        frontend(tokenizer.config.normalizer).normalize,
    )
    unlisted: set[str] = set()
    for stretch in stretches:
        find(stretch)
        unlisted.update(with_own.unlisted_words(normalize(respeller(stretch))))
    unused = [word for word in lexicon.phones if word not in used]
    if unused:
        typer.echo(f"not in the text: {' '.join(unused)}")
    typer.echo(f"in no lexicon, said by rule: {' '.join(sorted(unlisted)) or 'none'}")
