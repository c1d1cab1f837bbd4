"""Text-to-speech with models that speak in tokens."""
