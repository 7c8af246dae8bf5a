"""Rose: which few percent of an instruction pool to fine-tune on, chosen by influence on a preference loss."""

import logging
import os
import warnings

# here, so that a worker of any launcher has the same surroundings
os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors reach main(), which says them in one line
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow a busy machine by orders of magnitude
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # renames inside the library
# that a kernel for 4 bits on a CPU is not there, which nothing here uses: said whenever PEFT is imported
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
