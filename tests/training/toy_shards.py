"""What the tests of shards precompute: tokens, embeddings, mel and sound, by tiny models."""

from __future__ import annotations

import torch

from tokenlm.audio.mel import MelConfig
from tokenlm.models.speaker_encoder import SpeakerEncoder, SpeakerEncoderConfig
from tokenlm.models.speech_tokenizer import SpeechTokenizer, SpeechTokenizerConfig
from training.data.precompute import Precompute

RATE = 16_000
NUM_ROWS = 12


def make_work(**changes: object) -> Precompute:
    """Tokens, embeddings, mel and sound; four items a shard."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = SpeechTokenizer(
            SpeechTokenizerConfig(dim=16, num_heads=2, num_layers=1, levels=(3, 3))
        )
        encoder = SpeakerEncoder(SpeakerEncoderConfig(dim=16, num_layers=1, embedding_dim=8))
    settings: dict = {
        "tokenizer": tokenizer.eval().requires_grad_(False),
        "speaker_encoder": encoder.eval().requires_grad_(False),
        "mel": MelConfig(),
        "audio_rate": RATE,
        "items_per_shard": 4,
        "max_reject_share": 0.5,
    }
    return Precompute(**{**settings, **changes})
