"""A service as a process takes what the system gives it."""

import subprocess
import sys

ASK = (
    "import resource; from juinie_shared.runtime.process import allow_descriptors;"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 777)); allow_descriptors();"
    "print(*resource.getrlimit(resource.RLIMIT_NOFILE))"
)


def test_a_service_may_have_as_many_descriptors_as_the_system_allows():
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, check=True)
    assert done.stdout == "777 777\n"
