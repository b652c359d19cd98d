// From plain matrices to panels: the quantisers.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "format.hpp"
#include "numbers.hpp"

namespace gpt2kit {

namespace {

// The 64 rows of a panel for the inputs of one group; what lies outside the matrix is zero.
template <int GROUP>
using Block = std::array<std::array<float, GROUP>, PANEL>;

template <int GROUP>
void read_block(const Plain& plain, int first_row, int first_column, Block<GROUP>& block) {
    const int rows = std::min(PANEL, plain.rows - first_row), columns = std::min(GROUP, plain.width - first_column);
    if (rows < PANEL || columns < GROUP) block = {};
    const float* corner = plain.data + first_row * plain.row_step + first_column * plain.column_step;
    if (plain.row_step < plain.column_step) {  // read in the order of memory
        for (int column = 0; column < columns; ++column)
            for (int row = 0; row < rows; ++row) block[row][column] = corner[row * plain.row_step + column * plain.column_step];
    } else {
        for (int row = 0; row < rows; ++row)
            for (int column = 0; column < columns; ++column)
                block[row][column] = corner[row * plain.row_step + column * plain.column_step];
    }
}

void pack_fp32(const Block<64>& block, std::uint8_t*& to) {
    auto* floats = reinterpret_cast<float*>(to);
    for (int column = 0; column < 64; ++column)
        for (int row = 0; row < PANEL; ++row) *floats++ = block[row][column];
    to = reinterpret_cast<std::uint8_t*>(floats);
}

void pack_bf16(const Block<64>& block, std::uint8_t*& to) {
    auto* numbers = reinterpret_cast<std::uint16_t*>(to);
    for (int column = 0; column < 64; column += 2)
        for (int row = 0; row < PANEL; ++row)
            for (int next = 0; next < 2; ++next) *numbers++ = to_bf16(block[row][column + next]);
    to = reinterpret_cast<std::uint8_t*>(numbers);
}

// Whole numbers -127..127, the largest weight of the group at one end.
void pack_int8(const Block<64>& block, std::uint8_t*& to) {
    auto* scales = reinterpret_cast<std::uint16_t*>(to);
    std::uint8_t* numbers = to + PANEL * 2;
    for (int row = 0; row < PANEL; ++row) {
        float largest = 0;
        for (const float weight : block[row]) largest = std::max(largest, std::fabs(weight));
        scales[row] = to_half(largest / 127);
        const float scale = from_half(scales[row]), inverse = scale > 0 ? 1 / scale : 0;
        for (int column = 0; column < INT8_GROUP; ++column) {
            const float number = std::clamp(std::nearbyint(block[row][column] * inverse), -127.f, 127.f);
            numbers[(column / 4 * PANEL + row) * 4 + column % 4] = static_cast<std::uint8_t>(128 + static_cast<int>(number));
        }
    }
    to = numbers + PANEL * INT8_GROUP;
}

using Group = std::array<float, INT4_GROUP>;

// 16 steps from an offset on; scale and offset are what halves hold.
struct Grid {
    float scale, offset;

