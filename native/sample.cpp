#include "sample.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace gpt2kit {

namespace {

// The k-th largest of the logits: ties with it survive.
float kth_largest(const float* logits, int vocabulary, int k) {
    std::vector<float> largest(logits, logits + k);
    std::make_heap(largest.begin(), largest.end(), std::greater<>());  // the smallest of them on top
    for (int id = k; id < vocabulary; ++id) {
        if (logits[id] <= largest.front()) continue;
        std::pop_heap(largest.begin(), largest.end(), std::greater<>());
        largest.back() = logits[id];
        std::push_heap(largest.begin(), largest.end(), std::greater<>());
    }
    return largest.front();
}

constexpr int BUCKETS = 1024;

// Holtzman et al. 2020, section 3.1: the smallest set whose probabilities reach p, equal logits in order of id; the others
// weigh nothing any more. Only the bucket where p is reached is sorted: who is in a likelier one stays.
void keep_top_p(const float* logits, std::vector<double>& weights, double p) {
    float highest = -INFINITY, lowest = INFINITY;
    double total = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        if (weights[i] == 0) continue;
        highest = std::max(highest, logits[i]);
        lowest = std::min(lowest, logits[i]);
        total += weights[i];
    }
    const float scale = highest > lowest ? (BUCKETS - 1) / (highest - lowest) : 0;
    const auto bucket = [&](std::size_t i) { return static_cast<int>((highest - logits[i]) * scale); };
    std::array<double, BUCKETS> shares{};
    for (std::size_t i = 0; i < weights.size(); ++i)
        if (weights[i] > 0) shares[bucket(i)] += weights[i] / total;
    int last = 0;
    double sum = 0;
    while (last < BUCKETS - 1 && sum + shares[last] < p) sum += shares[last++];
    std::vector<std::size_t> border;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        if (weights[i] == 0) continue;
        if (const int place = bucket(i); place > last) weights[i] = 0;
        else if (place == last) border.push_back(i);
    }
    std::sort(border.begin(), border.end(), [&](std::size_t a, std::size_t b) { return logits[a] > logits[b] || (logits[a] == logits[b] && a < b); });
    for (const std::size_t i : border) {
        if (sum >= p) weights[i] = 0;
        sum += weights[i] / total;
    }
}

}  // namespace

double log_sum_exp(const Kernels& kernels, const float* logits, int vocabulary) {
    const float highest = kernels.highest(logits, vocabulary);
    if (!std::isfinite(highest)) return NAN;
    return highest + std::log(kernels.sum_of_exponentials(logits, vocabulary, highest));
}

std::int64_t sample(const Kernels& kernels, const float* logits, int vocabulary, const Sampling& sampling) {
    const float highest = kernels.highest(logits, vocabulary);
    if (!std::isfinite(highest)) return -1;
    if (sampling.temperature == 0) return std::find(logits, logits + vocabulary, highest) - logits;
    std::vector<int> ids;  // of the candidates; empty: all are
    std::vector<float> few;
    if (sampling.top_k && sampling.top_k < vocabulary) {
        const float least = kth_largest(logits, vocabulary, sampling.top_k);
        for (int id = 0; id < vocabulary; ++id)
            if (logits[id] >= least && logits[id] > -INFINITY) {
                ids.push_back(id);
                few.push_back(logits[id]);
            }
        logits = few.data();
    }
    std::vector<double> weights(ids.empty() ? vocabulary : ids.size());
    kernels.exponentials(logits, weights.size(), highest, sampling.temperature, weights.data());
    if (sampling.top_p > 0 && sampling.top_p < 1) keep_top_p(logits, weights, sampling.top_p);
    double sum = 0, end = 0;
    for (const double weight : weights) sum += weight;
    for (double& weight : weights) weight = end += weight / sum;
    auto place = std::upper_bound(weights.begin(), weights.end(), sampling.uniform * end);
    if (place == weights.end()) place = std::lower_bound(weights.begin(), weights.end(), end);  // the last that weighs something
    const auto chosen = place - weights.begin();
    return ids.empty() ? chosen : ids[chosen];
}

}  // namespace gpt2kit
