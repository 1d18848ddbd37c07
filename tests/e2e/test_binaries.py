"""What the binaries export and need: the control plane must start on other distributions and never meet torch's protobuf."""
import re
import subprocess

import pytest

from harness import BIN

CONTROL_PLANE = ("tandem", "tandem-coordinator", "tandem-worker")


def output(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", CONTROL_PLANE)
def test_no_protobuf_symbol_is_exported(name):
    defined = output("nm", "-DC", "--defined-only", BIN / name)
    assert "google::protobuf" not in defined and "grpc::" not in defined


@pytest.mark.parametrize("name", CONTROL_PLANE)
def test_no_newer_glibc_than_debian_12(name):
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)", output("objdump", "-T", BIN / name))}
    assert versions and max(versions) <= (2, 36)


def test_the_control_plane_has_no_torch_and_the_rank_no_grpc():
    for name in CONTROL_PLANE:
        assert not re.search(r"torch|libgrpc|libprotobuf|libmpi", output("readelf", "-d", BIN / name))
    needed = output("readelf", "-d", BIN / "tandem-rank")
    assert "libtorch_cpu" in needed and "libmpi" in needed and "grpc" not in needed and "protobuf" not in needed
