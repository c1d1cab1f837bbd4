"""The one training loop: trainer, task, optimiser, checkpoints, tracking, parallel strategies."""
