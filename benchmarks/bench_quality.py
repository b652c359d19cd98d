"""What int8 and int4 cost in perplexity, on models that were really trained; llama.cpp's Q8_0 and Q4_0 beside them.

llama.cpp's weights come from its own quantiser, are read back by its own package `gguf`, and are judged by the same
fp32 engine: only the weights differ, in its favour, for it rounds what they are multiplied with as well.
Then fp32's greedy choices are held against one pass of the reference engine over the text that came of them.

    bench_quality.py train wide|narrow     learns the model; the wide one takes some 40 minutes on two cores
    bench_quality.py measure [NAME...]     after that
    bench_quality.py parts NAME            how much of the divergence comes of which matrices in 4 or 6 bits
Needs ../shared/data, and what bench_native.py builds of llama.cpp.
"""

from __future__ import annotations

import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from peers.build import PEERS, gguf, llama_source, made
from turns import heading

import gpt2kit
from gpt2kit import _native
from gpt2kit.checkpoint import TOKENIZER_FILES, Checkpoint, LazyTensor
from gpt2kit.config.model import Size
from gpt2kit.config.training import TrainingConfig
from gpt2kit.evaluation.perplexity import evaluate_text
from gpt2kit.formats import gguf as gguf_format
from gpt2kit.formats import huggingface
from gpt2kit.generate.engine import Row
from gpt2kit.generate.generator import Generator
from gpt2kit.generate.native_engine import NativeEngine
from gpt2kit.generate.reference import ReferenceEngine
from gpt2kit.jobs.learn_vocabulary import learn
from gpt2kit.model.initial import initial_checkpoint
from gpt2kit.progress import Progress, silent
from gpt2kit.tokenizer.open import open_tokenizer

DATA = Path(__file__).parents[2] / "shared" / "data"
PLACE = PEERS.parent / "quality"


@dataclass(frozen=True)
class Recipe:
    """How a model is made."""

    size: Size
    steps: int
    batch: int
    vocabulary: int
    """So many tokens, learnt of the same text."""
    code: bool = True
    """Whether Python's standard library is learnt beside English."""


RECIPES = {
    "wide": Recipe(Size(384, 6, 6, 512), 500, 8, vocabulary=8192),
    "narrow": Recipe(Size(256, 4, 4, 256), 300, 16, vocabulary=2048, code=False),
}
ENGLISH = (DATA / "wikitext-2.test.txt", DATA / "tinyshakespeare" / "input.txt")
ENGLISH_EPOCHS = 3  # for each of the code, of which there is more
HELD_OUT = 20  # one in so many files of Python's library, and so large a part of the English
PROMPTS, PROMPT, MARGIN = 10, 24, 1e-3
COMPARED, PIECE = 10_240, 256  # tokens whose predictions are held against each other, and so many at once


def main() -> None:
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2])
        return
    if sys.argv[1:2] == ["parts"]:
        heading("divergence where only these matrices are rounded, in nats")
        parts(sys.argv[2])
        return
    heading("perplexity of rounded weights on held-out text, trained models")
    for name in sys.argv[2:] or RECIPES:
        measure(name, "".join(held_out(RECIPES[name])))


def train(name: str) -> None:
    recipe, texts = RECIPES[name], PLACE / f"{name}-text"
    texts.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(learnt(recipe)):
        (texts / f"{number}.txt").write_text(part, "utf-8")
    home = PLACE / f"{name}-vocabulary"
    learn([texts], recipe.vocabulary, home)
    files = {file.name: file.read_bytes() for file in home.iterdir() if file.name in TOKENIZER_FILES}
    begin = PLACE / f"{name}-begin"
    if not begin.exists():
        config = recipe.size.config(open_tokenizer(files, str(home)).vocab_size)
        huggingface.write(initial_checkpoint(config, files, 0), begin, silent)
    training = TrainingConfig(
        steps=recipe.steps,
        batch_size=recipe.batch,
        accumulate=1,
        optimizer="muon",
        learning_rate=1e-3,
        final_rate=0.0,
        warmup_steps=50,
        precision="auto",
        validate_every=200,
        validation_windows=20,
        save_every=200,
        sample_every=0,
    )
    report = say(time.perf_counter())
    gpt2kit.finetune([texts], begin, run_name=name, runs=PLACE, training=training, device="cpu", report=report)


