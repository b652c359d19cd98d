// How the matrices of a model lie in memory: panels of 64 rows, a row an output, so that a vector's lane is an output.
//
// A panel holds its 64 rows interleaved, for the first inputs first, and sums over inputs need no sums across lanes.
// The width is filled up with zeros to a multiple of 64. In memory, for each panel one after the other:
//   fp32   for every input:           64 floats
//   bf16   for every 2 inputs:        64 pairs of bfloat16
//   int8   for every 64 inputs:       64 halves (scale), then for every 4 inputs 64 x 4 bytes (128 + whole number)
//   int4   for every 32 inputs:       64 halves (scale), then for every 8 inputs 64 x 4 bytes, of which the low halves are
//                                     for the first 4, the high ones for the others (number of a level)
//   int6   for every 64 inputs:       as int8 without the last 2 bits: first the middle 4, laid out as int4's numbers, then
//                                     the top 2, for every 16 inputs 64 x 4 bytes, the lowest bits for the first 4
// A weight is its whole number, or level, times the scale of its row's group.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "memory.hpp"

namespace gpt2kit {

enum class Format { fp32, bf16, int8, int6, int4 };

constexpr int PANEL = 64;
constexpr int INT8_GROUP = 64;  // and of int6
constexpr int INT4_GROUP = 32;
// With these and an exact 0 groups of normally distributed weights err least, a fifth less than in even steps. Lloyd 1982.
constexpr std::array<std::int8_t, 16> INT4_LEVELS{-127, -100, -79, -62, -48, -35, -23, -11, 0, 11, 22, 34, 48, 63, 82, 108};

std::string_view name_of(Format format);
Format format_of(std::string_view name);  // Throws std::invalid_argument.

inline int filled_up(int width) { return static_cast<int>(round_up(width, PANEL)); }
inline int panels_of(int rows) { return (rows + PANEL - 1) / PANEL; }

inline std::size_t panel_bytes(Format format, int width) {
    const std::size_t columns = filled_up(width);
    switch (format) {
        case Format::fp32: return columns * PANEL * 4;
        case Format::bf16: return columns * PANEL * 2;
        case Format::int8: return columns / INT8_GROUP * (PANEL * 2 + PANEL * INT8_GROUP);
        case Format::int6: return columns / INT8_GROUP * (PANEL * 2 + PANEL * INT8_GROUP * 6 / 8);
        default: return columns / INT4_GROUP * (PANEL * 2 + PANEL * INT4_GROUP / 2);
    }
}

// A packed matrix, which somebody else keeps: `rows` outputs of `width` inputs each.
struct Matrix {
    Format format = Format::fp32;
    int rows = 0, width = 0;
    const std::uint8_t* data = nullptr;
    const float* bias = nullptr;  // filled up to whole panels

    int panels() const { return panels_of(rows); }
    const std::uint8_t* panel(int index) const { return data + index * panel_bytes(format, width); }
};

// A plain matrix: the weight of output `row` for input `column` is data[row * row_step + column * column_step].
struct Plain {
    const float* data;
    int rows, width;
    std::ptrdiff_t row_step, column_step;
};

inline std::size_t packed_bytes(Format format, int rows, int width) {
    return panels_of(rows) * panel_bytes(format, width);
}

// Fill the panels [begin, end) of `packed`, which has room for all.
void pack(Format format, const Plain& plain, int begin, int end, std::uint8_t* packed);

// Row `row` of a packed matrix as floats, `width` of them.
void unpack_row(const Matrix& matrix, int row, float* values);

}  // namespace gpt2kit
