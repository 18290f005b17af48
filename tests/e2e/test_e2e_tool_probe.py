"""The probe of `canitoolcall` against the server: tools as an agent uses them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.command import serving

#: Scenarios in which the demo model does not call as it should. The server reads what it writes.
BEYOND_THE_MODEL = {
    "parallel-calls": "it was taught one call for each answer",
    "nested-args": "it was taught arguments that are texts",
    "unicode-args": "it was taught tools that look something up, and none that writes",
    "empty-args": "it was taught tools with one argument",
    "reasoning-then-call": "it was taught no reasoning",
}


@pytest.mark.parametrize("engine", ["llama_cpp", "mistralrs"])
def test_the_probe_passes(engine: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with serving(f"out={engine}") as server:
        words = ["--base-url", server.api, "--model", "demo", "--json", str(report)]
        subprocess.run(
            [sys.executable, "-m", "canitoolcall", "probe", *words],
            check=False,
            capture_output=True,
            timeout=120,
        )
    outcomes = json.loads(report.read_bytes())["outcomes"]
    passed = [each for each in outcomes if each["status"] == "pass"]
    assert len(passed) >= 15
    for each in outcomes:
        if each["status"] != "pass":
            # The streamed answer equals the whole one, and nothing is an error, also in these.
            assert each["status"] == "fail", each
            assert each["check"] == "scenario", each
            assert each["scenario_id"] in BEYOND_THE_MODEL, each