def learnt(recipe: Recipe) -> Iterator[str]:
    for file in ENGLISH:
        text = file.read_text("utf-8")
        yield from [text[: -len(text) // HELD_OUT]] * ENGLISH_EPOCHS
    if recipe.code:
        yield from (text for number, text in enumerate(library()) if number % HELD_OUT)


def held_out(recipe: Recipe) -> Iterator[str]:
    for file in ENGLISH:
        text = file.read_text("utf-8")
        yield text[-len(text) // HELD_OUT :]
    if recipe.code:
        yield "".join(text for number, text in enumerate(library()) if number % HELD_OUT == 0)[:100_000]


def library() -> Iterator[str]:
    """Python's own sources, in an order that is always the same."""
    for file in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" not in file.parts:
            yield file.read_text("utf-8", errors="replace")


def say(started: float) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        seconds = time.perf_counter() - started
        print(f"  {seconds:5.0f} s  {progress.done}/{progress.total}  {dict(progress.values)}", flush=True)

    return report


# --- measuring ---


def measure(name: str, text: str) -> None:
    checkpoint = gpt2kit.open_checkpoint(PLACE / name)
    print(f"{name}: {checkpoint.parameter_count() / 1e6:.0f} M parameters, step {checkpoint.step}")
    exact = perplexity(checkpoint, "fp32", text)
    print(f"  fp32: perplexity {exact:.4f}")

    def tell(kind: str, rounded: Checkpoint, precision: str, size_bytes: int) -> None:
        cost = perplexity(rounded, precision, text) / exact - 1
        nats, chance = divergence(checkpoint, rounded, precision, text)
        print(
            f"  {kind}: perplexity {cost:+.4%} ± {chance:.4%}, divergence {nats:.6f} nats; {size_bytes / 1e6:.2f} MB",
            flush=True,
        )

    for precision in ("bf16", "int8", "int4"):
        tell(precision, checkpoint, precision, packed_bytes(checkpoint, precision))
    model = PLACE / f"{name}-whole"
    made(PEERS / "models" / model.name / "F32.gguf", lambda part: gguf_format.write(checkpoint, part, silent))
    for kind in ("Q8_0", "Q4_0"):
        theirs, size_bytes = rounded(checkpoint, gguf(model, kind))
        tell(f"llama.cpp {kind}", theirs, "fp32", size_bytes)
    greedy(checkpoint, text)


def parts(name: str) -> None:
    checkpoint, text = gpt2kit.open_checkpoint(PLACE / name), "".join(held_out(RECIPES[name]))
    matrices = [each for each, tensor in checkpoint.tensors.items() if len(tensor.shape) == 2 and each.startswith("h.")]
    layers = {f"int4, layer {layer}": f"h.{layer}." for layer in range(checkpoint.config.layers)}
    chosen = {"int6, the head": ["wte.weight"], "int4, the head": ["wte.weight"], "int4, all layers": matrices}
    chosen |= {what: [each for each in matrices if each.startswith(begin)] for what, begin in layers.items()}
    chosen |= {f"int4, {each}": [each] for each in matrices if each.startswith("h.0.")}
    for what, names in chosen.items():
        tensors = {**checkpoint.tensors} | {each: as_packed(checkpoint.tensors[each], what[:4]) for each in names}
        nats, _ = divergence(checkpoint, replace(checkpoint, tensors=tensors, origin="rounded"), "fp32", text)
        print(f"  {what}: {nats:.6f}", flush=True)


def as_packed(tensor: LazyTensor, format: str) -> LazyTensor:
    """What the weights are once they have been packed."""
    is_embedding = tensor.name == "wte.weight"
    values_OI = np.ascontiguousarray(tensor.read_float32() if is_embedding else tensor.read_float32().T)
    packed = np.empty(_native.packed_bytes(format, *values_OI.shape), np.uint8)
    _native.pack(format, values_OI, packed, 1)
    rounded_OI = np.empty_like(values_OI)
    _native.unpack(format, packed, *values_OI.shape, rounded_OI)
    return LazyTensor(tensor.name, "float32", tensor.shape, lambda: rounded_OI if is_embedding else rounded_OI.T)


def divergence(exact: Checkpoint, rounded: Checkpoint, precision: str, text: str) -> tuple[float, float]:
    """How far the predictions are apart, Kullback-Leibler, a token: unlike perplexity it cannot fall by luck.

    And the standard error of the difference in perplexity over the whole text, for the luck of which tokens come.
    """
    whole = open_tokenizer(exact.tokenizer_files, exact.origin).encode(text)
    ids = whole[:COMPARED]
    engines = NativeEngine(exact, 1, "fp32"), NativeEngine(rounded, 1, precision)
    total, differences = 0.0, []
    for begin in range(0, len(ids), PIECE):
        logprobs_TV = []
        for engine in engines:
            engine.truncate(0, 0)
            logits_TV = engine.step([Row(0, ids[begin : begin + PIECE], "all")]).astype(np.float64)
            logits_TV -= logits_TV.max(axis=1, keepdims=True)
            logprobs_TV.append(logits_TV - np.log(np.exp(logits_TV).sum(axis=1, keepdims=True)))
        total += float((np.exp(logprobs_TV[0]) * (logprobs_TV[0] - logprobs_TV[1])).sum())
        next_ids = ids[begin + 1 : begin + PIECE]
        differences.append((logprobs_TV[0] - logprobs_TV[1])[range(len(next_ids)), next_ids])
    return total / len(ids), float(np.concatenate(differences).std() / np.sqrt(len(whole)))


def perplexity(checkpoint: Checkpoint, precision: str, text: str) -> float:
    tokenizer = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin)
    with Generator(checkpoint, tokenizer, NativeEngine(checkpoint, 1, precision)) as generator:
        return evaluate_text(generator, text).perplexity


def packed_bytes(checkpoint: Checkpoint, precision: str) -> int:
    """What all matrices take, the positions in fp32."""
    return NativeEngine(checkpoint, 1, precision).weight_bytes + 4 * checkpoint.config.window * checkpoint.config.width


# Where llama.cpp keeps what we call so. Its matrices stand as [out, in].
NAMES = {
    "token_embd": "wte",
    "position_embd": "wpe",
    "output_norm": "ln_f",
    "blk": "h",
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


def rounded(checkpoint: Checkpoint, file: Path) -> tuple[Checkpoint, int]:
    """The model with the weights that this file holds, and how many bytes they take in it."""
    sys.path.append(str(llama_source() / "vendor" / "llama.cpp" / "gguf-py"))
    from gguf import GGUFReader, dequantize

    tensors, size = {}, 0
    for tensor in GGUFReader(file).tensors:
        name = ".".join(NAMES.get(part, part) for part in tensor.name.split("."))
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)
        if values.ndim == 2 and not name.startswith(("wte", "wpe")):
            values = values.T
        tensors[name] = LazyTensor(name, "float32", values.shape, partial(np.asarray, values))
        size += tensor.n_bytes
    assert set(tensors) == set(checkpoint.tensors), f"{file} holds other tensors"
    return replace(checkpoint, tensors=tensors, origin=str(file)), size


def greedy(checkpoint: Checkpoint, text: str) -> None:
    """Ten texts to the end of the window, each choice held against the reference's in one pass over the whole text."""
    ids = open_tokenizer(checkpoint.tokenizer_files, checkpoint.origin).encode(text)
    engine, judge = NativeEngine(checkpoint, 1, "fp32"), ReferenceEngine(checkpoint, 1)
    chosen = doubtful = other = 0
    for number in range(PROMPTS):
        begin = number * len(ids) // PROMPTS
        written = ids[begin : begin + PROMPT]
        engine.truncate(0, 0)
        logits_RV = engine.step([Row(0, written, "last")])
        while len(written) < checkpoint.config.window:
            written.append(int(logits_RV[0].argmax()))
            logits_RV = engine.step([Row(0, written[-1:], "last")])
        judge.truncate(0, 0)
        judged_TV = judge.step([Row(0, written[:-1], "all")])[PROMPT - 1 :]
        best_T2 = np.sort(judged_TV, axis=1)[:, -2:]
        clear_T = best_T2[:, 1] - best_T2[:, 0] > MARGIN
        differs_T = judged_TV.argmax(axis=1) != written[PROMPT:]
        chosen += differs_T.size
        doubtful += int((~clear_T).sum())
        other += int((differs_T & clear_T).sum())
    print(f"  fp32 greedy, {PROMPTS} texts of {checkpoint.config.window} tokens: {chosen} choices,", end=" ")
    print(f"{other} unlike the reference's, {doubtful} not counted for a margin of at most {MARGIN}", flush=True)


if __name__ == "__main__":
    main()
