// Products of packed matrices with the inputs of some tokens.
//
// Every (token, output) has one accumulator and the same order of instructions however many tokens there are, so a
// token alone gives the same bits as in any batch.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels.hpp"
#include "pointwise.hpp"

namespace gpt2kit {

// A pass takes the weights of S::vectors * S::lanes rows, from `row` on, and the inputs of T tokens.
template <class S>
constexpr int PASS_ROWS = S::lanes * S::vectors;

template <class S, int T>
struct Sums {
    typename S::Float of[T][S::vectors];

    Sums() {
        GPT2KIT_UNROLLED for (int t = 0; t < T; ++t)
            GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) of[t][v] = S::set(0);
    }
    void store(float (*tile)[PANEL], int row) const {
        GPT2KIT_UNROLLED for (int t = 0; t < T; ++t)
            GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) S::store(tile[t] + row + v * S::lanes, of[t][v]);
    }
};

inline std::int32_t four_bytes(const std::int8_t* from) {
    std::int32_t bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return bytes;
}

struct Fp32 {
    template <class S>
    static constexpr int tokens = S::tokens_fp32;

    template <class S, int T>
    static void pass(const std::uint8_t* panel, int row, const Inputs& inputs, std::size_t token, float (*tile)[PANEL]) {
        Sums<S, T> sums;
        const float* weights = reinterpret_cast<const float*>(panel) + row;
        const float* x = inputs.floats + token * inputs.width;
        for (std::size_t column = 0; column < inputs.width; ++column, weights += PANEL) {
            typename S::Float w[S::vectors];
            GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) w[v] = S::load(weights + v * S::lanes);
            GPT2KIT_UNROLLED for (int t = 0; t < T; ++t) {
                const auto input = S::set(x[t * inputs.width + column]);
                GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v)
                    sums.of[t][v] = S::multiply_add(w[v], input, sums.of[t][v]);
            }
        }
        sums.store(tile, row);
    }
};

struct Bf16 {
    template <class S>
    static constexpr int tokens = S::tokens_bf16;

    template <class S, int T>
    static void pass(const std::uint8_t* panel, int row, const Inputs& inputs, std::size_t token, float (*tile)[PANEL]) {
        Sums<S, T> sums;
        const std::uint8_t* weights = panel + row * 4;
        for (std::size_t column = 0; column < inputs.width; column += 2, weights += PANEL * 4) {
            typename S::Int pairs[S::vectors];
            GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) pairs[v] = S::load_int(weights + v * S::lanes * 4);
            GPT2KIT_UNROLLED for (int t = 0; t < T; ++t) {
                const std::size_t place = (token + t) * inputs.width + column;
                if constexpr (S::bf16_products) {
                    std::int32_t pair;
                    std::memcpy(&pair, inputs.bf16 + place, sizeof pair);
                    const auto input = S::set_int(pair);
                    GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v)
                        sums.of[t][v] = S::add_bf16(sums.of[t][v], pairs[v], input);
                } else {
                    const auto first = S::set(inputs.floats[place]), second = S::set(inputs.floats[place + 1]);
                    GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) {
                        sums.of[t][v] = S::multiply_add(S::first_bf16(pairs[v]), first, sums.of[t][v]);
                        sums.of[t][v] = S::multiply_add(S::second_bf16(pairs[v]), second, sums.of[t][v]);
                    }
                }
            }
        }
        sums.store(tile, row);
    }
};

// How many bytes a row of a group takes, and how those of four inputs are read: the four of `Q` among sixteen.
struct EightBits {
    static constexpr int row_bytes = INT8_GROUP;

    template <class S, int Q>
    static typename S::Int read(const std::uint8_t* bytes, int sixteen) {
        return S::load_int(bytes + (sixteen * 4 + Q) * PANEL * 4);
    }
};

struct SixBits {
    static constexpr int row_bytes = INT8_GROUP * 6 / 8;

    template <class S, int Q>
    static typename S::Int read(const std::uint8_t* bytes, int sixteen) {
        const auto middle = S::load_int(bytes + (sixteen * 2 + Q / 2) * PANEL * 4);
        const auto top = S::load_int(bytes + (8 + sixteen) * PANEL * 4);
        return S::either(S::template bits<Q % 2 * 4 - 2>(middle, 0x3c), S::template bits<Q * 2 - 6>(top, 0xc0));
    }
};

