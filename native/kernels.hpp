// What an instruction set has to bring: one table of functions for each, made of the same templates.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format.hpp"
#include "isa.hpp"
#include "team.hpp"

namespace gpt2kit {

enum class Activation { none, gelu_tanh, gelu_exact, relu };

// How a product reads its inputs: the weights' format decides, and whether there is an instruction for bfloat16.
enum class Reading { floats, bf16, bytes64, bytes32 };

// The inputs of a product: one row a token, filled up with zeros; only the arrays of its reading are there.
struct Inputs {
    Reading reading = Reading::floats;
    std::size_t width = 0;  // filled up
    float* floats = nullptr;
    std::uint16_t* bf16 = nullptr;
    std::int8_t* bytes = nullptr;
    float* scales = nullptr;       // of every 32 or 64 bytes: value = byte * scale
    std::int32_t* sums = nullptr;  // of the same bytes

    std::size_t group() const { return reading == Reading::bytes32 ? 32 : 64; }
    std::size_t groups() const { return width / group(); }
};

// Where the 64 outputs of a panel go, token by token: they pass the activation, and then
struct Output {
    Activation activation = Activation::none;
    float* floats = nullptr;  // are stored here, `step` floats a token,
    std::size_t step = 0;
    bool added = false;              // or are added to what is there;
    const Inputs* inputs = nullptr;  // or become these.
};

// Attention of the new ids of one row, in one head.
struct Attention {
    const float* qkv = nullptr;  // of the row's first new token: queries, keys, values of all heads; `step` floats a token
    std::size_t step = 0;
    int width = 0, head_width = 0, head = 0;
    float scale = 0;
    int held = 0, fresh = 0;  // ids in the cache, and new ones
    // Of this slot, layer and head: keys in blocks of 16 positions, [block][number][16]; values [position][filled width]
    void* keys = nullptr;
    void* values = nullptr;
    bool bf16_cache = false;
    float* scores = nullptr;  // room for `queries` times the window filled up to blocks
    std::size_t scores_step = 0;
    float* out = nullptr;  // of the row's first new token; `out_step` floats a token
    std::size_t out_step = 0;
};

constexpr int KEY_BLOCK = 16;

struct Kernels {
    Isa isa;
    Reading (*reading)(Format);
    // outputs = matrix * inputs + bias, for the panels of a share and `tokens` tokens
    void (*multiply)(const Matrix&, Share panels, const Inputs&, int tokens, const Output&);
    // 64 floats become part of a token's inputs
    void (*prepare)(const Inputs&, std::size_t token, std::size_t column, const float* values);
    // layer norm of `width` floats, which become a token's inputs; gain and bias are filled up with zeros
    void (*norm)(const float* x, int width, const float* gain, const float* bias, float epsilon, const Inputs&, std::size_t token);
    void (*attend)(const Attention&);
    // Of a row of logits: the highest, NaN if one is; and the sum of e^(logit - highest)
    float (*highest)(const float*, std::size_t size);
    double (*sum_of_exponentials)(const float*, std::size_t size, float top);
    // The weights that a token is drawn by: e^((logit - top) / temperature), as doubles
    void (*exponentials)(const float* logits, std::size_t size, double top, double temperature, double* weights);
    int queries;  // that `attend` takes at once
};

const Kernels& kernels_of(Isa isa);

}  // namespace gpt2kit
