// Products by tiles of AMX: 16 tokens with 16 outputs at once. Panels lie as tiles want them already.
//
// Whole numbers give the same bits as VNNI's products, so one token or a few may take those. Sums of bfloat16 products
// are rounded in another order, so there tiles do all.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "exponential.hpp"
#include "matmul.hpp"
#include "simd_avx512.hpp"

namespace gpt2kit {

constexpr int TILE = 16;               // tokens, or outputs
constexpr int TILES = PANEL / TILE;    // of a panel
constexpr int FEW_FOR_TILES = 4;       // tokens that VNNI multiplies as fast
constexpr int PAIRS_STEP = PANEL * 4;  // bytes between the weights of a tile's rows

// Tiles 0..3 hold sums of `tokens` rows, 4 the inputs, 5 weights. They are this thread's until it goes.
class Tiles {
public:
    explicit Tiles(int tokens) { take(tokens); }
    ~Tiles() { _tile_release(); }

    void take(int tokens) {
        if (tokens == tokens_) return;
        tokens_ = tokens;
        alignas(CACHE_LINE) struct {
            std::uint8_t palette = 1, begin = 0, reserved[14] = {};
            std::uint16_t row_bytes[16] = {};
            std::uint8_t rows[16] = {};
        } settings;
        for (int tile = 0; tile < 6; ++tile) {
            settings.row_bytes[tile] = 64;
            settings.rows[tile] = static_cast<std::uint8_t>(tile < 5 ? tokens : TILE);
        }
        asm volatile("" : : "r"(&settings) : "memory");  // GCC 12 would drop the stores
        _tile_loadconfig(&settings);
    }

private:
    int tokens_ = 0;
};

#define GPT2KIT_FOR_TILES(DO) DO(0) DO(1) DO(2) DO(3)

// Sums of `count` tokens of a panel, in floats.
inline void multiply_tiles_bf16(const std::uint8_t* panel, const Inputs& inputs, std::size_t token, float (*sums)[PANEL]) {
    const std::uint16_t* x = inputs.bf16 + token * inputs.width;
#define ZERO(V) _tile_zero(V);
#define ADD(V)                                                         \
    _tile_loadd(5, panel + (V) * 64, PAIRS_STEP);                      \
    _tile_dpbf16ps(V, 4, 5);
#define STORE(V) _tile_stored(V, sums[0] + (V) * TILE, PANEL * sizeof(float));
    GPT2KIT_FOR_TILES(ZERO)
    for (std::size_t column = 0; column < inputs.width; column += 32, panel += 16 * PAIRS_STEP) {
        _tile_loadd(4, x + column, inputs.width * sizeof(std::uint16_t));
        GPT2KIT_FOR_TILES(ADD)
    }
    GPT2KIT_FOR_TILES(STORE)
#undef ADD
#undef STORE
}

inline void multiply_tiles_int8(int count, const std::uint8_t* panel, const Inputs& inputs, std::size_t token, float (*sums)[PANEL]) {
    alignas(CACHE_LINE) std::int32_t numbers[TILE][PANEL];
    std::memset(sums, 0, count * sizeof *sums);
#define ADD(V)                                                         \
    _tile_loadd(5, weights + (V) * 64, PAIRS_STEP);                    \
    _tile_dpbsud(V, 4, 5);
#define STORE(V) _tile_stored(V, numbers[0] + (V) * TILE, PANEL * sizeof(std::int32_t));
    for (std::size_t group = 0; group < inputs.groups(); ++group) {
        const auto* scales = reinterpret_cast<const std::uint16_t*>(panel);
        const std::uint8_t* weights = panel + PANEL * 2;
        panel += PANEL * 2 + PANEL * INT8_GROUP;
        GPT2KIT_FOR_TILES(ZERO)
        _tile_loadd(4, inputs.bytes + token * inputs.width + group * INT8_GROUP, inputs.width);
        GPT2KIT_FOR_TILES(ADD)
        GPT2KIT_FOR_TILES(STORE)
        __m512 scale[TILES];
        for (int v = 0; v < TILES; ++v) scale[v] = Avx512::load_half(scales + v * TILE);
        for (int t = 0; t < count; ++t) {
            const std::size_t place = (token + t) * inputs.groups() + group;
            const __m512i offset = Avx512::begin_int8(inputs.sums[place]);
            const __m512 input_scale = _mm512_set1_ps(inputs.scales[place]);
            for (int v = 0; v < TILES; ++v) {
                const __m512i exact = _mm512_add_epi32(_mm512_load_si512(numbers[t] + v * TILE), offset);
                float* sum = sums[t] + v * TILE;
                const __m512 both = _mm512_mul_ps(scale[v], input_scale);
                _mm512_storeu_ps(sum, _mm512_fmadd_ps(_mm512_cvtepi32_ps(exact), both, _mm512_loadu_ps(sum)));
            }
        }
    }
#undef ZERO
#undef ADD
#undef STORE
}

struct Amx : Avx512Bf16 {};

template <>
struct Doubles<Amx> : Doubles<Avx512> {};

template <>
inline void multiply<Amx>(const Matrix& matrix, Share panels, const Inputs& inputs, int tokens, const Output& output) {
    const bool by_tiles = matrix.format == Format::bf16 || (matrix.format == Format::int8 && tokens > FEW_FOR_TILES);
    if (!by_tiles) return multiply_by_vectors<Amx>(matrix, panels, inputs, tokens, output);
    alignas(CACHE_LINE) float sums[TILE][PANEL];
    Tiles tiles(std::min(TILE, tokens));
    for (int panel = panels.begin; panel < panels.end; ++panel)
        for (int token = 0; token < tokens; token += TILE) {
            const int count = std::min(TILE, tokens - token);
            tiles.take(count);
            if (matrix.format == Format::bf16) multiply_tiles_bf16(matrix.panel(panel), inputs, token, sums);
            else multiply_tiles_int8(count, matrix.panel(panel), inputs, token, sums);
            for (int t = 0; t < count; ++t) finish<Amx>(sums[t], matrix.bias + panel * PANEL, panel, token + t, output);
        }
}

}  // namespace gpt2kit
