"""Where gpt-2-simple's functions lay: `from gpt_2_simple import gpt_2`."""

from gpt2kit.simple import *  # noqa: F403