// Whole numbers are multiplied and summed exactly, group by group; floats begin where the scales do.
template <class Bits>
struct Bytes {
    template <class S>
    static constexpr int tokens = S::tokens_int8;

    template <class S, int T>
    static void pass(const std::uint8_t* panel, int row, const Inputs& inputs, std::size_t token, float (*tile)[PANEL]) {
        Sums<S, T> sums;
        for (std::size_t group = 0; group < inputs.groups(); ++group) {
            const auto* scales = reinterpret_cast<const std::uint16_t*>(panel) + row;
            const std::uint8_t* weights = panel + PANEL * 2 + row * 4;
            panel += PANEL * 2 + PANEL * Bits::row_bytes;
            typename S::Int numbers[T][S::vectors];
            GPT2KIT_UNROLLED for (int t = 0; t < T; ++t) {
                const auto begin = S::begin_int8(inputs.sums[(token + t) * inputs.groups() + group]);
                GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) numbers[t][v] = begin;
            }
            const std::int8_t* x = inputs.bytes + token * inputs.width + group * INT8_GROUP;
            const auto add_four = [&]<int Q>(int sixteen, std::integral_constant<int, Q>) {
                typename S::Int w[S::vectors];
                GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v)
                    w[v] = Bits::template read<S, Q>(weights + v * S::lanes * 4, sixteen);
                GPT2KIT_UNROLLED for (int t = 0; t < T; ++t) {
                    const auto input = S::set_int(four_bytes(x + t * inputs.width + sixteen * 16 + Q * 4));
                    GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) numbers[t][v] = S::add_int8(numbers[t][v], w[v], input);
                }
            };
            for (int sixteen = 0; sixteen < INT8_GROUP / 16; ++sixteen) {
                add_four(sixteen, std::integral_constant<int, 0>());
                add_four(sixteen, std::integral_constant<int, 1>());
                add_four(sixteen, std::integral_constant<int, 2>());
                add_four(sixteen, std::integral_constant<int, 3>());
            }
            GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) {
                const auto scale = S::load_half(scales + v * S::lanes);
                GPT2KIT_UNROLLED for (int t = 0; t < T; ++t) {
                    const auto both = S::multiply(scale, S::set(inputs.scales[(token + t) * inputs.groups() + group]));
                    sums.of[t][v] = S::multiply_add(S::to_float(numbers[t][v]), both, sums.of[t][v]);
                }
            }
        }
        sums.store(tile, row);
    }
};

struct Int4 {
    // 128 + level, as the products of bytes take them
    static constexpr auto BYTES = [] {
        std::array<std::uint8_t, 16> bytes{};
        for (int number = 0; number < 16; ++number) bytes[number] = static_cast<std::uint8_t>(128 + INT4_LEVELS[number]);
        return bytes;
    }();

    template <class S>
    static constexpr int tokens = S::tokens_int4;

    template <class S, int T>
    static void pass(const std::uint8_t* panel, int row, const Inputs& inputs, std::size_t token, float (*tile)[PANEL]) {
        Sums<S, T> sums;
        const auto levels = S::table(BYTES.data());
        for (std::size_t group = 0; group < inputs.groups(); ++group) {
            const auto* scales = reinterpret_cast<const std::uint16_t*>(panel) + row;
            const std::uint8_t* weights = panel + PANEL * 2 + row * 4;
            panel += PANEL * 2 + PANEL * INT4_GROUP / 2;
            typename S::Int low[T][S::vectors], high[T][S::vectors];  // two sums each, so that none waits for the other
            GPT2KIT_UNROLLED for (int t = 0; t < T; ++t) {
                const auto begin = S::begin_int8(inputs.sums[(token + t) * inputs.groups() + group]);
                GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) low[t][v] = begin, high[t][v] = S::set_int(0);
            }
            const std::int8_t* x = inputs.bytes + token * inputs.width + group * INT4_GROUP;
            GPT2KIT_UNROLLED for (int eight = 0; eight < INT4_GROUP / 8; ++eight, weights += PANEL * 4) {
                typename S::Int four[S::vectors], next[S::vectors];
                GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) {
                    const auto both = S::load_int(weights + v * S::lanes * 4);
                    four[v] = S::look_up(levels, S::template bits<0>(both, 15));
                    next[v] = S::look_up(levels, S::template bits<4>(both, 15));
                }
                GPT2KIT_UNROLLED for (int t = 0; t < T; ++t) {
                    const std::int8_t* inputs_of_t = x + t * inputs.width + eight * 8;
                    const auto first = S::set_int(four_bytes(inputs_of_t)), second = S::set_int(four_bytes(inputs_of_t + 4));
                    GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) {
                        low[t][v] = S::add_int8(low[t][v], four[v], first);
                        high[t][v] = S::add_int8(high[t][v], next[v], second);
                    }
                }
            }
            GPT2KIT_UNROLLED for (int v = 0; v < S::vectors; ++v) {
                const auto scale = S::load_half(scales + v * S::lanes);
                GPT2KIT_UNROLLED for (int t = 0; t < T; ++t) {
                    const auto both = S::multiply(scale, S::set(inputs.scales[(token + t) * inputs.groups() + group]));
                    sums.of[t][v] = S::multiply_add(S::to_float(S::add_int(low[t][v], high[t][v])), both, sums.of[t][v]);
                }
            }
        }
        sums.store(tile, row);
    }
};

