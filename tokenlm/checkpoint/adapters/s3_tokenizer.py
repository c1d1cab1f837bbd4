"""The speech tokenizer of CosyVoice 2: keys of its PyTorch port and ours."""

from __future__ import annotations

from tokenlm.checkpoint.adapter import KeyTable, Rule

_BLOCK, _MINE = "encoder.blocks.{i}.", "blocks.{i}."


def tokenizer_table() -> KeyTable:
    """Keys of the tokenizer."""
    return KeyTable(
        [
            Rule("encoder.conv1.{p}", "conv1.{p}"),
            Rule("encoder.conv2.{p}", "conv2.{p}"),
            Rule(_BLOCK + "attn.fsmn_block.weight", _MINE + "attention.memory.weight"),
            Rule(_BLOCK + "attn.{layer}.{p}", _MINE + "attention.{layer}.{p}"),
            Rule(_BLOCK + "attn_ln.{p}", _MINE + "attention_norm.{p}"),
            Rule(_BLOCK + "mlp_ln.{p}", _MINE + "feed_forward_norm.{p}"),
            Rule(_BLOCK + "mlp.{j}.{p}", _MINE + "feed_forward.{j}.{p}"),
            Rule("quantizer._codebook.project_down.{p}", "project.{p}"),
        ]
    )
