// From ids to logits: what all threads of a team do together in one pass. Radford et al. 2019.
#include <algorithm>

#include "model.hpp"

namespace gpt2kit {

bool Model::think(std::span<const Piece> pieces, int tokens, float* logits, const Stop& stop) {
    bool stopped = false;
    wanted_.clear();
    for (const Piece& piece : pieces)
        for (int token = piece.count - piece.wanted; token < piece.count; ++token) wanted_.push_back(piece.first + token);
    team_.run([&](int thread) {
        embed(pieces, Share(tokens, thread, team_.size()));
        team_.meet();
        for (int index = 0; index < shape_.layers; ++index) {
            block(index, pieces, tokens, thread);
            if (!thread) stopped = stop();
            team_.meet();
            if (stopped) return;
        }
        if (!wanted_.empty()) give_logits(thread, logits);
    });
    return !stopped;
}

void Model::embed(std::span<const Piece> pieces, Share tokens) {
    const std::size_t width = filled_up(shape_.width);
    for (const Piece& piece : pieces) {
        const int begin = std::max(tokens.begin, piece.first), end = std::min(tokens.end, piece.first + piece.count);
        for (int token = begin; token < end; ++token) {
            float* x = x_.data() + token * width;
            unpack_row(weights_.tokens, ids_[token], x);
            const std::size_t position = piece.held + token - piece.first;
            const float* learnt = weights_.positions + position * shape_.width;
            for (int i = 0; i < shape_.width; ++i) x[i] += learnt[i];
        }
    }
}

void Model::block(int index, std::span<const Piece> pieces, int tokens, int thread) {
    const Layer& layer = weights_.layers[index];
    const auto share = [&](const Matrix& matrix) { return Share(matrix.panels(), thread, team_.size()); };
    const std::size_t width = filled_up(shape_.width), qkv_width = filled_up(3 * shape_.width);
    const Output to_qkv{.floats = qkv_.data(), .step = qkv_width};
    const Output onto_x{.floats = x_.data(), .step = width, .added = true};
    const Inputs inner = inner_.as(kernels_.reading(layer.mlp_out.format));

    const Inputs for_attention = norm_all(layer.norm1, layer.attention_in, tokens, thread);
    kernels_.multiply(layer.attention_in, share(layer.attention_in), for_attention, tokens, to_qkv);
    team_.meet();
    attend(index, pieces, thread);
    team_.meet();
    const Inputs mixed = mixed_all(layer.attention_out, tokens, thread);
    kernels_.multiply(layer.attention_out, share(layer.attention_out), mixed, tokens, onto_x);
    team_.meet();
    const Inputs for_mlp = norm_all(layer.norm2, layer.mlp_in, tokens, thread);
    const Output to_inner{.activation = shape_.activation, .inputs = &inner};
    kernels_.multiply(layer.mlp_in, share(layer.mlp_in), for_mlp, tokens, to_inner);
    team_.meet();
    kernels_.multiply(layer.mlp_out, share(layer.mlp_out), inner, tokens, onto_x);
}

void Model::attend(int layer, std::span<const Piece> pieces, int thread) {
    const std::size_t width = filled_up(shape_.width), qkv_width = filled_up(3 * shape_.width);
    const std::size_t window = round_up(shape_.window, KEY_BLOCK), number = bf16_cache_ ? 2 : 4;
    const Share share(static_cast<int>(pieces.size()) * shape_.heads, thread, team_.size());
    for (int work = share.begin; work < share.end; ++work) {
        const Piece& piece = pieces[work / shape_.heads];
        const int head = work % shape_.heads;
        std::uint8_t* keys = cached(piece.slot, layer, head);
        kernels_.attend({
            .qkv = qkv_.data() + piece.first * qkv_width,
            .step = qkv_width,
            .width = shape_.width,
            .head_width = shape_.head_width(),
            .head = head,
            .scale = shape_.attention_scales[layer],
            .held = piece.held,
            .fresh = piece.count,
            .keys = keys,
            .values = keys + window * shape_.head_width() * number,
            .bf16_cache = bf16_cache_,
            .scores = scores_.data() + thread * kernels_.queries * window,
            .scores_step = window,
            .out = mixed_.data() + piece.first * width,
            .out_step = width,
        });
    }
}

void Model::give_logits(int thread, float* logits) {
    const int count = static_cast<int>(wanted_.size());
    const Inputs inputs = shared_.as(kernels_.reading(weights_.head.format));
    const Share mine(count, thread, team_.size());
    const std::size_t width = filled_up(shape_.width);
    for (int i = mine.begin; i < mine.end; ++i)
        kernels_.norm(x_.data() + wanted_[i] * width, shape_.width, weights_.norm.gain, weights_.norm.bias, shape_.epsilon, inputs, i);
    team_.meet();
    const Output to_logits{.floats = logits, .step = logits_step()};
    kernels_.multiply(weights_.head, Share(weights_.head.panels(), thread, team_.size()), inputs, count, to_logits);
}

// The inputs of `reader` for all tokens; those made together are good after a meeting.
Inputs Model::norm_all(const Norm& norm, const Matrix& reader, int tokens, int thread) {
    const bool few = tokens <= FEW_TOKENS;
    const Inputs inputs = (few ? own_[thread] : shared_).as(kernels_.reading(reader.format));
    const Share mine = few ? Share(tokens, 0, 1) : Share(tokens, thread, team_.size());
    const std::size_t width = filled_up(shape_.width);
    for (int token = mine.begin; token < mine.end; ++token)
        kernels_.norm(x_.data() + token * width, shape_.width, norm.gain, norm.bias, shape_.epsilon, inputs, token);
    if (!few) team_.meet();
    return inputs;
}

Inputs Model::mixed_all(const Matrix& reader, int tokens, int thread) {
    const bool few = tokens <= FEW_TOKENS;
    const Inputs inputs = (few ? own_[thread] : shared_).as(kernels_.reading(reader.format));
    const Share mine = few ? Share(tokens, 0, 1) : Share(tokens, thread, team_.size());
    for (int token = mine.begin; token < mine.end; ++token)
        for (std::size_t column = 0; column < inputs.width; column += PANEL)
            kernels_.prepare(inputs, token, column, mixed_.data() + token * inputs.width + column);
    if (!few) team_.meet();
    return inputs;
}

}  // namespace gpt2kit
