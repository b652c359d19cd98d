#include "sample.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace gpt2kit {

namespace {

struct Candidate {
    int id;
    double logit;  // after temperature, the highest being 0
};

// The k-th largest of the logits: ties with it survive.
float kth_largest(const float* logits, int vocabulary, int k) {
    std::vector<float> heap(logits, logits + k);  // the smallest of the k largest on top
    std::make_heap(heap.begin(), heap.end(), std::greater<>());
    for (int id = k; id < vocabulary; ++id) {
        if (logits[id] <= heap.front()) continue;
        std::pop_heap(heap.begin(), heap.end(), std::greater<>());
        heap.back() = logits[id];
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
    return heap.front();
}

// Sums go in order of id, as numpy's cumsum does.
double soften(const std::vector<Candidate>& candidates, std::vector<double>& weights) {
    double highest = candidates.front().logit, total = 0;
    for (const auto& candidate : candidates) highest = std::max(highest, candidate.logit);
    weights.resize(candidates.size());
    for (std::size_t i = 0; i < candidates.size(); ++i) total += weights[i] = std::exp(candidates[i].logit - highest);
    return total;
}

// Holtzman et al. 2020, section 3.1: the smallest set whose probabilities reach p.
void keep_top_p(std::vector<Candidate>& candidates, double p) {
    std::vector<double> weights;
    const double total = soften(candidates, weights);
    std::vector<int> order(candidates.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    const auto likelier = [&](int a, int b) { return candidates[a].logit > candidates[b].logit || (candidates[a].logit == candidates[b].logit && a < b); };
    std::vector<char> kept(candidates.size());
    double sum = 0;
    // Most of a vocabulary is never reached: sort as much as is looked at.
    std::size_t sorted = 0;
    for (std::size_t next = 0; next < order.size() && sum < p; ++next) {
        if (next == sorted) {
            sorted = std::min(order.size(), std::max<std::size_t>(64, sorted * 4));
            std::partial_sort(order.begin() + next, order.begin() + sorted, order.end(), likelier);
        }
        kept[order[next]] = 1;
        sum += weights[order[next]] / total;
    }
    std::size_t place = 0;
    std::erase_if(candidates, [&](const Candidate&) { return !kept[place++]; });
}

}  // namespace

double log_sum_exp(const Kernels& kernels, const float* logits, int vocabulary) {
    const float highest = kernels.highest(logits, vocabulary);
    if (!std::isfinite(highest)) return NAN;
    return highest + std::log(kernels.sum_of_exponentials(logits, vocabulary, highest));
}

namespace {

// Without filters: nothing has to be gathered, and what is left out weighs nothing.
std::int64_t sample_of_all(const Kernels& kernels, const float* logits, int vocabulary, float highest, const Sampling& sampling) {
    std::vector<double> weights(vocabulary);
    kernels.exponentials(logits, vocabulary, highest, sampling.temperature, weights.data());
    double sum = 0, end = 0;
    for (const double weight : weights) sum += weight;
    for (double& weight : weights) weight = end += weight / sum;
    const auto place = std::upper_bound(weights.begin(), weights.end(), sampling.uniform * end);
    if (place != weights.end()) return place - weights.begin();
    return std::lower_bound(weights.begin(), weights.end(), end) - weights.begin();  // the last that weighs something
}

}  // namespace

std::int64_t sample(const Kernels& kernels, const float* logits, int vocabulary, const Sampling& sampling) {
    const float highest = kernels.highest(logits, vocabulary);
    if (!std::isfinite(highest)) return -1;
    if (sampling.temperature == 0) return std::find(logits, logits + vocabulary, highest) - logits;
    const bool few = sampling.top_k && sampling.top_k < vocabulary, cut = sampling.top_p > 0 && sampling.top_p < 1;
    if (!few && !cut) return sample_of_all(kernels, logits, vocabulary, highest, sampling);
    const float least = few ? kth_largest(logits, vocabulary, sampling.top_k) : -INFINITY;
    std::vector<Candidate> candidates;
    if (!few) candidates.reserve(vocabulary);
    for (int id = 0; id < vocabulary; ++id)
        if (logits[id] >= least && logits[id] > -INFINITY)
            candidates.push_back({id, (static_cast<double>(logits[id]) - highest) / sampling.temperature});
    if (cut) keep_top_p(candidates, sampling.top_p);
    std::vector<double> weights;
    const double sum = soften(candidates, weights);
    double end = 0;
    for (double& weight : weights) weight = end += weight / sum;
    const double drawn = sampling.uniform * end;
    const auto place = std::upper_bound(weights.begin(), weights.end(), drawn) - weights.begin();
    return candidates[std::min<std::size_t>(place, candidates.size() - 1)].id;
}

}  // namespace gpt2kit
