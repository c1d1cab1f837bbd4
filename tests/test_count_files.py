"""How many files a newcomer opens to follow a text to its sound: `scripts/count_files`."""

from __future__ import annotations

import pytest
from script_module import load_script

from tokenlm.synthesis import Synthesizer


@pytest.mark.slow
def test_a_text_passes_few_files() -> None:
    script = load_script("count_files")
    synthesizer = Synthesizer.from_pretrained("mini-en")
    passed = script.trace_generate(synthesizer, script.TEXT).files()
    assert 20 < len([path for path in passed if path.parts[0] == "tokenlm"]) <= 35
    passed = script.trace_request(synthesizer, script.TEXT).files()
    assert 0 < len([path for path in passed if path.parts[:2] == ("inference", "server")]) <= 8
