// e^((logit - top) / temperature) in doubles: the weights that a token is drawn by.
#pragma once

#include <cmath>
#include <cstddef>

#include "simd_portable.hpp"

#if defined(__AVX2__)
#include "simd_avx2.hpp"
#endif
#if defined(__AVX512F__)
#include "simd_avx512.hpp"
#endif

namespace gpt2kit {

// Vectors of doubles, as wide as those of floats.
template <class S>
struct Doubles;

#if defined(__AVX2__)
template <>
struct Doubles<Avx2> {
    static constexpr int lanes = 4;
    using V = __m256d;

    static V set(double value) { return _mm256_set1_pd(value); }
    static V load(const float* from) { return _mm256_cvtps_pd(_mm_loadu_ps(from)); }
    static void store(double* to, V a) { _mm256_storeu_pd(to, a); }
    static V add(V a, V b) { return _mm256_add_pd(a, b); }
    static V subtract(V a, V b) { return _mm256_sub_pd(a, b); }
    static V multiply(V a, V b) { return _mm256_mul_pd(a, b); }
    static V divide(V a, V b) { return _mm256_div_pd(a, b); }
    static V multiply_add(V a, V b, V c) { return _mm256_fmadd_pd(a, b, c); }
    static V nearest(V a) { return _mm256_round_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static V larger(V a, V b) { return _mm256_max_pd(a, b); }
    static V zero_below(V x, double least, V a) { return _mm256_andnot_pd(_mm256_cmp_pd(x, set(least), _CMP_LT_OQ), a); }
    static V times_power_of_2(V a, V n) {
        const __m256i exponent = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n)), _mm256_set1_epi64x(1023));
        return _mm256_mul_pd(a, _mm256_castsi256_pd(_mm256_slli_epi64(exponent, 52)));
    }
};
#endif

#if defined(__AVX512F__)
template <>
struct Doubles<Avx512> {
    static constexpr int lanes = 8;
    using V = __m512d;

    static V set(double value) { return _mm512_set1_pd(value); }
    static V load(const float* from) { return _mm512_cvtps_pd(_mm256_loadu_ps(from)); }
    static void store(double* to, V a) { _mm512_storeu_pd(to, a); }
    static V add(V a, V b) { return _mm512_add_pd(a, b); }
    static V subtract(V a, V b) { return _mm512_sub_pd(a, b); }
    static V multiply(V a, V b) { return _mm512_mul_pd(a, b); }
    static V divide(V a, V b) { return _mm512_div_pd(a, b); }
    static V multiply_add(V a, V b, V c) { return _mm512_fmadd_pd(a, b, c); }
    static V nearest(V a) { return _mm512_roundscale_pd(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
    static V larger(V a, V b) { return _mm512_max_pd(a, b); }
    static V zero_below(V x, double least, V a) {
        return _mm512_maskz_mov_pd(_mm512_cmp_pd_mask(x, set(least), _CMP_GE_OQ), a);
    }
    static V times_power_of_2(V a, V n) { return _mm512_scalef_pd(a, n); }
};
#if defined(__AVX512BF16__)
template <>
struct Doubles<Avx512Bf16> : Doubles<Avx512> {};
#endif
#endif

constexpr double LEAST = -700;  // e^-700 is nothing beside the 1 of the likeliest

// Of eight or four at a time. Source: Moshier's Cephes, exp.c.
template <class D>
typename D::V exponential_of(typename D::V x) {
    const auto within = D::larger(x, D::set(LEAST));
    const auto n = D::nearest(D::multiply(within, D::set(1.4426950408889634073599)));
    auto r = D::multiply_add(n, D::set(-6.93145751953125e-1), within);
    r = D::multiply_add(n, D::set(-1.42860682030941723212e-6), r);
    const auto square = D::multiply(r, r);
    auto p = D::multiply_add(D::set(1.26177193074810590878e-4), square, D::set(3.02994407707441961300e-2));
    p = D::multiply(r, D::multiply_add(p, square, D::set(9.99999999999999999910e-1)));
    auto q = D::multiply_add(D::set(3.00198505138664455042e-6), square, D::set(2.52448340349684104192e-3));
    q = D::multiply_add(q, square, D::set(2.27265548208155028766e-1));
    q = D::multiply_add(q, square, D::set(2.00000000000000000005));
    const auto e = D::multiply_add(D::set(2), D::divide(p, D::subtract(q, p)), D::set(1));
    return D::zero_below(x, LEAST, D::times_power_of_2(e, n));
}

template <class S>
void exponentials(const float* logits, std::size_t size, double top, double temperature, double* weights) {
    using D = Doubles<S>;
    std::size_t i = 0;
    for (; i + D::lanes <= size; i += D::lanes) {
        const auto x = D::divide(D::subtract(D::load(logits + i), D::set(top)), D::set(temperature));
        D::store(weights + i, exponential_of<D>(x));
    }
    for (; i < size; ++i) weights[i] = std::exp((logits[i] - top) / temperature);
}

template <>
inline void exponentials<Portable>(const float* logits, std::size_t size, double top, double temperature, double* weights) {
    for (std::size_t i = 0; i < size; ++i) weights[i] = std::exp((logits[i] - top) / temperature);
}

}  // namespace gpt2kit
