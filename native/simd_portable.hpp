// Vectors as plain loops: for any processor, and what the other instruction sets are held against.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "numbers.hpp"

namespace gpt2kit {

struct Portable {
    static constexpr int lanes = 8;
    static constexpr int vectors = 4;  // of a pass over a panel
    static constexpr bool bf16_products = false;
    static constexpr int tokens_fp32 = 2, tokens_bf16 = 2, tokens_int8 = 2, tokens_int4 = 2;  // of a pass, at most
    static constexpr int queries = 2, sums = 8;  // that attention takes at once, and has registers for

    struct Float {
        float lane[lanes];
    };
    struct Int {
        std::int32_t lane[lanes];
    };

    template <class Do>
    static Float each(Do what) {
        Float result;
        for (int i = 0; i < lanes; ++i) result.lane[i] = what(i);
        return result;
    }

    static Float set(float value) {
        return each([&](int) { return value; });
    }
    static Float load(const float* from) {
        return each([&](int i) { return from[i]; });
    }
    static void store(float* to, Float a) { std::memcpy(to, a.lane, sizeof a.lane); }
    static Float add(Float a, Float b) {
        return each([&](int i) { return a.lane[i] + b.lane[i]; });
    }
    static Float subtract(Float a, Float b) {
        return each([&](int i) { return a.lane[i] - b.lane[i]; });
    }
    static Float multiply(Float a, Float b) {
        return each([&](int i) { return a.lane[i] * b.lane[i]; });
    }
    static Float divide(Float a, Float b) {
        return each([&](int i) { return a.lane[i] / b.lane[i]; });
    }
    // a * b + c, rounded twice where the processor has no instruction for it.
    static Float multiply_add(Float a, Float b, Float c) {
        return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
    }
    static Float larger(Float a, Float b) {
        return each([&](int i) { return std::max(a.lane[i], b.lane[i]); });
    }
    static Float smaller(Float a, Float b) {
        return each([&](int i) { return std::min(a.lane[i], b.lane[i]); });
    }
    static Float absolute(Float a) {
        return each([&](int i) { return std::fabs(a.lane[i]); });
    }
    static Float nearest(Float a) {
        return each([&](int i) { return std::nearbyint(a.lane[i]); });
    }
    // a * 2^n for whole n from -126 to 127
    static Float times_power_of_2(Float a, Float n) {
        return each([&](int i) { return a.lane[i] * std::bit_cast<float>((static_cast<std::int32_t>(n.lane[i]) + 127) << 23); });
    }
    // The first `count` lanes of `a`, the others from `b`.
    static Float first_of(int count, Float a, Float b) {
        return each([&](int i) { return i < count ? a.lane[i] : b.lane[i]; });
    }
    static float sum(Float a) {
        return ((a.lane[0] + a.lane[4]) + (a.lane[2] + a.lane[6])) + ((a.lane[1] + a.lane[5]) + (a.lane[3] + a.lane[7]));
    }
    static bool any_nan(Float a) {
        return std::any_of(a.lane, a.lane + lanes, [](float lane) { return lane != lane; });
    }
    static float largest(Float a) { return *std::max_element(a.lane, a.lane + lanes); }

    static Float load_half(const std::uint16_t* from) {
        return each([&](int i) { return from_half(from[i]); });
    }
    static Float load_bf16(const std::uint16_t* from) {
        return each([&](int i) { return from_bf16(from[i]); });
    }
    static void store_bf16(std::uint16_t* to, Float a) {
        for (int i = 0; i < lanes; ++i) to[i] = to_bf16(a.lane[i]);
    }
    // The first, and the second, of `lanes` pairs of bfloat16.
    static Float first_bf16(Int pairs) {
        return each([&](int i) { return std::bit_cast<float>(pairs.lane[i] << 16); });
    }
    static Float second_bf16(Int pairs) {
        return each([&](int i) { return std::bit_cast<float>(pairs.lane[i] & static_cast<std::int32_t>(0xffff0000)); });
    }

    static Int set_int(std::int32_t value) {
        Int result;
        std::fill_n(result.lane, lanes, value);
        return result;
    }
    static Int load_int(const void* from) {
        Int result;
        std::memcpy(result.lane, from, sizeof result.lane);
        return result;
    }
    static Float to_float(Int a) {
        return each([&](int i) { return static_cast<float>(a.lane[i]); });
    }
    // Whole numbers -127..127 into bytes; returns their sums.
    static Int store_bytes(std::int8_t* to, Float a) {
        Int numbers;
        for (int i = 0; i < lanes; ++i) numbers.lane[i] = to[i] = static_cast<std::int8_t>(a.lane[i]);
        return numbers;
    }
    static Int add_int(Int a, Int b) {
        for (int i = 0; i < lanes; ++i) a.lane[i] += b.lane[i];
        return a;
    }
    static std::int32_t sum_int(Int a) {
        std::int32_t sum = 0;
        for (const std::int32_t lane : a.lane) sum += lane;
        return sum;
    }

    // Of 4 bytes a lane: what the sum of products of (weights - 128) and inputs begins with, and the products added.
    static Int begin_int8(std::int32_t /* sum of the inputs */) { return set_int(0); }
    static Int add_int8(Int sums, Int weights, Int inputs) {
        std::uint8_t w[4 * lanes];
        std::int8_t x[4 * lanes];
        std::memcpy(w, weights.lane, sizeof w);
        std::memcpy(x, inputs.lane, sizeof x);
        for (int i = 0; i < 4 * lanes; ++i) sums.lane[i / 4] += (w[i] - 128) * x[i];
        return sums;
    }
    // Of every byte the bits of a mask, which are moved there from so many places above.
    template <int BY>
    static Int bits(Int bytes, std::uint8_t mask) {
        const auto masks = static_cast<std::uint32_t>(mask) * 0x01010101u;
        for (int i = 0; i < lanes; ++i) {
            const auto lane = static_cast<std::uint32_t>(bytes.lane[i]);
            bytes.lane[i] = static_cast<std::int32_t>((BY < 0 ? lane << (BY < 0 ? -BY : 0) : lane >> (BY < 0 ? 0 : BY)) & masks);
        }
        return bytes;
    }
    // 16 bytes, and of every byte 0..15 the one that it numbers.
    static Int table(const std::uint8_t* from) {
        Int result{};
        std::memcpy(result.lane, from, 16);
        return result;
    }
    static Int look_up(Int table, Int numbers) {
        std::uint8_t from[16], places[4 * lanes];
        std::memcpy(from, table.lane, sizeof from);
        std::memcpy(places, numbers.lane, sizeof places);
        for (std::uint8_t& place : places) place = from[place];
        std::memcpy(numbers.lane, places, sizeof places);
        return numbers;
    }
    static Int either(Int a, Int b) {
        for (int i = 0; i < lanes; ++i) a.lane[i] |= b.lane[i];
        return a;
    }
};

}  // namespace gpt2kit
