"""Two machines of one processor each, on this one: Ray's own cluster of nodes on the loopback."""

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import pytest

NODE = {"num_cpus": 1, "memory": 1 << 30, "object_store_memory": 80 << 20, "node_ip_address": "127.0.0.2"}


@pytest.fixture(scope="session")
def checkpoint():
    """Makes a small Gemma in a directory."""
    path = Path(__file__).parent.parent / "cloud" / "models.py"
    spec = importlib.util.spec_from_file_location("small_models", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.checkpoint


@pytest.fixture(scope="module")
def ray_environment(s3_here):
    """What workers inherit from their node: where S3 is, who asks, where porter lies."""
    wanted = {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "a secret that nobody may see",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_here.endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_USAGE_STATS_ENABLED": "0",
        # The paths of Ray's sockets must be short.
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray", dir="/tmp"),
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    yield wanted
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def nodes(ray_environment):
    """The cluster; this process is connected to it."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, _node_ip_address="127.0.0.2", log_to_driver=False)
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def s3_server():
    return sys.modules["s3_server"]
