"""A secret that is planted in a file is found, whatever kind it is, and never repeated. Made here, so that this file has none."""

import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from juinie_shared.contracts.names import DEV_API_KEY
from juinie_shared.contracts.stream_tokens import StreamTokenSigner
from juinie_shared.db.keys import PREFIX
from juinie_shared.domain.ids import KeyId, TenantId, new_run_id, new_uuid7

ROOT = Path(__file__).parents[2]


def scan(*files: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "deploy/secret_scan.py", *map(str, files)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def stream_token() -> str:
    signer = StreamTokenSigner({"k": secrets.token_hex(32)})
    return signer.sign(new_run_id(), TenantId(new_uuid7()), KeyId(new_uuid7()), 60)[0]


PLANTED = {
    "Juinie API key": lambda: PREFIX + secrets.token_urlsafe(32),
    "JSON Web Token": stream_token,
    "AWS Access Key": lambda: "AKIA" + "QWERTYUIOPASDFGH",
    "Private Key": lambda: "-----BEGIN " + "RSA PRIVATE KEY-----",
    "Basic Auth Credentials": lambda: "postgresql://juinie:" + secrets.token_hex(8) + "@db.example/juinie",
    "GitHub Token": lambda: "ghp_" + secrets.token_hex(18),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_secret_is_found_by_its_place_and_never_shown(tmp_path: Path, kind: str):
    secret, planted = PLANTED[kind](), tmp_path / "planted.py"
    planted.write_text(f'NAME = "Juinie"\nVALUE = "{secret}"\n')
    done = scan(planted)
    assert done.returncode == 1
    assert f"{planted}:2: {kind}" in done.stdout.splitlines()
    assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize("folder", ["tests", "docs"])
def test_keys_are_found_in_tests_and_pages_too(tmp_path: Path, folder: str):
    planted = tmp_path / folder / "page.md"
    planted.parent.mkdir()
    planted.write_text(f"export JUINIE_API_KEY={PREFIX}{secrets.token_urlsafe(32)}\n")
    assert scan(planted).returncode == 1


HISTORY = """
import sys; sys.path[:0] = ['deploy']
import pathlib, secret_scan
print(*secret_scan.found_in_history(pathlib.Path(sys.argv[1])), sep='\\n')
"""


@pytest.mark.parametrize("kind", ["Juinie API key", "GitHub Token", "Private Key"])
def test_secret_that_was_committed_and_is_gone_is_found_in_the_history(tmp_path: Path, kind: str):
    def git(*arguments: str) -> None:
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet")
    for text in (PLANTED[kind](), "nothing", DEV_API_KEY):
        (tmp_path / "page.md").write_text(f"KEY={text}\n")
        git("add", ".")
        git("commit", "--quiet", "-m", "one")
    command = [sys.executable, "-c", HISTORY, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (found,) = done.stdout.splitlines()
    assert found.endswith(f":page.md: {kind}, in the history")


def test_public_keys_and_ordinary_text_pass(tmp_path: Path):
    clean = tmp_path / "clean.py"
    clean.write_text(f'KEY = "{DEV_API_KEY}"\nRUN_ID = "{new_run_id()}"\nNAME = "jn_"\n')
    done = scan(clean)
    assert (done.returncode, done.stdout) == (0, "scanned for secrets: 1 files, 0 found\n")


def test_make_check_scans_and_audits():
    plan = subprocess.run(
        ["make", "-n", "check"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "deploy/secret_scan.py\n" in plan
    assert "deploy/audit.py\n" in plan
