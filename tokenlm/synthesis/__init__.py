"""From text and a voice to sound."""

from tokenlm.synthesis.session import SpeechCancelled
from tokenlm.synthesis.synthesizer import Synthesizer
from tokenlm.synthesis.voice import Voice, VoiceError

__all__ = ["SpeechCancelled", "Synthesizer", "Voice", "VoiceError"]
