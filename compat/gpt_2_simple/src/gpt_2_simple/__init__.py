"""gpt-2-simple's functions, on gpt2kit: scripts that `import gpt_2_simple as gpt2` run as they are."""

from gpt2kit.simple import *  # noqa: F403
from gpt2kit.simple import __all__ as __all__

from . import gpt_2 as gpt_2
