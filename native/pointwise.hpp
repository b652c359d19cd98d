// What happens to the numbers of one token by themselves: exponential, activation, layer norm, and what products read.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels.hpp"

// Loops over registers, which exist only when the loop is written out.
#define GPT2KIT_UNROLLED _Pragma("GCC unroll 8")

namespace gpt2kit {

// e^x within 2 units in the last place; below -87 it stays at e^-87. Source: Moshier's Cephes, expf.c.
template <class S>
typename S::Float exponential(typename S::Float x) {
    x = S::smaller(S::larger(x, S::set(-87.f)), S::set(88.f));
    const auto n = S::nearest(S::multiply(x, S::set(1.44269504f)));
    auto r = S::multiply_add(n, S::set(-0.693359375f), x);
    r = S::multiply_add(n, S::set(2.12194440e-4f), r);
    auto p = S::set(1.9875691500e-4f);
    for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
        p = S::multiply_add(p, r, S::set(c));
    p = S::multiply_add(p, S::multiply(r, r), S::add(r, S::set(1.f)));
    return S::times_power_of_2(p, n);
}

// x / 2 * (1 + tanh(u)) = x / (1 + e^-2u). Source: Hendrycks and Gimpel 2016, section 2.
template <class S>
typename S::Float gelu_tanh(typename S::Float x) {
    const auto cube = S::multiply(S::multiply(x, x), x);
    const auto u = S::multiply_add(S::set(0.044715f), cube, x);
    return S::divide(x, S::add(S::set(1.f), exponential<S>(S::multiply(S::set(-1.5957691216f), u))));
}

// Of 64 numbers.
template <class S>
void activate(Activation activation, float* values) {
    if (activation == Activation::none) return;
    for (int i = 0; i < PANEL; i += S::lanes) {
        if (activation == Activation::gelu_tanh) S::store(values + i, gelu_tanh<S>(S::load(values + i)));
        else if (activation == Activation::relu) S::store(values + i, S::larger(S::load(values + i), S::set(0)));
        else
            for (int j = i; j < i + S::lanes; ++j) values[j] *= 0.5f * (1 + std::erf(values[j] * 0.70710678f));
    }
}

// Bytes -127..127 of `GROUP` floats, the largest at one end.
template <class S, int GROUP>
void prepare_bytes(const Inputs& inputs, std::size_t place, const float* values) {
    auto magnitude = S::absolute(S::load(values));
    for (int i = S::lanes; i < GROUP; i += S::lanes) magnitude = S::larger(magnitude, S::absolute(S::load(values + i)));
    const float largest = S::largest(magnitude), inverse = largest > 0 ? 127 / largest : 0;
    auto sums = S::set_int(0);
    for (int i = 0; i < GROUP; i += S::lanes) {
        const auto numbers = S::nearest(S::multiply(S::load(values + i), S::set(inverse)));
        sums = S::add_int(sums, S::store_bytes(inputs.bytes + place + i, numbers));
    }
    inputs.scales[place / GROUP] = largest / 127;
    inputs.sums[place / GROUP] = S::sum_int(sums);
}

template <class S>
void prepare(const Inputs& inputs, std::size_t token, std::size_t column, const float* values) {
    const std::size_t place = token * inputs.width + column;
    switch (inputs.reading) {
        case Reading::floats:
            for (int i = 0; i < PANEL; i += S::lanes) S::store(inputs.floats + place + i, S::load(values + i));
            return;
        case Reading::bf16:
            for (int i = 0; i < PANEL; i += S::lanes) S::store_bf16(inputs.bf16 + place + i, S::load(values + i));
            return;
        case Reading::bytes64: return prepare_bytes<S, 64>(inputs, place, values);
        case Reading::bytes32:
            prepare_bytes<S, 32>(inputs, place, values);
            return prepare_bytes<S, 32>(inputs, place + 32, values + 32);
    }
}

// NaN if one of them is.
template <class S>
float highest(const float* x, std::size_t size) {
    const auto none = S::set(-std::numeric_limits<float>::infinity());
    auto top = none;
    bool numbers = true;
    std::size_t i = 0;
    for (; i + S::lanes <= size; i += S::lanes) {
        const auto some = S::load(x + i);
        top = S::larger(top, some);
        numbers &= !S::any_nan(some);
    }
    float found = S::largest(top);
    for (; i < size; ++i) {
        found = std::max(found, x[i]);
        numbers &= x[i] == x[i];
    }
    return numbers ? found : std::numeric_limits<float>::quiet_NaN();
}

// Of e^(x - top), where top is the highest.
template <class S>
double sum_of_exponentials(const float* x, std::size_t size, float top) {
    constexpr std::size_t PART = 1024;  // summed in floats
    double total = 0;
    for (std::size_t begin = 0; begin < size; begin += PART) {
        auto sum = S::set(0);
        const std::size_t end = std::min(begin + PART, size);
        for (std::size_t i = begin; i < end; i += S::lanes) {
            alignas(CACHE_LINE) float last[S::lanes] = {};
            const bool whole = i + S::lanes <= size;
            if (!whole) std::memcpy(last, x + i, (size - i) * sizeof(float));
            const auto below = S::subtract(S::load(whole ? x + i : last), S::set(top));
            sum = S::add(sum, S::first_of(static_cast<int>(size - i), exponential<S>(below), S::set(0)));
        }
        total += S::sum(sum);
    }
    return total;
}

// Ba et al. 2016. What lies beyond `width` counts for nothing.
template <class S>
void norm(const float* x, int width, const float* gain, const float* bias, float epsilon, const Inputs& inputs, std::size_t token) {
    const auto zero = S::set(0);
    auto total = zero;
    for (int i = 0; i < width; i += S::lanes) total = S::add(total, S::first_of(width - i, S::load(x + i), zero));
    const auto mean = S::set(S::sum(total) / static_cast<float>(width));
    auto squares = zero;
    for (int i = 0; i < width; i += S::lanes) {
        const auto difference = S::first_of(width - i, S::subtract(S::load(x + i), mean), zero);
        squares = S::multiply_add(difference, difference, squares);
    }
    const auto factor = S::set(1 / std::sqrt(S::sum(squares) / static_cast<float>(width) + epsilon));
    alignas(CACHE_LINE) float values[PANEL];
    for (std::size_t column = 0; column < inputs.width; column += PANEL) {
        for (int i = 0; i < PANEL; i += S::lanes) {
            const auto normal = S::multiply(S::subtract(S::load(x + column + i), mean), factor);
            S::store(values + i, S::multiply_add(normal, S::load(gain + column + i), S::load(bias + column + i)));
        }
        prepare<S>(inputs, token, column, values);
    }
}

}  // namespace gpt2kit
