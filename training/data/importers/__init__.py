"""From the layouts in which corpora are published to a manifest."""
