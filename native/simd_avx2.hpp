// Vectors of AVX2 with FMA and F16C: 8 floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gpt2kit {

struct Avx2 {
    static constexpr int lanes = 8;
    static constexpr int vectors = 4;
    static constexpr bool bf16_products = false;
    static constexpr int tokens_fp32 = 2, tokens_bf16 = 1, tokens_int8 = 2, tokens_int4 = 1;
    static constexpr int queries = 4, sums = 8;

    using Float = __m256;
    using Int = __m256i;

    static Float set(float value) { return _mm256_set1_ps(value); }
    static Float load(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, Float a) { _mm256_storeu_ps(to, a); }
    static Float add(Float a, Float b) { return _mm256_add_ps(a, b); }
    static Float subtract(Float a, Float b) { return _mm256_sub_ps(a, b); }
    static Float multiply(Float a, Float b) { return _mm256_mul_ps(a, b); }
    static Float divide(Float a, Float b) { return _mm256_div_ps(a, b); }
    static Float multiply_add(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
    static Float larger(Float a, Float b) { return _mm256_max_ps(a, b); }
    static Float smaller(Float a, Float b) { return _mm256_min_ps(a, b); }
    static Float absolute(Float a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.f), a); }
    static Float nearest(Float a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static Float times_power_of_2(Float a, Float n) {
        const Int exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        return _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
    }
    static Float first_of(int count, Float a, Float b) {
        const Int places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(count), places)));
    }
    static float sum(Float a) {
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
    }
    static bool any_nan(Float a) { return _mm256_movemask_ps(_mm256_cmp_ps(a, a, _CMP_UNORD_Q)); }
    static float largest(Float a) {
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    }

    static Float load_half(const std::uint16_t* from) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from)); }
    static Float load_bf16(const std::uint16_t* from) {
        return first_bf16(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)));
    }
    static void store_bf16(std::uint16_t* to, Float a) {
        const Int bits = _mm256_castps_si256(a);
        const Int even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
        const Int rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(_mm256_set1_epi32(0x7fff), even)), 16);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(rounded, rounded), 0b1000);
        _mm_storeu_si128((__m128i*)to, _mm256_castsi256_si128(packed));
    }
    static Float first_bf16(Int pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
    static Float second_bf16(Int pairs) {
        return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
    }

    static Int set_int(std::int32_t value) { return _mm256_set1_epi32(value); }
    static Int load_int(const void* from) { return _mm256_loadu_si256((const __m256i*)from); }
    static Float to_float(Int a) { return _mm256_cvtepi32_ps(a); }
    static Int store_bytes(std::int8_t* to, Float a) {
        const Int numbers = _mm256_cvtps_epi32(a);
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
        _mm_storel_epi64((__m128i*)to, _mm_packs_epi16(words, words));
        return numbers;
    }
    static Int add_int(Int a, Int b) { return _mm256_add_epi32(a, b); }
    static std::int32_t sum_int(Int a) {
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0b1110));
        return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0b01)));
    }

    // Products are summed in pairs of 16 bits first: 2 * 128 * 127 fits, unsigned weights up to 255 would not.
    static Int begin_int8(std::int32_t) { return _mm256_setzero_si256(); }
    static Int add_int8(Int sums, Int weights, Int inputs) {
        const Int numbers = _mm256_xor_si256(weights, _mm256_set1_epi8(static_cast<char>(0x80)));
        const Int pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(numbers), _mm256_sign_epi8(inputs, numbers));
        return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    template <int BY>
    static Int bits(Int bytes, std::uint8_t mask) {
        const Int moved = BY < 0 ? _mm256_slli_epi16(bytes, -BY) : _mm256_srli_epi16(bytes, BY);
        return _mm256_and_si256(moved, _mm256_set1_epi8(static_cast<char>(mask)));
    }
    static Int table(const std::uint8_t* from) { return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)from)); }
    static Int look_up(Int table, Int numbers) { return _mm256_shuffle_epi8(table, numbers); }
    static Int either(Int a, Int b) { return _mm256_or_si256(a, b); }
};

}  // namespace gpt2kit
