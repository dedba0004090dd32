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


def test_a_parent_that_the_system_gives_too_little_says_so_in_a_line():
    program = (
        "import resource; from juinie_shared.runtime.process import Parent, _run_parent;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); _run_parent(Parent('127.0.0.1', 0, 2, 1))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "The processes cannot be kept: Too many open files.\n")
