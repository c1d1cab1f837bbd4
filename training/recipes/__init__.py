"""What made the embedded bundle: corpus, homographs, searches, budget. Not in the wheel."""
