"""What tests share: quiet, hermetic surroundings; the fixtures are in the modules named below."""

import os

os.environ["WANDB_MODE"] = "offline"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("ROSE_DATA", None)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models gain nothing from threads, and tests run side by side

pytest_plugins = ["fixtures_jobs", "fixtures_judges", "fixtures_models", "nothing_left"]
