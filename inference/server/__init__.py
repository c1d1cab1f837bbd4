"""The server: HTTP as OpenAI has it, a WebSocket for text that is still being written, a page."""
