"""Everything that is downloaded is pinned: one version, and hashes of all that may come."""

import re
from importlib.resources import files

import pytest

from juinie_standalone.jars import KAFKA_VERSION, kafka_jars
from juinie_standalone.wheels import pinned_version

SHA256 = re.compile(r"[0-9a-f]{64}")


def test_every_jar_has_a_full_hash_and_is_named_once():
    jars = kafka_jars()
    assert all(SHA256.fullmatch(jar.sha256) for jar in jars)
    assert len({(jar.group, jar.artifact) for jar in jars}) == len(jars)


def test_all_of_kafka_is_of_one_version():
    of_kafka = {jar.version for jar in kafka_jars() if jar.group == "org.apache.kafka"}
    assert of_kafka == {KAFKA_VERSION}


@pytest.mark.parametrize("pin", ["postgres-wheel.txt", "java-wheel.txt"])
def test_a_wheel_has_one_version_and_nothing_but_hashes_beside_it(pin):
    first, *rest = files("juinie_standalone").joinpath("pins", pin).read_text().split()
    assert re.fullmatch(r"[a-z0-9-]+==[0-9.]+", first)
    hashes = [word for word in rest if word != "\\"]
    assert hashes
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes)
    assert pinned_version(pin) == first.replace("==", "-")
