// One instruction set's kernels, from the templates that all share.
#pragma once

#include "attention.hpp"
#include "exponential.hpp"
#include "kernels.hpp"
#include "matmul.hpp"
#include "pointwise.hpp"

namespace gpt2kit {

template <class S>
constexpr Kernels table(Isa isa) {
    return {isa, reading<S>, multiply<S>, prepare<S>, norm<S>, attend<S>, highest<S>, sum_of_exponentials<S>, exponentials<S>, S::queries};
}

}  // namespace gpt2kit
