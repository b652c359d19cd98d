// Vectors of AVX-512 with VNNI, and with BF16 where it is there: 16 floats.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace gpt2kit {

struct Avx512 {
    static constexpr int lanes = 16;
    static constexpr int vectors = 4;
    static constexpr bool bf16_products = false;
    static constexpr int tokens_fp32 = 6, tokens_bf16 = 4, tokens_int8 = 6, tokens_int4 = 4;
    static constexpr int queries = 4, sums = 16;

    using Float = __m512;
    using Int = __m512i;

    static Float set(float value) { return _mm512_set1_ps(value); }
    static Float load(const float* from) { return _mm512_loadu_ps(from); }
    static void store(float* to, Float a) { _mm512_storeu_ps(to, a); }
    static Float add(Float a, Float b) { return _mm512_add_ps(a, b); }
    static Float subtract(Float a, Float b) { return _mm512_sub_ps(a, b); }
    static Float multiply(Float a, Float b) { return _mm512_mul_ps(a, b); }
    static Float divide(Float a, Float b) { return _mm512_div_ps(a, b); }
    static Float multiply_add(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
    static Float larger(Float a, Float b) { return _mm512_max_ps(a, b); }
    static Float smaller(Float a, Float b) { return _mm512_min_ps(a, b); }
    static Float absolute(Float a) { return _mm512_abs_ps(a); }
    static Float nearest(Float a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static Float times_power_of_2(Float a, Float n) { return _mm512_scalef_ps(a, n); }
    static Float first_of(int count, Float a, Float b) { return _mm512_mask_blend_ps(first(count), b, a); }
    static float sum(Float a) { return _mm512_reduce_add_ps(a); }
    static bool any_nan(Float a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
    static float largest(Float a) { return _mm512_reduce_max_ps(a); }

    static Float load_half(const std::uint16_t* from) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from)); }
    static Float load_bf16(const std::uint16_t* from) {
        return first_bf16(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)));
    }
    static void store_bf16(std::uint16_t* to, Float a) {
        const Int bits = _mm512_castps_si512(a);
        const Int even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const Int rounded = _mm512_add_epi32(bits, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), even));
        _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16)));
    }
    static Float first_bf16(Int pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
    static Float second_bf16(Int pairs) {
        return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
    }

    static Int set_int(std::int32_t value) { return _mm512_set1_epi32(value); }
    static Int load_int(const void* from) { return _mm512_loadu_si512(from); }
    static Float to_float(Int a) { return _mm512_cvtepi32_ps(a); }
    static Int store_bytes(std::int8_t* to, Float a) {
        const Int numbers = _mm512_cvtps_epi32(a);
        _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8(numbers));
        return numbers;
    }
    static Int add_int(Int a, Int b) { return _mm512_add_epi32(a, b); }
    static std::int32_t sum_int(Int a) { return _mm512_reduce_add_epi32(a); }

    // The instruction multiplies unsigned bytes by signed ones: 128 times the inputs' sum is taken off beforehand.
    static Int begin_int8(std::int32_t sum_of_inputs) { return _mm512_set1_epi32(-128 * sum_of_inputs); }
    static Int add_int8(Int sums, Int weights, Int inputs) { return _mm512_dpbusd_epi32(sums, weights, inputs); }
    template <int BY>
    static Int bits(Int bytes, std::uint8_t mask) {
        return _mm512_and_si512(BY < 0 ? _mm512_slli_epi16(bytes, BY < 0 ? -BY : 0) : _mm512_srli_epi16(bytes, BY < 0 ? 0 : BY),
                                _mm512_set1_epi8(static_cast<char>(mask)));
    }
    static Int table(const std::uint8_t* from) { return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i*)from)); }
    static Int look_up(Int table, Int numbers) { return _mm512_shuffle_epi8(table, numbers); }
    static Int either(Int a, Int b) { return _mm512_or_si512(a, b); }

private:
    static __mmask16 first(int count) { return static_cast<__mmask16>(count >= lanes ? 0xffff : (1u << count) - 1); }
};

#if defined(__AVX512BF16__)
struct Avx512Bf16 : Avx512 {
    static constexpr bool bf16_products = true;
    static constexpr int tokens_bf16 = 6;

    static void store_bf16(std::uint16_t* to, Float a) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(a)); }
    // Adds the products of pairs of bfloat16 to the sums.
    static Float add_bf16(Float sums, Int weights, Int inputs) {
        return _mm512_dpbf16_ps(sums, (__m512bh)weights, (__m512bh)inputs);
    }
};
#endif

}  // namespace gpt2kit