template <class S>
void finish(float* values, const float* bias, int panel, std::size_t token, const Output& output) {
    for (int i = 0; i < PANEL; i += S::lanes) S::store(values + i, S::add(S::load(values + i), S::load(bias + i)));
    activate<S>(output.activation, values);
    if (output.inputs) return prepare<S>(*output.inputs, token, static_cast<std::size_t>(panel) * PANEL, values);
    float* to = output.floats + token * output.step + static_cast<std::size_t>(panel) * PANEL;
    for (int i = 0; i < PANEL; i += S::lanes) {
        const auto value = S::load(values + i);
        S::store(to + i, output.added ? S::add(S::load(to + i), value) : value);
    }
}

template <class S, class F, int T>
void multiply_panel(const std::uint8_t* panel, const Inputs& inputs, std::size_t token, float (*tile)[PANEL]) {
    for (int row = 0; row < PANEL; row += PASS_ROWS<S>) F::template pass<S, T>(panel, row, inputs, token, tile);
}

// `count` tokens, at most T of them
template <class S, class F, int T>
void multiply_some(int count, const std::uint8_t* panel, const Inputs& inputs, std::size_t token, float (*tile)[PANEL]) {
    if (count == T) return multiply_panel<S, F, T>(panel, inputs, token, tile);
    if constexpr (T > 1) multiply_some<S, F, T - 1>(count, panel, inputs, token, tile);
}

template <class S, class F>
void multiply_as(const Matrix& matrix, Share panels, const Inputs& inputs, int tokens, const Output& output) {
    constexpr int MOST = F::template tokens<S>;
    alignas(CACHE_LINE) float tile[MOST][PANEL];
    for (int panel = panels.begin; panel < panels.end; ++panel)
        for (int token = 0; token < tokens; token += MOST) {
            const int count = std::min(MOST, tokens - token);
            multiply_some<S, F, MOST>(count, matrix.panel(panel), inputs, token, tile);
            for (int t = 0; t < count; ++t) finish<S>(tile[t], matrix.bias + panel * PANEL, panel, token + t, output);
        }
}

template <class S>
void multiply_by_vectors(const Matrix& matrix, Share panels, const Inputs& inputs, int tokens, const Output& output) {
    switch (matrix.format) {
        case Format::fp32: return multiply_as<S, Fp32>(matrix, panels, inputs, tokens, output);
        case Format::bf16: return multiply_as<S, Bf16>(matrix, panels, inputs, tokens, output);
        case Format::int8: return multiply_as<S, Bytes<EightBits>>(matrix, panels, inputs, tokens, output);
        case Format::int6: return multiply_as<S, Bytes<SixBits>>(matrix, panels, inputs, tokens, output);
        case Format::int4: return multiply_as<S, Int4>(matrix, panels, inputs, tokens, output);
    }
}

template <class S>
void multiply(const Matrix& matrix, Share panels, const Inputs& inputs, int tokens, const Output& output) {
    multiply_by_vectors<S>(matrix, panels, inputs, tokens, output);
}

template <class S>
Reading reading(Format format) {
    switch (format) {
        case Format::bf16: return S::bf16_products ? Reading::bf16 : Reading::floats;
        case Format::int8: case Format::int6: return Reading::bytes64;
        case Format::int4: return Reading::bytes32;
        default: return Reading::floats;
    }
}

}  // namespace gpt2kit
