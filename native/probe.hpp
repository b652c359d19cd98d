// How fast threads read memory: the limit of a model that reads all of its weights for every token.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gpt2kit {

// Bytes a second, once through.
double read_speed(const std::uint8_t* memory, std::size_t bytes, int threads);

}  // namespace gpt2kit
