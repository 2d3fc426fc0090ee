from . import configs as configs
from . import policies as policies
from . import rewards as rewards
from . import rollout as rollout
from .api import __version__ as __version__
from .api import ablate as ablate
from .api import benchmark as benchmark
from .api import compare_steps as compare_steps
from .api import evaluate as evaluate
from .api import load_recipe as load_recipe
from .api import load_study as load_study
from .api import load_warmstart as load_warmstart
from .api import make_card as make_card
from .api import plan as plan
from .api import read_suite as read_suite
from .api import rescore as rescore
from .api import sample as sample
from .api import train as train
from .api import verify_card as verify_card
from .api import warm_start as warm_start
from .api import write_report as write_report
from .card.card import Card as Card
from .card.verify import CardCheck as CardCheck
from .configs import ConfigError as ConfigError
from .configs import RunConfig as RunConfig
from .configs import WarmstartConfig as WarmstartConfig
from .evaluation.benchmark_result import BenchmarkReport as BenchmarkReport
from .evaluation.suites import SuiteResult as SuiteResult
from .policies import BLIP3oNext as BLIP3oNext
from .policies import CheckpointError as CheckpointError
from .reading.result import ReadingReport as ReadingReport
from .result import TrainingResult as TrainingResult
from .rewards import CheckedReward as CheckedReward
from .rewards import Reward as Reward
from .rewards import RewardBase as RewardBase
from .rewards import RewardBatch as RewardBatch
from .rewards import RewardError as RewardError
from .rewards import available_rewards as available_rewards
from .rewards import check_reward as check_reward
from .rewards import group_reward as group_reward
from .rollout import Prompt as Prompt
from .rollout import PromptError as PromptError
from .rollout import RolloutError as RolloutError
from .rollout import load_prompts as load_prompts
from .run.locks import RunFolderInUseError as RunFolderInUseError
from .run.stopping import RunStopped as RunStopped
from .warmstart import WarmstartResult as WarmstartResult

__all__ = [
    "BLIP3oNext",
    "BenchmarkReport",
    "Card",
    "CardCheck",
    "CheckedReward",
    "CheckpointError",
    "ConfigError",
    "Prompt",
    "PromptError",
    "ReadingReport",
    "Reward",
    "RewardBase",
    "RewardBatch",
    "RewardError",
    "RolloutError",
    "RunConfig",
    "RunFolderInUseError",
    "RunStopped",
    "SuiteResult",
    "TrainingResult",
    "WarmstartConfig",
    "WarmstartResult",
    "__version__",
    "ablate",
    "available_rewards",
    "benchmark",
    "check_reward",
    "compare_steps",
    "configs",
    "evaluate",
    "group_reward",
    "load_prompts",
    "load_recipe",
    "load_study",
    "load_warmstart",
    "make_card",
    "plan",
    "policies",
    "read_suite",
    "rescore",
    "rewards",
    "rollout",
    "sample",
    "train",
    "verify_card",
    "warm_start",
    "write_report",
]
