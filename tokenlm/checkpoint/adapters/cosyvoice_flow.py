"""The flows of CosyVoice 2 and 3: keys of `flow.pt` and ours."""

from __future__ import annotations

from tokenlm.checkpoint.adapter import KeyTable, Rule


def _relative_rules(theirs: str, ours: str) -> list[Rule]:
    block, mine = theirs + ".{i}.", ours + ".layers.{i}."
    attention = {
        "linear_q.{p}": "query.{p}",
        "linear_k.{p}": "key.{p}",
        "linear_v.{p}": "value.{p}",
        "linear_out.{p}": "out.{p}",
        "linear_pos.weight": "position.weight",
        "pos_bias_u": "content_bias",
        "pos_bias_v": "position_bias",
    }
    rules = [Rule(f"{block}self_attn.{a}", f"{mine}attention.{b}") for a, b in attention.items()]
    return rules + [
        Rule(block + "feed_forward.w_1.{p}", mine + "feed_forward.0.{p}"),
        Rule(block + "feed_forward.w_2.{p}", mine + "feed_forward.2.{p}"),
        Rule(block + "norm_ff.{p}", mine + "feed_forward_norm.{p}"),
        Rule(block + "norm_mha.{p}", mine + "attention_norm.{p}"),
    ]


def lookahead_rules(theirs: str, ours: str) -> list[Rule]:
    """Keys of the look-ahead layer."""
    return [
        Rule(theirs + "conv1.{p}", ours + "ahead.conv.{p}"),
        Rule(theirs + "conv2.{p}", ours + "back.conv.{p}"),
    ]


def encoder_rules(theirs: str = "encoder.", ours: str = "encoder.") -> list[Rule]:
    """Keys of the conformer encoder of CosyVoice 2."""
    return [
        Rule(theirs + "embed.out.{i}.{p}", ours + "embed.{i}.{p}"),
        Rule(theirs + "up_embed.out.{i}.{p}", ours + "up_embed.{i}.{p}"),
        Rule(theirs + "up_layer.conv.{p}", ours + "upsample.conv.{p}"),
        Rule(theirs + "after_norm.{p}", ours + "norm.{p}"),
        *lookahead_rules(theirs + "pre_lookahead_layer.", ours + "lookahead."),
        *_relative_rules(theirs + "encoders", ours + "blocks"),
        *_relative_rules(theirs + "up_encoders", ours + "up_blocks"),
    ]


def encoder_table() -> KeyTable:
    """Keys of the encoder alone."""
    return KeyTable(encoder_rules("encoder.", ""))


def _unet_level(theirs: str, ours: str) -> list[Rule]:
    resnet, mine = theirs + "0.", ours + "resnet."
    block, my_block = theirs + "1.{j}.", ours + "blocks.{j}."
    return [
        Rule(resnet + "block1.block.0.{p}", mine + "first.conv.conv.{p}"),
        Rule(resnet + "block1.block.2.{p}", mine + "first.norm.{p}"),
        Rule(resnet + "mlp.1.{p}", mine + "time.{p}"),
        Rule(resnet + "block2.block.0.{p}", mine + "second.conv.conv.{p}"),
        Rule(resnet + "block2.block.2.{p}", mine + "second.norm.{p}"),
        Rule(resnet + "res_conv.{p}", mine + "residual.{p}", pointwise=True),
        Rule(block + "norm1.{p}", my_block + "attention_norm.{p}"),
        Rule(block + "attn1.to_q.weight", my_block + "attention.query.weight"),
        Rule(block + "attn1.to_k.weight", my_block + "attention.key.weight"),
        Rule(block + "attn1.to_v.weight", my_block + "attention.value.weight"),
        Rule(block + "attn1.to_out.0.{p}", my_block + "attention.out.{p}"),
        Rule(block + "norm3.{p}", my_block + "feed_forward_norm.{p}"),
        Rule(block + "ff.net.0.proj.{p}", my_block + "feed_forward.0.{p}"),
        Rule(block + "ff.net.2.{p}", my_block + "feed_forward.2.{p}"),
    ]


def unet_rules(theirs: str, ours: str) -> list[Rule]:
    """Keys of the estimator of CosyVoice 2."""
    return [
        Rule(theirs + "time_mlp.linear_1.{p}", ours + "time.layers.0.{p}"),
        Rule(theirs + "time_mlp.linear_2.{p}", ours + "time.layers.2.{p}"),
        *_unet_level(theirs + "down_blocks.0.", ours + "down."),
        Rule(theirs + "down_blocks.0.2.{p}", ours + "down.conv.conv.{p}"),
        *_unet_level(theirs + "mid_blocks.{i}.", ours + "mid.{i}."),
        *_unet_level(theirs + "up_blocks.0.", ours + "up."),
        Rule(theirs + "up_blocks.0.2.{p}", ours + "up.conv.conv.{p}"),
        Rule(theirs + "final_block.block.0.{p}", ours + "final.conv.conv.{p}"),
        Rule(theirs + "final_block.block.2.{p}", ours + "final.norm.{p}"),
        Rule(theirs + "final_proj.{p}", ours + "project.{p}", pointwise=True),
    ]


def unet_table() -> KeyTable:
    """Keys of the estimator of CosyVoice 2 alone."""
    return KeyTable(unet_rules("decoder.estimator.", ""))
