"""The old programs by name. None is imported before it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import PurePath


@dataclass(frozen=True)
class Program:
    """Where an old program's call line is answered."""

    module: str
    function: str
    """Takes the words behind the program's name, returns the exit status."""
    summary: str

    def __call__(self, words: Sequence[str]) -> int:
        """Run it. Exits as argparse does where the words are wrong."""
        status: int = getattr(import_module(f"gpt2kit.legacy.{self.module}"), self.function)(list(words))
        return status


PROGRAMS = {
    "download_model.py": Program("openai", "download_model", "get a released model (OpenAI)"),
    "generate_unconditional_samples.py": Program(
        "openai", "generate_unconditional_samples", "write samples from nothing (OpenAI)"
    ),
    "interactive_conditional_samples.py": Program(
        "openai", "interactive_conditional_samples", "continue what is typed (OpenAI)"
    ),
    "encode.py": Program("nshepperd", "encode", "encode texts into an .npz (nshepperd)"),
    "train.py": Program("nshepperd", "train", "fine-tune a model (nshepperd)"),
    "demo.py": Program("gpt2_ml", "demo", "continue what is typed, in Chinese (GPT2-ML)"),
    "gpt_2_simple": Program("gpt_2_simple_command", "main", "fine-tune a model, or write with it (Max Woolf)"),
    "pytorch_pretrained_bert": Program(
        "pytorch_pretrained_bert", "main", "its convert_gpt2_checkpoint, TensorFlow to PyTorch (Hugging Face)"
    ),
    "convert_gpt2_checkpoint": Program(
        "pytorch_pretrained_bert", "convert_gpt2_checkpoint", "the same, without the word before it"
    ),
    "convert_gpt2_checkpoint_to_pytorch.py": Program(
        "pytorch_pretrained_bert", "convert_gpt2_checkpoint_to_pytorch", "the same, with flags"
    ),
    "convert_gpt2_original_tf_checkpoint_to_pytorch.py": Program(
        "pytorch_pretrained_bert", "convert_gpt2_checkpoint_to_pytorch", "its name in transformers"
    ),
}


def named(name: str) -> Program | None:
    """The program that was called `name`: with its path or without, with .py or without."""
    wanted = PurePath(name).name.removesuffix(".py")
    return next((program for known, program in PROGRAMS.items() if known.removesuffix(".py") == wanted), None)


def near(name: str) -> str | None:
    """The program with the name nearest to `name`, if any is near."""
    close = get_close_matches(PurePath(name).name, PROGRAMS, n=1)
    return close[0] if close else None
