"""Options that several verbs share."""

from __future__ import annotations

import functools
import inspect
import secrets
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from tokenlm.text.pronunciation import UserLexicon

# As in `tokenlm.modules.quantised`, which takes a second to import.
Precision = Literal["float32", "bfloat16", "int8"]
CachePrecision = Literal["float32", "float16", "int8"]

BundleOption = Annotated[
    str,
    typer.Option("--bundle", help="Name of a bundle, its folder, or its id on the hub."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Where the models run: cpu, cuda, cuda:1, mps.")
]
WeightsOption = Annotated[
    Precision,
    typer.Option(
        "--weights",
        help="Precision of the large models' weights: int8 is smaller and faster on a processor,"
        " and sounds a little different.",
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Sound file to write: wav, flac, ogg, mp3 or opus.")
]
SeedOption = Annotated[
    str,
    typer.Option(
        "--seed",
        metavar="NUMBER",
        help="The same seed gives the same speech; random draws one and prints it.",
        show_default="0",
    ),
]
ContextOption = Annotated[
    Literal["default", "full"],
    typer.Option(
        "--context", help="What the decoder sees: default is that of streaming, full the best."
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps", min=1, help="Solver steps of the decoder.", show_default="the bundle's"
    ),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        "--guidance", min=0.0, help="Guidance of the decoder.", show_default="the bundle's"
    ),
]
SolverOption = Annotated[
    str | None,
    typer.Option(
        "--solver",
        help="Solver of the decoder: euler, or midpoint, rk4, dopri5 and others, which speak a text"
        " as a whole.",
        show_default="the bundle's",
    ),
]
InstructionOption = Annotated[
    str,
    typer.Option(
        "--instruct",
        help="How to speak, in words, for a bundle that follows them (imported ones do).",
        show_default="none",
    ),
]
LexiconOption = Annotated[
    Path | None,
    typer.Option(
        "--lexicon",
        help="File of pronunciations: a word and its phones (CMU or /IPA/) in each line.",
        show_default="none",
    ),
]
TextArgument = Annotated[str | None, typer.Argument(help="Text to say.", show_default=False)]
ArrivingTextArgument = Annotated[
    str | None,
    typer.Argument(
        help="Text to say; - is standard input, spoken as it arrives.", show_default=False
    ),
]
TextFileOption = Annotated[
    str | None, typer.Option("--text-file", help="File that holds the text; - is standard input.")
]
PromptAudioOption = Annotated[
    Path | None,
    typer.Option("--prompt-audio", help="Recording of the voice, some seconds of it."),
]
EnhanceOption = Annotated[
    bool,
    typer.Option(
        "--enhance", help="Take noise out of that recording first, by the enhancer of the bundle."
    ),
]
PromptTextOption = Annotated[
    str | None,
    typer.Option("--prompt-text", help="What that recording says; better speech if given."),
]
SpeedOption = Annotated[
    float,
    typer.Option("--speed", min=0.25, max=4.0, help="How fast to speak, at the same pitch."),
]
PlayOption = Annotated[bool, typer.Option("--play", help="Play the speech while it is being made.")]
SayOutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="Sound file to write: wav, flac, ogg, mp3 or opus; - is standard output, as the speech"
        " is made.",
        show_default="out.wav, unless it is played",
    ),
]
FormatOption = Annotated[
    Literal["wav", "pcm", "flac", "mp3", "opus"],
    typer.Option("--format", help="Of standard output; pcm is bare 16-bit samples."),
]
MarkupOption = Annotated[
    bool,
    typer.Option(
        "--markup/--no-markup",
        help="Whether the text may hold pauses and SSML ([pause 0.8s], <voice>, …); else brackets"
        " are text.",
    ),
]
SentenceGapOption = Annotated[
    float | None,
    typer.Option(
        "--sentence-gap",
        min=0.0,
        max=60.0,
        help="Seconds of silence after each sentence.",
        show_default="by its last mark",
    ),
]
ParagraphGapOption = Annotated[
    float | None,
    typer.Option(
        "--paragraph-gap",
        min=0.0,
        max=60.0,
        help="Seconds of silence after each paragraph.",
        show_default="0.6",
    ),
]
DurationOption = Annotated[
    float | None,
    typer.Option("--duration", help="Seconds that the speech is to last, in place of a speed."),
]
SubtitlesOption = Annotated[
    Path | None,
    typer.Option(
        "--srt-in",
        help="SubRip subtitles to speak, each at its time and within it, in place of a text.",
    ),
]
SrtOption = Annotated[
    Path | None, typer.Option("--srt", help="Also write SubRip subtitles to this file.")
]
VttOption = Annotated[
    Path | None,
    typer.Option("--vtt", help="Also write WebVTT subtitles, each word with its time."),
]
JsonOption = Annotated[
    Path | None, typer.Option("--json", help="Also write the words and their times as JSON.")
]
ForOthersOption = Annotated[
    bool,
    typer.Option(
        "--for-others",
        help="The voice is somebody else's: ask for a sentence that they say, and listen to it.",
    ),
]
ConsentBundleOption = Annotated[
    str,
    typer.Option(
        "--consent-bundle",
        help="Bundle whose models listen to the sentence of --for-others; imported bundles need"
        " one, such as mini-en.",
        show_default="the one that speaks",
    ),
]
WhoOption = Annotated[
    str | None,
    typer.Option("--who", help="Whose voice it is.", show_default="asked for"),
]
LayoutOption = Annotated[
    Literal["auto", "one_shot", "interleaved"],
    typer.Option(
        "--layout",
        help="How text and speech follow each other in the model. Interleaved, the default of text"
        " that is still arriving, speaks before the text is complete.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class RenderingOptions:
    """Options of every verb that makes speech."""

    seed: SeedOption = "0"
    bundle: BundleOption = "mini-en"
    context: ContextOption = "default"
    steps: StepsOption = None
    guidance: GuidanceOption = None
    solver: SolverOption = None
    device: DeviceOption = "cpu"
    weights: WeightsOption = "float32"

    def arguments(self) -> dict[str, Any]:
        """Arguments of the methods of `Synthesizer`; a random seed is drawn.

        Raises:
            ValueError: the seed is neither a number nor `random`.
        """
        return {
            "seed": read_seed(self.seed),
            "context": self.context,
            "num_steps": self.steps,
            "guidance_scale": self.guidance,
            "solver": self.solver,
        }


@dataclass(frozen=True, kw_only=True)
class SpeechOptions(RenderingOptions):
    """Options of every verb that speaks what is written."""

    speed: SpeedOption = 1.0
    lexicon: LexiconOption = None
    sentence_gap: SentenceGapOption = None
    paragraph_gap: ParagraphGapOption = None

    def arguments(self) -> dict[str, Any]:
        """Arguments of the methods of `Synthesizer`; a random seed is drawn, the lexicon is read.

        Raises:
            ValueError: the seed is neither a number nor `random`, or the lexicon cannot be read.
        """
        return {
            **super().arguments(),
            "speed": self.speed,
            "lexicon": read_lexicon(self.lexicon),
            "sentence_gap": self.sentence_gap,
            "paragraph_gap": self.paragraph_gap,
        }


@dataclass(frozen=True, kw_only=True)
class TextOptions(SpeechOptions):
    """Options of the verbs that speak one text."""

    duration: DurationOption = None
    instruction: InstructionOption = ""
    markup: MarkupOption = True
    srt: SrtOption = None
    vtt: VttOption = None
    json: JsonOption = None

    def arguments(self) -> dict[str, Any]:
        """As of `SpeechOptions`, with the instruction, the length, and what there is to be."""
        return {
            **super().arguments(),
            "instruction": self.instruction,
            "markup": self.markup,
            "duration": self.duration,
            "word_times": bool(self.listings),
        }

    @property
    def listings(self) -> list[Path]:
        """Files that words and their times are written to."""
        return [path for path in (self.srt, self.vtt, self.json) if path is not None]


def takes_options(verb: Callable[..., None]) -> Callable[..., None]:
    """Gives a verb an option for each field of a dataclass.

    Args:
        verb: has a parameter `options`, annotated with a dataclass whose fields are annotated as
            options of typer.

    Returns:
        The verb with these options in place of that parameter, as typer sees it.
    """
    signature = inspect.signature(verb, eval_str=True)
    kind = signature.parameters["options"].annotation
    hints = get_type_hints(kind, include_extras=True)
    names = [field.name for field in fields(kind)]

    @functools.wraps(verb)
    def call(*args: Any, **values: Any) -> None:
        options = kind(**{name: values.pop(name) for name in names if name in values})
        verb(*args, options=options, **values)

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name != "options":
            parameters.append(parameter)
            continue
        parameters += [
            parameter.replace(name=field.name, default=field.default, annotation=hints[field.name])
            for field in fields(kind)
        ]
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def read_seed(text: str) -> int:
    """The seed of the option --seed; a new one of 31 bits for `random`.

    Raises:
        ValueError: it is neither a number nor `random`.
    """
    if text == "random":
        return secrets.randbelow(1 << 31)
    number = whole_number(text)
    if number is None:
        raise ValueError(f"--seed takes a whole number from 0, or random, not {text!r}.")
    return number


def whole_number(text: str) -> int | None:
    """A number from 0 that is written in the digits 0 to 9; None is any other text."""
    return int(text) if text.isascii() and text.isdigit() else None


def read_lexicon(path: Path | None) -> UserLexicon | None:
    """The lexicon of the option --lexicon.

    Raises:
        ValueError: it cannot be read.
    """
    if path is None:
        return None
    check_lexicon_file(path)
    from tokenlm.text.pronunciation import UserLexicon

    return UserLexicon.load(path)


def check_lexicon_file(path: Path) -> None:
    """Checks that there is a lexicon, before anything is loaded to read it.

    Raises:
        ValueError: there is no such file.
    """
    if not path.is_file():
        reason = "it is a folder" if path.is_dir() else "no such file"
        raise ValueError(f"the lexicon {path} cannot be read: {reason}.")
