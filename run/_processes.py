"""Data-parallel training: joining the other processes that torchrun started."""

import os

import torch
import torch.distributed as dist

from run._cli import pick_device


def start_processes(device: str) -> torch.device:
    """Join the other processes if torchrun started this one, and pick the device."""
    name = pick_device(device).type if device == "auto" else device
    if "LOCAL_RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("nccl" if name.startswith("cuda") else "gloo")
        if name == "cuda":
            name = f"cuda:{os.environ['LOCAL_RANK']}"
    chosen = pick_device(name)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        torch.set_float32_matmul_precision("high")
    return chosen
