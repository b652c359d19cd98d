"""GPT-2 as a graph of ONNX's operators: ids and the keys and values of earlier positions in, logits and all keys out.

Names of inputs and outputs are those of optimum's exports:
    input_ids, position_ids [B, T] and attention_mask [B, S], int64; the mask is 0 where a row has no token
    past_key_values.N.key, past_key_values.N.value [B, H, P, K], float32; P may be 0
    logits [B, T, V]   present.N.key, present.N.value [B, H, S, K]: the past, and what is new
All is computed in float32. Weights of 16 bits are widened where they are used: onnxruntime does so once, as it loads.
Shape letters: B batch   T new positions   P past positions   S all of them, P + T   D width   H heads   K head width
    I inner width   V vocabulary
"""

from __future__ import annotations

from collections.abc import Set
from importlib.util import find_spec
from typing import Any

import numpy as np

from gpt2kit.config.model import ModelConfig
from gpt2kit.errors import MissingExtra
from gpt2kit.formats.state_dict import HEAD

OPERATORS = 18  # the set of operators that optimum takes; onnxruntime knows it since 1.14
LAYOUT = 8  # the version of onnx.proto that goes with it
BATCH, NEW, PAST, ALL = (
    "batch_size",
    "sequence_length",
    "past_sequence_length",
    "past_sequence_length + sequence_length",
)
FLOAT, BOOL = 1, 9  # TensorProto's
HIDDEN = float(np.finfo(np.float32).min)  # the score of what may not be looked at; finite, so that no row becomes NaN


def require_onnx(purpose: str) -> None:
    """Raise MissingExtra where onnx is not installed."""
    if find_spec("onnx") is None:
        raise MissingExtra(purpose, "onnx")


def gpt2_graph(config: ModelConfig, narrow: Set[str] = frozenset()) -> tuple[bytes, bytes]:
    """The fields of a model but its graph, and those of its graph but the weights.

    Nodes know the weights by the names that transformers' GPT2LMHeadModel saves, in canonical shapes. Those in `narrow`
    are of 16 bits, and made float32 before they are used.
    """
    from onnx import ModelProto, TensorProto, helper

    nodes = _Nodes(narrow)
    _add_gpt2(nodes, config)
    past_BHPK, all_BHSK = ([BATCH, config.heads, length, config.head_width] for length in (PAST, ALL))
    kinds = [f"{layer}.{kind}" for layer in range(config.layers) for kind in ("key", "value")]

    def told(name: str, type: int, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, type, shape)

    inputs = [
        told("input_ids", TensorProto.INT64, [BATCH, NEW]),
        *(told(f"past_key_values.{kind}", TensorProto.FLOAT, past_BHPK) for kind in kinds),
        told("attention_mask", TensorProto.INT64, [BATCH, ALL]),
        told("position_ids", TensorProto.INT64, [BATCH, NEW]),
    ]
    outputs = [
        told("logits", TensorProto.FLOAT, [BATCH, NEW, config.vocab_size]),
        *(told(f"present.{kind}", TensorProto.FLOAT, all_BHSK) for kind in kinds),
    ]
    graph = helper.make_graph(nodes.made, "gpt2", inputs, outputs, list(nodes.constants.values()))
    model = ModelProto(ir_version=LAYOUT, producer_name="gpt2kit", opset_import=[helper.make_opsetid("", OPERATORS)])
    return model.SerializeToString(), graph.SerializeToString()


class _Nodes:
    """Nodes in the order of computing. Each call gives the name of what it makes."""

    def __init__(self, narrow: Set[str]) -> None:
        self.narrow, self.widened = narrow, dict[str, str]()
        self.made: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        name = output or f"{operator}_{len(self.made)}"
        self.made.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def weight(self, name: str) -> str:
        """The weight of this canonical name, in float32."""
        stored_name = name if name == HEAD else f"transformer.{name}"
        if stored_name not in self.narrow:
            return stored_name
        if name not in self.widened:
            self.widened[name] = self.add("Cast", stored_name, to=FLOAT)
        return self.widened[name]

    def constant(self, value: float | list[int]) -> str:
        """A float32, an int64, or a row of these."""
        from onnx import numpy_helper

        name = f"constant_{value}"
        values = np.array(value, np.float32 if isinstance(value, float) else np.int64)
        self.constants[name] = numpy_helper.from_array(values, name)
        return name


def _add_gpt2(nodes: _Nodes, config: ModelConfig) -> None:
    seen_B1TS = _seen(nodes)
    tokens_BTD = nodes.add("Gather", nodes.weight("wte.weight"), "input_ids")
    x_BTD = nodes.add("Add", tokens_BTD, nodes.add("Gather", nodes.weight("wpe.weight"), "position_ids"))
    for layer in range(config.layers):
        normal_BTD = _norm(nodes, config, x_BTD, f"h.{layer}.ln_1")
        x_BTD = nodes.add("Add", x_BTD, _attention(nodes, config, layer, normal_BTD, seen_B1TS))
        normal_BTD = _norm(nodes, config, x_BTD, f"h.{layer}.ln_2")
        x_BTD = nodes.add("Add", x_BTD, _mlp(nodes, config, layer, normal_BTD))
    _head(nodes, config, _norm(nodes, config, x_BTD, "ln_f"))


