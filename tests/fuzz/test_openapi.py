"""What OpenAPI says is what the api does: schemathesis over the document that is served.

It makes requests that the document allows and such that it forbids, alone and in chains, and holds the answers against it:
no 5xx, statuses, content types and bodies as documented, 401 without a key, what is forbidden refused.
`positive_data_acceptance` is left out: limits that a JSON schema cannot say (bytes, nesting, control characters) are 422. So is `/wait`, which waits as it is asked to: the
byte-level fuzzer sends it.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from juinie_testkit.seed import SeededKey
from juinie_testkit.stack import Stack

PROGRAM = Path(sys.executable).with_name("st")
CASES_PER_EXAMPLE = 30
"""How many cases come of one more example for each operation, roughly."""

LONGEST_WAIT_SECONDS, HANG_SECONDS = 30, 5
"""A request for events, or a claim, waits as long as it asks to, and nothing takes longer than that by more than an answer may."""

pytestmark = pytest.mark.timeout(3600)


def test_api_does_what_its_document_says(stack: Stack, key: SeededKey, plan: Any, tmp_path: Path):
    examples = max(1, plan.cases_of("openapi") // CASES_PER_EXAMPLE)
    phases = "coverage,fuzzing,stateful" if examples > 10 else "fuzzing,stateful"
    done = subprocess.run(
        [
            PROGRAM, "--no-color", "run", f"{stack.api.url}/openapi.json", "--header", f"Authorization: Bearer {key.text}",
            "--checks", "all", "--exclude-checks", "positive_data_acceptance", "--phases", phases, "--max-examples", str(examples),
            "--seed", str(plan.seed), "--generation-database", "none", "--suppress-health-check", "all", "--continue-on-failure",
            "--request-timeout", "65", "--max-response-time", str(LONGEST_WAIT_SECONDS + HANG_SECONDS), "--exclude-path-regex", "/wait$", "--workers", "2", "--warnings", "off",
        ],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    figures = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert figures, done.stdout
    print(f"schemathesis, seed {plan.seed}: {figures[0]}")
