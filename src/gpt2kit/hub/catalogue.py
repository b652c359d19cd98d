"""The released models, every name they have gone by, and what is known of their files.

Sizes and hashes are those of the files in OpenAI's store. The two vocabulary files are the same for every size, and
tiktoken pins their hashes too. Where a hash is not known, the checksums in model.ckpt.index vouch for the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

MODELS = Path("models")  # where downloads go, and names are looked for


@dataclass(frozen=True)
class KnownFile:
    """One file of a release, and what is known of its bytes."""

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class KnownModel:
    """One released model."""

    name: str
    """OpenAI's name, and the directory it is kept in."""
    hub_id: str
    aliases: tuple[str, ...] = ()
    parameters: int | None = None
    files: tuple[KnownFile, ...] = ()
    """What OpenAI's store holds, in the order of their program; nothing where the model is only on the hub."""

    def names(self) -> tuple[str, ...]:
        """Every name it answers to."""
        short = self.hub_id.rpartition("/")[2]
        return (self.name, short, self.hub_id, f"hf:{self.hub_id}", *self.aliases)


def _files(parameters: int, hparams: KnownFile, **known: tuple[int, str | None]) -> tuple[KnownFile, ...]:
    """The seven files; of `checkpoint`, `weights`, `index` and `meta` what is known: size, sha256."""
    unknown = (None, None)
    return (
        KnownFile("checkpoint", *known.get("checkpoint", unknown)),
        KnownFile("encoder.json", 1_042_301, "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"),
        hparams,
        KnownFile("model.ckpt.data-00000-of-00001", *known.get("weights", (4 * parameters, None))),
        KnownFile("model.ckpt.index", *known.get("index", unknown)),
        KnownFile("model.ckpt.meta", *known.get("meta", unknown)),
        KnownFile("vocab.bpe", 456_318, "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"),
    )


_CHECKPOINT = (77, "dd1b025d2e155283f5e300ce95bf6d5b6bc0f7fe010db73daa6975eb896ab9cb")

# The first parameter counts were wrong: 117M became 124M, 345M became 355M; 762M and 1.5B are press names.
KNOWN_MODELS = (
    KnownModel(
        "124M",
        "openai-community/gpt2",
        ("117M",),
        124_439_808,
        _files(
            124_439_808,
            KnownFile("hparams.json", 90, "d9d56e4121c427164e0c55c6f03c08e1daf9002b9b672825112d19097b680318"),
            checkpoint=_CHECKPOINT,
            weights=(497_759_232, "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118"),
            index=(5_215, "71916f763f9746f9b2a06b12d91996cf1084ae008d0424543d39391c5f2dc687"),
            meta=(471_155, None),
        ),
    ),
    KnownModel(
        "355M",
        "openai-community/gpt2-medium",
        ("345M",),
        354_823_168,
        _files(
            354_823_168,
            KnownFile("hparams.json", 91, "310dfdb1f0c786b79d93459eaa470f3978d873bdc3e1f9fed1cad24d9dd0b1f6"),
            checkpoint=_CHECKPOINT,
            index=(10_399, "4490e7b1f5ec0abfc1e111fcd27cdda7cb280c597ba0a885c364134e62ce43aa"),
            meta=(926_519, None),
        ),
    ),
    KnownModel(
        "774M",
        "openai-community/gpt2-large",
        ("762M",),
        774_030_080,
        _files(774_030_080, KnownFile("hparams.json")),
    ),
    KnownModel(
        "1558M",
        "openai-community/gpt2-xl",
        ("1.5B", "1542M"),
        1_557_611_200,
        _files(1_557_611_200, KnownFile("hparams.json")),
    ),
    KnownModel("distilgpt2", "distilbert/distilgpt2", parameters=81_912_576),
)


def find(name: str, catalogue: Sequence[KnownModel] = KNOWN_MODELS) -> KnownModel | None:
    """The model that answers to `name`."""
    return next((model for model in catalogue if name in model.names()), None)


def suggestion(name: str, catalogue: Sequence[KnownModel] = KNOWN_MODELS) -> str | None:
    """The known name nearest to `name`, if any is near."""
    near = get_close_matches(name, [known for model in catalogue for known in model.names()], n=1)
    return near[0] if near else None