def _seen(nodes: _Nodes) -> str:
    """Which positions each new one may look at: itself and those before it, less those without a token."""
    new = nodes.add("Squeeze", nodes.add("Shape", "input_ids", start=1))
    past = nodes.add("Squeeze", nodes.add("Shape", "past_key_values.0.key", start=2, end=3))
    length = nodes.add("Add", past, new)
    all_S = nodes.add("Range", nodes.constant(0), length, nodes.constant(1))
    new_T = nodes.add("Range", past, length, nodes.constant(1))
    causal_TS = nodes.add("LessOrEqual", all_S, nodes.add("Unsqueeze", new_T, nodes.constant([1])))
    tokens_BS = nodes.add("Cast", "attention_mask", to=BOOL)
    return nodes.add("And", causal_TS, nodes.add("Unsqueeze", tokens_BS, nodes.constant([1, 2])))


def _attention(nodes: _Nodes, config: ModelConfig, layer: int, x_BTD: str, seen_B1TS: str) -> str:
    shape = nodes.constant([0, 0, 3, config.heads, config.head_width])  # 0 is as it was
    qkv_BT3HK = nodes.add("Reshape", _linear(nodes, x_BTD, f"h.{layer}.attn.c_attn"), shape)
    qkv_3BHTK = nodes.add("Transpose", qkv_BT3HK, perm=[2, 0, 3, 1, 4])
    q_BHTK, k_BHTK, v_BHTK = (nodes.add("Gather", qkv_3BHTK, nodes.constant(part)) for part in range(3))
    k_BHSK, v_BHSK = (
        nodes.add("Concat", f"past_key_values.{layer}.{kind}", new_BHTK, output=f"present.{layer}.{kind}", axis=2)
        for kind, new_BHTK in (("key", k_BHTK), ("value", v_BHTK))
    )
    q_BHTK = nodes.add("Mul", q_BHTK, nodes.constant(config.attention_scale(layer)))
    scores_BHTS = nodes.add("MatMul", q_BHTK, nodes.add("Transpose", k_BHSK, perm=[0, 1, 3, 2]))
    scores_BHTS = nodes.add("Where", seen_B1TS, scores_BHTS, nodes.constant(HIDDEN))
    y_BHTK = nodes.add("MatMul", nodes.add("Softmax", scores_BHTS, axis=-1), v_BHSK)
    y_BTHK = nodes.add("Transpose", y_BHTK, perm=[0, 2, 1, 3])
    y_BTD = nodes.add("Reshape", y_BTHK, nodes.constant([0, 0, config.width]))
    return _linear(nodes, y_BTD, f"h.{layer}.attn.c_proj")


def _mlp(nodes: _Nodes, config: ModelConfig, layer: int, x_BTD: str) -> str:
    inner_BTI = _linear(nodes, x_BTD, f"h.{layer}.mlp.c_fc")
    return _linear(nodes, _activated(nodes, config, inner_BTI), f"h.{layer}.mlp.c_proj")


def _activated(nodes: _Nodes, config: ModelConfig, x_BTI: str) -> str:
    if config.activation == "relu":
        return nodes.add("Relu", x_BTI)
    if config.activation == "gelu_exact":
        bent_BTI = nodes.add("Erf", nodes.add("Mul", x_BTI, nodes.constant(0.5**0.5)))
    else:  # the tanh form: Hendrycks and Gimpel 2016, section 2
        cube_BTI = nodes.add("Mul", nodes.add("Pow", x_BTI, nodes.constant(3.0)), nodes.constant(0.044715))
        sum_BTI = nodes.add("Add", x_BTI, cube_BTI)
        bent_BTI = nodes.add("Tanh", nodes.add("Mul", sum_BTI, nodes.constant((2 / np.pi) ** 0.5)))
    half_BTI = nodes.add("Mul", x_BTI, nodes.constant(0.5))
    return nodes.add("Mul", half_BTI, nodes.add("Add", bent_BTI, nodes.constant(1.0)))


def _head(nodes: _Nodes, config: ModelConfig, x_BTD: str) -> None:
    """The logits. Gemm takes the embedding as it lies; for MatMul it would be turned, a copy as large."""
    matrix_VD = nodes.weight("wte.weight" if config.tied_head else HEAD)
    logits_NV = nodes.add("Gemm", nodes.add("Flatten", x_BTD, axis=2), matrix_VD, transB=1)
    shape = nodes.add("Concat", nodes.add("Shape", "input_ids"), nodes.constant([config.vocab_size]), axis=0)
    nodes.add("Reshape", logits_NV, shape, output="logits")


def _linear(nodes: _Nodes, x_BTD: str, name: str) -> str:
    return nodes.add("Add", nodes.add("MatMul", x_BTD, nodes.weight(f"{name}.weight")), nodes.weight(f"{name}.bias"))


def _norm(nodes: _Nodes, config: ModelConfig, x_BTD: str, name: str) -> str:
    weights = (nodes.weight(f"{name}.{part}") for part in ("weight", "bias"))
    return nodes.add("LayerNormalization", x_BTD, *weights, axis=-1, epsilon=config.norm_epsilon)
