"""Speech tokens by an LLM server: the client, and what the server does with its logits."""
