"""Two processes on this machine that train together, as `accelerate launch` starts them."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def start_two(script: Path, *arguments: str) -> list[subprocess.Popen]:
    """Two processes that run `script` together on the CPU."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]


def run_two(script: Path, *arguments: str, timeout: float = 200) -> list[str]:
    """What each of two processes prints that run `script` together on the CPU."""
    processes = start_two(script, *arguments)
    try:
        with ThreadPoolExecutor(2) as readers:  # both at once: one whose pipe is full waits, and the other for it
            outputs = list(readers.map(lambda process: process.communicate(timeout=timeout), processes))
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs):
        assert process.returncode == 0, errors
    return [output for output, _ in outputs]
