from .faults import FaultsSection as FaultsSection
from .loader import DEFAULT_RECIPE as DEFAULT_RECIPE
from .loader import ConfigError as ConfigError
from .loader import differing_keys as differing_keys
from .loader import dump_config as dump_config
from .loader import expand_user as expand_user
from .loader import load_run_config as load_run_config
from .loader import load_warmstart_config as load_warmstart_config
from .loader import read_yaml as read_yaml
from .loader import whole_path as whole_path
from .schema import RewardSection as RewardSection
from .schema import RunConfig as RunConfig
from .schema import WarningsSection as WarningsSection
from .shipped import STUDIES as STUDIES
from .shipped import find_recipe as find_recipe
from .warmstart import WarmstartConfig as WarmstartConfig

__all__ = [
    "ConfigError",
    "DEFAULT_RECIPE",
    "FaultsSection",
    "RewardSection",
    "RunConfig",
    "STUDIES",
    "WarmstartConfig",
    "WarningsSection",
    "differing_keys",
    "dump_config",
    "expand_user",
    "find_recipe",
    "load_run_config",
    "load_warmstart_config",
    "read_yaml",
    "whole_path",
]
