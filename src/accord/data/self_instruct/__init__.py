"""Instructions that a model writes from seeds (Self-Instruct, Wang et al. 2023, arXiv:2212.10560).

    model = open_language_model("smollm2-135m")
    self_instruct(model, SelfInstructConfig(seeds="seed_tasks.jsonl", target=1000, out="runs/instructions"))

docs/instruction-data.md tells the four steps and what the report means.
"""

from accord.data.self_instruct.config import SelfInstructConfig
from accord.data.self_instruct.job import self_instruct
from accord.data.self_instruct.seeds import Instance, Seed, read_seeds

__all__ = ["Instance", "Seed", "SelfInstructConfig", "read_seeds", "self_instruct"]
