"""From text and a voice to sound."""

from tokenlm.synthesis.session import SpeechCancelled
from tokenlm.synthesis.synthesizer import Synthesizer
from tokenlm.synthesis.voice import Voice, VoiceError
from tokenlm.synthesis.words import Speech, TimedWord

__all__ = ["Speech", "SpeechCancelled", "Synthesizer", "TimedWord", "Voice", "VoiceError"]
