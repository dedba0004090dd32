"""Count the tests of pytest's JUnit reports. Exits 1 when one was skipped or failed, or when there was none.

python deploy/no_skips.py REPORT.xml...
"""

import sys
from collections import Counter
from xml.etree import ElementTree


def outcomes(path: str) -> Counter[str]:
    """How many tests of one report there were, and how many of them failed or were skipped."""
    counted = Counter[str]()
    for suite in ElementTree.parse(path).getroot().iter("testsuite"):
        counted["skipped"] += int(suite.attrib["skipped"])
        counted["failed"] += int(suite.attrib["failures"]) + int(suite.attrib["errors"])
        counted["passed"] += int(suite.attrib["tests"])
    counted["passed"] -= counted["failed"] + counted["skipped"]
    return counted


if __name__ == "__main__":
    total = sum(map(outcomes, sys.argv[1:]), Counter[str]())
    print(f"{total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")
    sys.exit(not total["passed"] or bool(total["failed"] or total["skipped"]))
