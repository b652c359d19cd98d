#include "model.hpp"

#include <algorithm>
#include <cstring>

namespace gpt2kit {

namespace {

constexpr int PASS_TOKENS = 256;  // thought about together, so that what a step computes stays in the cache

std::vector<Reading> readings(const Weights& weights, const Kernels& kernels) {
    return {kernels.reading(weights.head.format), kernels.reading(weights.layers.front().mlp_in.format)};
}

}  // namespace

InputRoom::InputRoom(int tokens, int width, std::span<const Reading> readings) : width_(filled_up(width)) {
    const std::size_t size = tokens * width_;
    for (const Reading reading : readings) {
        if (reading == Reading::floats && !floats_.size()) floats_ = Array<float>(size);
        if (reading == Reading::bf16 && !bf16_.size()) bf16_ = Array<std::uint16_t>(size);
        if ((reading == Reading::bytes64 || reading == Reading::bytes32) && !bytes_.size()) {
            bytes_ = Array<std::int8_t>(size);
            scales_ = Array<float>(size / 32);
            sums_ = Array<std::int32_t>(size / 32);
        }
    }
}

Inputs InputRoom::as(Reading reading) const {
    return {reading, width_, floats_.data(), bf16_.data(), bytes_.data(), scales_.data(), sums_.data()};
}

Model::Model(Shape shape, Weights weights, int slots, bool bf16_cache, int threads, Isa isa)
    : shape_(std::move(shape)), weights_(std::move(weights)), kernels_(kernels_of(isa)), bf16_cache_(bf16_cache),
      lengths_(slots), cache_(slots * shape_.layers * shape_.heads * head_bytes()), team_(threads), ids_(PASS_TOKENS) {
    const std::size_t width = filled_up(shape_.width);
    const auto all = readings(weights_, kernels_);
    x_ = Array<float>(PASS_TOKENS * width);
    qkv_ = Array<float>(PASS_TOKENS * static_cast<std::size_t>(filled_up(3 * shape_.width)));
    mixed_ = Array<float>(PASS_TOKENS * width);
    for (const auto* zeroed : {&x_, &mixed_}) std::memset(zeroed->data(), 0, zeroed->size() * sizeof(float));
    scores_ = Array<float>(team_.size() * kernels_.queries * round_up(shape_.window, KEY_BLOCK));
    shared_ = InputRoom(PASS_TOKENS, shape_.width, all);
    inner_ = InputRoom(PASS_TOKENS, shape_.inner_width, all);
    for (int thread = 0; thread < team_.size(); ++thread) own_.emplace_back(FEW_TOKENS, shape_.width, all);
}

bool Model::step(std::span<const Row> rows, const Stop& stop) {
    std::size_t wanted = 0;
    for (const Row& row : rows) wanted += row.wanted;
    if (wanted * logits_step() > logits_.size()) logits_ = Array<float>(wanted * logits_step());
    const std::vector<int> before = lengths_;
    std::vector<Piece> pieces;
    int tokens = 0;
    float* logits = logits_.data();
    const auto think_so_far = [&] {
        if (!think(pieces, tokens, logits, stop)) {
            lengths_ = before;
            return false;
        }
        for (const Piece& piece : pieces) logits += piece.wanted * logits_step();
        pieces.clear();
        tokens = 0;
        return true;
    };
    for (const Row& row : rows) {
        const int size = static_cast<int>(row.ids.size());
        for (int begin = 0; begin < size;) {
            const int count = std::min(size - begin, PASS_TOKENS - tokens), left = size - begin - count;
            std::copy_n(row.ids.begin() + begin, count, ids_.begin() + tokens);
            pieces.push_back({row.slot, lengths_[row.slot], tokens, count, std::clamp(row.wanted - left, 0, count)});
            lengths_[row.slot] += count;
            begin += count;
            if ((tokens += count) == PASS_TOKENS && !think_so_far()) return false;
        }
    }
    return !tokens || think_so_far();
}

void Model::truncate(int slot, int length) {
    if (length >= lengths_[slot]) return;
    lengths_[slot] = length;
    const std::size_t slot_bytes = shape_.layers * shape_.heads * head_bytes();
    if (!length) cache_.forget(slot * slot_bytes, (slot + 1) * slot_bytes);
}

void Model::share(int source, int target, int length) {
    const std::size_t number = bf16_cache_ ? 2 : 4, window = round_up(shape_.window, KEY_BLOCK);
    const std::size_t keys = round_up(length, KEY_BLOCK) * shape_.head_width() * number;
    const std::size_t values = length * round_up(shape_.head_width(), KEY_BLOCK) * number;
    const std::size_t values_begin = window * shape_.head_width() * number;
    for (int layer = 0; layer < shape_.layers; ++layer)
        for (int head = 0; head < shape_.heads; ++head) {
            const std::uint8_t* from = cached(source, layer, head);
            std::uint8_t* to = cached(target, layer, head);
            std::memcpy(to, from, keys);
            std::memcpy(to + values_begin, from + values_begin, values);
        }
    lengths_[target] = length;
}

std::size_t Model::head_bytes() const {
    const std::size_t numbers = shape_.head_width() + round_up(shape_.head_width(), KEY_BLOCK);
    return round_up(round_up(shape_.window, KEY_BLOCK) * numbers * (bf16_cache_ ? 2 : 4), CACHE_LINE);
}

std::uint8_t* Model::cached(int slot, int layer, int head) const {
    const std::size_t place = (static_cast<std::size_t>(slot) * shape_.layers + layer) * shape_.heads + head;
    return cache_.as<std::uint8_t>() + place * head_bytes();
}

}  // namespace gpt2kit
