"""What the profiles need of a machine.

What stands in docker-compose.yml is repeated here, because the standard library reads no YAML;
``tests/unit/node/machine/test_requirements.py`` compares the two.
"""

from __future__ import annotations

GPU = "gpu"
"""Profile of docker-compose.yml: Triton with TensorRT engines."""
CPU = "cpu"
"""Profile of docker-compose.yml: Triton with ONNX Runtime."""
EMBEDDED = "make up"
"""Everything on one machine, without containers."""
CONTAINERS = (GPU, CPU)
PROFILES = (GPU, CPU, EMBEDDED)

# --- docker-compose.yml ---------------------------------------------------------------------------
PROJECT = "epvs-node"
LIMITS_MB = {GPU: 19 * 1024, CPU: 19 * 1024}
"""Sum of the memory limits of the services that keep running."""
CPUS = 2.0
"""Largest ``cpus`` of one service; Docker refuses to start it on a machine that has fewer."""
CPU_VARIABLES = ("WORKER_CPUS", "TRITON_CPUS")
SUBNET = "172.28.5.0/24"
PORT = 11112
DEMO_PACS_PORTS = (8042, 4242)
SECRETS = (
    "postgres_password",
    "postgres_owner_password",
    "postgres_node_password",
    "database_owner_url",
    "database_url",
    "redis_configuration",
    "broker_url",
)

# --- Measured, or stated by others ----------------------------------------------------------------
COMPOSE = (2, 3)
"""The first Docker Compose that knows the top-level ``name`` (compose-go, pull request 231);
``service_completed_successfully`` and device reservations are older."""
DRIVER = 580
"""Oldest branch of NVIDIA's driver for CUDA 13.x; NVIDIA's containers 26.10 are based on CUDA 13.4.
Sources: Triton Inference Server Release 26.10, release notes; CUDA Compatibility, "Minor Version
Compatibility", table 1."""
COMPUTE_CAPABILITY = (7, 5)
"""Turing. Source: Triton Inference Server Release 26.10, release notes, "GPU Requirements"."""
MEMORY_MB = 4 * 1024
"""1.2 GiB were in use at most while ``epvs-node demo`` graded the sample study, rounded up by the
3 GiB that a worker may take for a study."""
DISK_MB = {GPU: 40 * 1024, CPU: 8 * 1024, EMBEDDED: 3 * 1024}
"""Images and spool. The node's image and that of Triton for the CPU take 1.5 GB together, the
environment of `make` and the embedded servers 1.0 GB. NVIDIA states no size: Triton's image 24.06
took 15.5 GB, and that of TensorRT comes on top."""
SHARED_MEMORY_MB = 32
"""``node.embedded.triton`` checks the same at the start."""
PYTHON = ((3, 11), (3, 13))
"""Oldest and newest Python for the embedded stack."""
