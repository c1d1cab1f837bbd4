"""The server: HTTP as OpenAI speaks it, a WebSocket for text that is still being written, a page."""
