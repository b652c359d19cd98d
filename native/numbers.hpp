// Floats of 16 bits, one at a time, on any machine.
#pragma once

#include <bit>
#include <cstdint>

namespace gpt2kit {

inline float from_bf16(std::uint16_t bits) { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

// To the nearest, of two equally near ones to the even one. NaN stays NaN.
inline std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (value != value) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_half(std::uint16_t bits) {
    const std::uint32_t sign = (bits & 0x8000u) << 16, rest = bits & 0x7fffu;
    if (rest < 0x400) return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(static_cast<float>(rest) * 0x1p-24f));
    if (rest >= 0x7c00) return std::bit_cast<float>(sign | 0x7f800000u | rest << 13);
    return std::bit_cast<float>(sign | ((rest << 13) + 0x38000000u));
}

// To the nearest, of two equally near ones to the even one; what is too large becomes infinite.
inline std::uint16_t to_half(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000);
    const std::uint32_t rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00);
    if (rest >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00);
    if (rest < 0x38800000u) {  // below the smallest normal half: adding 0.5 leaves its bits, rounded, at the end
        const float shifted = std::bit_cast<float>(rest) + 0.5f;
        return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3f000000u));
    }
    return static_cast<std::uint16_t>(sign | ((rest - 0x38000000u + 0xfff + (rest >> 13 & 1)) >> 13));
}

}  // namespace gpt2kit
