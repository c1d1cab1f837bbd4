"""Filters: pure functions from measures to a reason to drop a clip, or None to keep it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from training.refine.config import RefineConfig
from training.refine.measures import Measures

Filter = Callable[[Measures, RefineConfig], str | None]


def duration(measures: Measures, config: RefineConfig) -> str | None:
    """Too short or too long."""
    if measures.seconds < config.min_seconds:
        return f"{measures.seconds:.2f} s is shorter than {config.min_seconds:g} s"
    if measures.seconds > config.max_seconds:
        return f"{measures.seconds:.2f} s is longer than {config.max_seconds:g} s"
    return None


def noise(measures: Measures, config: RefineConfig) -> str | None:
    """Too little between the loud and the quiet parts."""
    if measures.snr_db < config.min_snr_db:
        return f"signal to noise is {measures.snr_db:.1f} dB, under {config.min_snr_db:g}"
    return None


def clipping(measures: Measures, config: RefineConfig) -> str | None:
    """Peaks cut flat."""
    if measures.clipped_share > config.max_clipped_share:
        return f"{measures.clipped_share:.2%} of the samples are clipped"
    return None


def bandwidth(measures: Measures, config: RefineConfig) -> str | None:
    """Muffled, as over a telephone."""
    if measures.bandwidth_hz < config.min_bandwidth_hz:
        return f"nothing is heard above {measures.bandwidth_hz:.0f} Hz"
    return None


def truncation(measures: Measures, config: RefineConfig) -> str | None:
    """A word that is cut at an end: there the clip is loud."""
    for name, level in (("start", measures.start_edge_db), ("end", measures.end_edge_db)):
        if level > config.max_edge_db:
            return f"a word is cut at the {name} ({level:.0f} dB against the loudest part)"
    return None


def speaker(measures: Measures, config: RefineConfig) -> str | None:
    """Two voices in one clip."""
    found = measures.speaker_consistency
    if found is not None and found < config.min_speaker_consistency:
        return f"the halves are {found:.2f} alike: two speakers"
    return None


def agreement(measures: Measures, config: RefineConfig) -> str | None:
    """Text and recognisers say different things."""
    found = measures.disagreement
    if found is not None and found > config.max_disagreement:
        return f"text and recognisers differ by {found:.0%} of the words"
    found = measures.letter_disagreement
    if found is not None and found > config.max_letter_disagreement:
        return f"text and recognisers differ by {found:.0%} of the letters"
    return None


FILTERS: Mapping[str, Filter] = {
    "duration": duration,
    "noise": noise,
    "clipping": clipping,
    "bandwidth": bandwidth,
    "truncation": truncation,
    "speaker": speaker,
    "agreement": agreement,
}
"""All filters of single clips, in the order in which they are asked."""


def first_reason(measures: Measures, config: RefineConfig) -> tuple[str, str] | None:
    """Return name and reason of the first filter that drops a clip; None where all keep it."""
    for name, function in FILTERS.items():
        reason = function(measures, config)
        if reason is not None:
            return name, reason
    return None


def ratio_tails(ratios: Sequence[float | None], config: RefineConfig) -> list[str | None]:
    """Drop the clips whose speech is the shortest and the longest for their text.

    Args:
        ratios: Seconds per letter of all clips that are left; None where there is no text.
        config: The shares of both tails; they are rounded down, so that a small corpus loses none.

    Returns:
        A reason or None for each clip.
    """
    known = sorted((ratio, index) for index, ratio in enumerate(ratios) if ratio is not None)
    reasons: list[str | None] = [None] * len(ratios)
    num_short = int(len(known) * config.shortest_share)
    num_long = int(len(known) * config.longest_share)
    for ratio, index in known[:num_short]:
        reasons[index] = f"{ratio * 1000:.0f} ms per letter: text that is not spoken"
    for ratio, index in known[len(known) - num_long :]:
        reasons[index] = f"{ratio * 1000:.0f} ms per letter: speech that is not in the text"
    return reasons


def near_duplicates(
    texts: Sequence[str], seconds: Sequence[float], speakers: Sequence[str]
) -> list[str | None]:
    """Drop repetitions: the same words by the same speaker in nearly the same time.

    Args:
        texts: Words of each clip, in lower case; empty ones are never duplicates.
        seconds: Durations.
        speakers: Who speaks.

    Returns:
        A reason or None for each clip; the first of each group stays.
    """
    reasons: list[str | None] = [None] * len(texts)
    kept: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for index, (text, length, who) in enumerate(zip(texts, seconds, speakers, strict=True)):
        if not text:
            continue
        group = kept.setdefault((who, text), [])
        same = next((other for other, _ in group if abs(other - length) <= 0.02 * length), None)
        if same is None:
            group.append((length, index))
        else:
            reasons[index] = f"the same words of {who} in {same:.2f} s are there already"
    return reasons