    Grid(float wanted_scale, float wanted_offset)
        : scale(from_half(to_half(wanted_scale))), offset(from_half(to_half(wanted_offset))) {}
};

// The numbers nearest to the weights; returns the squared error. Sums of eight at a time, which compilers make vectors of.
float numbers_on(const Grid& grid, const Group& weights, Group& numbers) {
    const float inverse = grid.scale > 0 ? 1 / grid.scale : 0;
    constexpr float WHOLE = 12582912;  // 1.5 * 2^23: above it floats are whole numbers
    std::array<float, 8> errors{};
    for (int begin = 0; begin < INT4_GROUP; begin += 8)
        for (int i = 0; i < 8; ++i) {
            const float weight = weights[begin + i];
            const float whole = (weight - grid.offset) * inverse + WHOLE - WHOLE;
            const float number = std::min(std::max(whole, 0.f), 15.f), error = grid.offset + number * grid.scale - weight;
            numbers[begin + i] = number;
            errors[i] += error * error;
        }
    return ((errors[0] + errors[4]) + (errors[1] + errors[5])) + ((errors[2] + errors[6]) + (errors[3] + errors[7]));
}

// The line weight = offset + number * scale that fits best.
Grid line_through(const Group& numbers, const Group& weights) {
    float n = 0, nn = 0, w = 0, nw = 0;
    for (int i = 0; i < INT4_GROUP; ++i)
        n += numbers[i], nn += numbers[i] * numbers[i], w += weights[i], nw += numbers[i] * weights[i];
    const float spread = INT4_GROUP * nn - n * n, scale = spread > 0 ? (INT4_GROUP * nw - n * w) / spread : 0;
    return {scale, (w - scale * n) / INT4_GROUP};
}

// Of the grids that narrowing the range and fitting lines find, the one with the least squared error, and its numbers.
Grid best_grid(const Group& weights, Group& numbers) {
    const auto [lowest, highest] = std::minmax_element(weights.begin(), weights.end());
    const float middle = (*lowest + *highest) / 2, half_range = (*highest - *lowest) / 2;
    Grid best(half_range / 7.5f, *lowest);
    float least = numbers_on(best, weights, numbers);
    Group tried;
    for (const float narrowed : {1.f, 0.95f, 0.9f, 0.85f, 0.8f}) {
        Grid grid(half_range * narrowed / 7.5f, middle - half_range * narrowed);
        for (int fits = 0; fits < 3; ++fits) {
            if (const float error = numbers_on(grid, weights, tried); error < least) least = error, best = grid, numbers = tried;
            grid = line_through(tried, weights);
        }
    }
    return best;
}

void pack_int4(const Block<INT4_GROUP>& block, std::uint8_t*& to) {
    auto* scales = reinterpret_cast<std::uint16_t*>(to);
    std::uint8_t* numbers = to + PANEL * 4;
    std::memset(numbers, 0, PANEL * INT4_GROUP / 2);
    for (int row = 0; row < PANEL; ++row) {
        Group whole;
        const Grid grid = best_grid(block[row], whole);
        scales[row] = to_half(grid.scale);
        scales[PANEL + row] = to_half(grid.offset);
        for (int column = 0; column < INT4_GROUP; ++column) {
            const int number = static_cast<int>(whole[column]);
            numbers[(column / 8 * PANEL + row) * 4 + column % 4] |= static_cast<std::uint8_t>(number << column % 8 / 4 * 4);
        }
    }
    to = numbers + PANEL * INT4_GROUP / 2;
}

template <int GROUP, class PackBlock>
void pack_panels(const Plain& plain, int begin, int end, std::uint8_t* to, PackBlock pack_block) {
    Block<GROUP> block{};
    for (int panel = begin; panel < end; ++panel)
        for (int column = 0; column < filled_up(plain.width); column += GROUP) {
            if (column < plain.width) read_block<GROUP>(plain, panel * PANEL, column, block);
            else block = {};
            pack_block(block, to);
        }
}

}  // namespace

std::string_view name_of(Format format) {
    switch (format) {
        case Format::bf16: return "bf16";
        case Format::int8: return "int8";
        case Format::int4: return "int4";
        default: return "fp32";
    }
}

Format format_of(std::string_view name) {
    for (const Format format : {Format::fp32, Format::bf16, Format::int8, Format::int4})
        if (name_of(format) == name) return format;
    throw std::invalid_argument(std::string(name) + ": no format of weights; there are fp32, bf16, int8, int4");
}

void pack(Format format, const Plain& plain, int begin, int end, std::uint8_t* packed) {
    std::uint8_t* to = packed + begin * panel_bytes(format, plain.width);
    switch (format) {
        case Format::fp32: return pack_panels<64>(plain, begin, end, to, pack_fp32);
        case Format::bf16: return pack_panels<64>(plain, begin, end, to, pack_bf16);
        case Format::int8: return pack_panels<INT8_GROUP>(plain, begin, end, to, pack_int8);
        case Format::int4: return pack_panels<INT4_GROUP>(plain, begin, end, to, pack_int4);
    }
}

void unpack_row(const Matrix& matrix, int row, float* values) {
    const std::uint8_t* panel = matrix.panel(row / PANEL);
    const int lane = row % PANEL;
    for (int column = 0; column < matrix.width; ++column) {
        if (matrix.format == Format::fp32) {
            values[column] = reinterpret_cast<const float*>(panel)[column * PANEL + lane];
        } else if (matrix.format == Format::bf16) {
            const auto* pairs = reinterpret_cast<const std::uint16_t*>(panel);
            values[column] = from_bf16(pairs[(column / 2 * PANEL + lane) * 2 + column % 2]);
        } else if (matrix.format == Format::int8) {
            const std::uint8_t* group = panel + column / INT8_GROUP * (PANEL * 2 + PANEL * INT8_GROUP);
            const float scale = from_half(reinterpret_cast<const std::uint16_t*>(group)[lane]);
            const int place = column % INT8_GROUP;
            values[column] = scale * static_cast<float>(group[PANEL * 2 + (place / 4 * PANEL + lane) * 4 + place % 4] - 128);
        } else {
            const std::uint8_t* group = panel + column / INT4_GROUP * (PANEL * 4 + PANEL * INT4_GROUP / 2);
            const auto* halves = reinterpret_cast<const std::uint16_t*>(group);
            const int place = column % INT4_GROUP;
            const int both = group[PANEL * 4 + (place / 8 * PANEL + lane) * 4 + place % 4];
            const int number = place % 8 < 4 ? both & 15 : both >> 4;
            values[column] = from_half(halves[PANEL + lane]) + from_half(halves[lane]) * static_cast<float>(number);
        }
    }
}

}  // namespace gpt2kit
