// The choice of a token: temperature, top_k and top_p as generate/sampling.py defines them, for batches that numpy is slow for.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.hpp"

namespace gpt2kit {

struct Sampling {
    double temperature;  // 0: the likeliest, of equal ones the lowest id
    int top_k;           // 0: all
    double top_p;        // 1: all
    double uniform;      // in [0, 1): decides
};

// An id for one row of logits; -1 where they are not numbers, or none can be chosen.
std::int64_t sample(const Kernels& kernels, const float* logits, int vocabulary, const Sampling& sampling);

// The logarithm of the sum of e^logit, NaN where the logits are not numbers.
double log_sum_exp(const Kernels& kernels, const float* logits, int vocabulary);

}  // namespace gpt2kit
