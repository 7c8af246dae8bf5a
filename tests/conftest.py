"""What tests share: quiet, hermetic surroundings; the fixtures are in the modules named below."""

import os

import torch

os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("ROSE_DATA", None)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing from threads, and tests run side by side
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where Triton is first imported, which transformers may do

pytest_plugins = ["fixtures_jobs", "fixtures_judges", "fixtures_models", "nothing_left"]
