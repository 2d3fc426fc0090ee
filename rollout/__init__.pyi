from .pipeline import RolloutPipeline as RolloutPipeline
from .prompts import PromptError as PromptError
from .prompts import load_prompts as load_prompts
from .recorder import RolloutRecorder as RolloutRecorder
from .records import read_rollouts as read_rollouts
from .seeds import completion_seed as completion_seed
from .seeds import noise_seed as noise_seed
from .types import Completion as Completion
from .types import Discarded as Discarded
from .types import Prompt as Prompt
from .types import Rollout as Rollout
from .types import RolloutBatch as RolloutBatch
from .types import RolloutError as RolloutError
from .types import RolloutGroup as RolloutGroup

__all__ = [
    "Completion",
    "Discarded",
    "Prompt",
    "PromptError",
    "Rollout",
    "RolloutBatch",
    "RolloutError",
    "RolloutGroup",
    "RolloutPipeline",
    "RolloutRecorder",
    "completion_seed",
    "load_prompts",
    "noise_seed",
    "read_rollouts",
]
