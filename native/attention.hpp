// Attention of the new tokens of one row in one head, with the cache of keys and values.
//
// Every (token, position) has one accumulator, and what lies in a token's future counts as exact zeros: so a token gives
// the same bits whether it comes alone or in a block.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels.hpp"
#include "numbers.hpp"
#include "pointwise.hpp"

namespace gpt2kit {

template <class S>
typename S::Float load_cached(const float* from) {
    return S::load(from);
}
template <class S>
typename S::Float load_cached(const std::uint16_t* from) {
    return S::load_bf16(from);
}
inline void store_cached(float* to, float value) { *to = value; }
inline void store_cached(std::uint16_t* to, float value) { *to = to_bf16(value); }

template <class C>
struct Cached {
    C *keys, *values;
    std::size_t head_width, values_step;

    explicit Cached(const Attention& a)
        : keys(static_cast<C*>(a.keys)), values(static_cast<C*>(a.values)), head_width(a.head_width),
          values_step(round_up(a.head_width, KEY_BLOCK)) {}

    C* key(std::size_t position) const { return keys + position / KEY_BLOCK * KEY_BLOCK * head_width + position % KEY_BLOCK; }

    void add(const Attention& a, int token) const {
        const float* k = a.qkv + token * a.step + a.width + a.head * a.head_width;
        const float* v = k + a.width;
        const std::size_t position = a.held + token;
        C *to_keys = key(position), *to_values = values + position * values_step;
        for (std::size_t i = 0; i < head_width; ++i) {
            store_cached(to_keys + i * KEY_BLOCK, k[i]);
            store_cached(to_values + i, v[i]);
        }
        for (std::size_t i = head_width; i < values_step; ++i) store_cached(to_values + i, 0);
    }
};

// Scores of Q queries with the keys of B blocks from `block` on.
template <class S, class C, int Q, int B>
void score(const Attention& a, const Cached<C>& cached, int token, int block) {
    constexpr int PARTS = KEY_BLOCK / S::lanes;
    typename S::Float sums[Q][B][PARTS];
    GPT2KIT_UNROLLED for (int q = 0; q < Q; ++q)
        GPT2KIT_UNROLLED for (int b = 0; b < B; ++b)
            GPT2KIT_UNROLLED for (int p = 0; p < PARTS; ++p) sums[q][b][p] = S::set(0);
    const float* queries = a.qkv + token * a.step + a.head * a.head_width;
    const C* keys = cached.key(static_cast<std::size_t>(block) * KEY_BLOCK);
    for (int i = 0; i < a.head_width; ++i, keys += KEY_BLOCK) {
        typename S::Float k[B][PARTS];
        GPT2KIT_UNROLLED for (int b = 0; b < B; ++b)
            GPT2KIT_UNROLLED for (int p = 0; p < PARTS; ++p)
                k[b][p] = load_cached<S>(keys + b * KEY_BLOCK * a.head_width + p * S::lanes);
        GPT2KIT_UNROLLED for (int q = 0; q < Q; ++q) {
            const auto query = S::set(queries[q * a.step + i] * a.scale);
            GPT2KIT_UNROLLED for (int b = 0; b < B; ++b)
                GPT2KIT_UNROLLED for (int p = 0; p < PARTS; ++p)
                    sums[q][b][p] = S::multiply_add(query, k[b][p], sums[q][b][p]);
        }
    }
    GPT2KIT_UNROLLED for (int q = 0; q < Q; ++q)
        GPT2KIT_UNROLLED for (int b = 0; b < B; ++b)
            GPT2KIT_UNROLLED for (int p = 0; p < PARTS; ++p)
                S::store(a.scores + q * a.scores_step + (block + b) * KEY_BLOCK + p * S::lanes, sums[q][b][p]);
}

// Scores become weights, which sum to what is returned; those from `length` to the end of `room` become 0.
template <class S>
float soften(float* scores, int length, int room) {
    auto highest = S::set(-std::numeric_limits<float>::infinity());
    for (int i = 0; i < length; i += S::lanes) highest = S::larger(highest, S::first_of(length - i, S::load(scores + i), highest));
    const auto top = S::set(S::largest(highest)), zero = S::set(0);
    auto total = zero;
    for (int i = 0; i < room; i += S::lanes) {
        if (i >= length) {
            S::store(scores + i, zero);
            continue;
        }
        const auto weight = S::first_of(length - i, exponential<S>(S::subtract(S::load(scores + i), top)), zero);
        S::store(scores + i, weight);
        total = S::add(total, weight);
    }
    return S::sum(total);
}

// The mean of the first `length` values, by the weights of Q queries, for V vectors of numbers from `number` on.
template <class S, class C, int Q, int V>
void mix(const Attention& a, const Cached<C>& cached, int token, int length, const float* factors, int number) {
    typename S::Float sums[Q][V];
    GPT2KIT_UNROLLED for (int q = 0; q < Q; ++q)
        GPT2KIT_UNROLLED for (int v = 0; v < V; ++v) sums[q][v] = S::set(0);
    const C* values = cached.values + number;
    for (int position = 0; position < length; ++position, values += cached.values_step) {
        typename S::Float value[V];
        GPT2KIT_UNROLLED for (int v = 0; v < V; ++v) value[v] = load_cached<S>(values + v * S::lanes);
        GPT2KIT_UNROLLED for (int q = 0; q < Q; ++q) {
            const auto weight = S::set(a.scores[q * a.scores_step + position]);
            GPT2KIT_UNROLLED for (int v = 0; v < V; ++v) sums[q][v] = S::multiply_add(weight, value[v], sums[q][v]);
        }
    }
    for (int q = 0; q < Q; ++q) {
        float* out = a.out + (token + q) * a.out_step + a.head * a.head_width + number;
        alignas(CACHE_LINE) float mean[V * S::lanes];
        GPT2KIT_UNROLLED for (int v = 0; v < V; ++v)
            S::store(mean + v * S::lanes, S::multiply(sums[q][v], S::set(factors[q])));
        std::memcpy(out, mean, std::min<std::size_t>(V * S::lanes, a.head_width - number) * sizeof(float));
    }
}

template <class S, class C, int Q>
void attend_some(const Attention& a, const Cached<C>& cached, int token) {
    constexpr int B = std::min(4, S::sums / (Q * (KEY_BLOCK / S::lanes))), V = std::min(4, S::sums / Q);
    const int longest = a.held + token + Q, blocks = (longest + KEY_BLOCK - 1) / KEY_BLOCK;
    int block = 0;
    for (; block + B <= blocks; block += B) score<S, C, Q, B>(a, cached, token, block);
    for (; block < blocks; ++block) score<S, C, Q, 1>(a, cached, token, block);
    float factors[Q];
    for (int q = 0; q < Q; ++q)
        factors[q] = 1 / soften<S>(a.scores + q * a.scores_step, a.held + token + q + 1, blocks * KEY_BLOCK);
    int number = 0;
    for (; number + V * S::lanes <= static_cast<int>(cached.values_step); number += V * S::lanes)
        mix<S, C, Q, V>(a, cached, token, longest, factors, number);
    for (; number < a.head_width; number += S::lanes) mix<S, C, Q, 1>(a, cached, token, longest, factors, number);
}

template <class S, class C>
void attend_in(const Attention& a) {
    const Cached<C> cached(a);
    for (int token = 0; token < a.fresh; ++token) cached.add(a, token);
    int token = 0;
    for (; token + S::queries <= a.fresh; token += S::queries) attend_some<S, C, S::queries>(a, cached, token);
    for (; token < a.fresh; ++token) attend_some<S, C, 1>(a, cached, token);
}

template <class S>
void attend(const Attention& a) {
    return a.bf16_cache ? attend_in<S, std::uint16_t>(a) : attend_in<S, float>(a);
}

}  // namespace gpt2kit
