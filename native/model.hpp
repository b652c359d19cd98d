// A GPT-2 that can be run: packed weights, which somebody else keeps, and room for what a step computes.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "format.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "team.hpp"

namespace gpt2kit {

struct Shape {
    int vocabulary, window, width, layers, heads, inner_width;
    Activation activation;
    float epsilon;
    std::vector<float> attention_scales;  // a layer

    int head_width() const { return width / heads; }
};

// Vectors are filled up with zeros to a multiple of 64.
struct Norm {
    const float *gain, *bias;
};

struct Layer {
    Norm norm1, norm2;
    Matrix attention_in, attention_out, mlp_in, mlp_out;
};

struct Weights {
    Matrix tokens;           // embedding, and head where it is tied
    const float* positions;  // [window][width]
    std::vector<Layer> layers;
    Norm norm;
    Matrix head;
};

// The inputs of so few tokens each thread prepares for itself: cheaper than a meeting.
constexpr int FEW_TOKENS = 2;

// Room for the inputs of products of one width, in every reading that some format asks for.
class InputRoom {
public:
    InputRoom() = default;
    InputRoom(int tokens, int width, std::span<const Reading> readings);
    Inputs as(Reading reading) const;

private:
    std::size_t width_ = 0;
    Array<float> floats_, scales_;
    Array<std::uint16_t> bf16_;
    Array<std::int8_t> bytes_;
    Array<std::int32_t> sums_;
};

// What one slot does in a step, and where its wanted logits begin.
struct Row {
    int slot;
    std::span<const std::int32_t> ids;
    int wanted;  // logits of so many of its last ids
};

using Stop = std::function<bool()>;

class Model {
public:
    Model(Shape shape, Weights weights, int slots, bool bf16_cache, int threads, Isa isa);

    const Shape& shape() const { return shape_; }
    int slots() const { return static_cast<int>(lengths_.size()); }
    int length(int slot) const { return lengths_[slot]; }
    std::size_t bytes_per_id() const { return shape_.layers * shape_.heads * head_bytes() / round_up(shape_.window, KEY_BLOCK); }
    std::size_t logits_step() const { return panels_of(shape_.vocabulary) * static_cast<std::size_t>(PANEL); }
    Isa isa() const { return kernels_.isa; }

    // Append ids to slots. Once `stop`, asked after every layer, says yes: false, and the slots are as before.
    bool step(std::span<const Row> rows, const Stop& stop);
    // Of the last step, in the order of its rows, `logits_step()` floats each.
    const float* logits() const { return logits_.data(); }
    void truncate(int slot, int length);
    void share(int source, int target, int length);

private:
    // Ids of one row that are thought about together.
    struct Piece {
        int slot, held, first, count;  // ids in the cache before it; its first token among those of the pass
        int wanted;
    };

    bool think(std::span<const Piece> pieces, int tokens, float* logits, const Stop& stop);
    void embed(std::span<const Piece> pieces, Share tokens);
    void block(int index, std::span<const Piece> pieces, int tokens, int thread);
    void attend(int layer, std::span<const Piece> pieces, int thread);
    void give_logits(int thread, float* logits);
    Inputs norm_all(const Norm& norm, const Matrix& reader, int tokens, int thread);
    Inputs mixed_all(const Matrix& reader, int tokens, int thread);
    std::size_t head_bytes() const;
    std::uint8_t* cached(int slot, int layer, int head) const;

    const Shape shape_;
    const Weights weights_;
    const Kernels& kernels_;
    const bool bf16_cache_;
    std::vector<int> lengths_;  // of slots, in ids
    Buffer cache_;              // [slot][layer][head]: keys, then values
    Team team_;
    std::vector<std::int32_t> ids_;  // of the pass
    std::vector<int> wanted_;        // its tokens whose logits are wanted
    Array<float> x_, qkv_, mixed_, scores_;
    InputRoom shared_, inner_;
    std::vector<InputRoom> own_;  // a thread's, for few tokens
    Array<float> logits_;
};

}  // namespace gpt2kit
