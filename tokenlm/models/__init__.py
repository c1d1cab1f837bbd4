"""The models: speech tokenizer, speaker encoder, language model, flow decoder, vocoder."""
