"""The released models and every name they have gone by."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True)
class KnownModel:
    """One released model."""

    name: str
    """OpenAI's name, and the directory it is kept in."""
    hub_id: str
    aliases: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """Every name it answers to."""
        short = self.hub_id.rpartition("/")[2]
        return (self.name, short, self.hub_id, f"hf:{self.hub_id}", *self.aliases)


# The first parameter counts were wrong: 117M became 124M, 345M became 355M; 762M and 1.5B are press names.
KNOWN_MODELS = (
    KnownModel("124M", "openai-community/gpt2", ("117M",)),
    KnownModel("355M", "openai-community/gpt2-medium", ("345M",)),
    KnownModel("774M", "openai-community/gpt2-large", ("762M",)),
    KnownModel("1558M", "openai-community/gpt2-xl", ("1.5B", "1542M")),
    KnownModel("distilgpt2", "distilbert/distilgpt2"),
)


def find(name: str) -> KnownModel | None:
    """The model that answers to `name`."""
    return next((model for model in KNOWN_MODELS if name in model.names()), None)


def suggestion(name: str) -> str | None:
    """The known name nearest to `name`, if any is near."""
    near = get_close_matches(name, [known for model in KNOWN_MODELS for known in model.names()], n=1)
    return near[0] if near else None
