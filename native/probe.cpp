#include "probe.hpp"

#include <atomic>
#include <chrono>
#include <cstring>

#include "team.hpp"

namespace gpt2kit {

namespace {

std::uint64_t sum(const std::uint8_t* memory, std::size_t bytes) {
    std::uint64_t sums[32] = {};  // as many as hide the time an addition takes
    for (std::size_t place = 0; place + sizeof sums <= bytes; place += sizeof sums) {
        std::uint64_t words[32];
        std::memcpy(words, memory + place, sizeof words);
        for (int i = 0; i < 32; ++i) sums[i] += words[i];
    }
    std::uint64_t total = 0;
    for (const auto part : sums) total += part;
    return total;
}

}  // namespace

double read_speed(const std::uint8_t* memory, std::size_t bytes, int threads) {
    Team team(threads);
    std::atomic<std::uint64_t> total{0};
    team.run([](int) {});  // awake
    const auto begun = std::chrono::steady_clock::now();
    team.run([&](int thread) {
        const std::size_t begin = bytes / threads * thread, size = bytes / threads;
        total += sum(memory + begin, size);
    });
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    return static_cast<double>(bytes) / took.count();
}

}  // namespace gpt2kit
