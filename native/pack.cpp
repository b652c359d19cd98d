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

constexpr float WHOLE = 12582912;  // 1.5 * 2^23: above it floats are whole numbers, above four times it multiples of 4

// What is no number becomes the lowest.
float between(float lowest, float value, float highest) {
    const float high = value > lowest ? value : lowest;
    return high < highest ? high : highest;
}

// Levels have the FIRST, and scales to be TRIED: parts of the one that puts the weight farthest from 0 at the first level;
// below 0 they put it at the other end.

// Of int6: every fourth whole number, so that they are int8's without the last bits.
struct EvenLevels {
    static constexpr float FIRST = -128;
    static constexpr std::array TRIED{1.1f, 1.05f, 1.f, 0.95f, 0.9f, 0.85f, 0.8f};

    static float nearest(float value) { return between(FIRST, value + 4 * WHOLE - 4 * WHOLE, 124); }
};

// Of int4: close together where most weights are.
struct UnevenLevels {
    static constexpr float FIRST = INT4_LEVELS[0];
    static constexpr std::array TRIED{1.1f, 1.f, 0.9f, 0.8f, -1.2f, -1.05f, -0.9f};
    // The number of the level nearest to each whole number from -127 on.
    static constexpr auto NUMBERS = [] {
        std::array<std::uint8_t, 255> numbers{};
        for (int whole = -127; whole <= 127; ++whole)
            for (int number = 1; number < 16; ++number)
                if (2 * whole > INT4_LEVELS[number - 1] + INT4_LEVELS[number]) numbers[whole + 127] = number;
        return numbers;
    }();
    static constexpr auto NEAREST = [] {
        std::array<float, 255> levels{};
        for (std::size_t i = 0; i < levels.size(); ++i) levels[i] = INT4_LEVELS[NUMBERS[i]];
        return levels;
    }();

    static int number(float level) { return NUMBERS[127 + static_cast<int>(level)]; }
    static float nearest(float value) { return NEAREST[static_cast<int>(between(0, value + 127.5f, 254))]; }
};

// The levels nearest to the weights of a group, for a scale that a half holds.
template <class Levels, std::size_t GROUP>
struct Rounding {
    std::array<float, GROUP> levels;
    float scale, error;  // the sum of squares

    Rounding(const std::array<float, GROUP>& weights, float wanted_scale) : scale(from_half(to_half(wanted_scale))) {
        const float inverse = scale != 0 ? 1 / scale : 0;
        for (std::size_t i = 0; i < GROUP; ++i) levels[i] = Levels::nearest(weights[i] * inverse);
        error = sum([&](std::size_t i) { return squared(levels[i] * scale - weights[i]); });
    }

    // The scale that fits these levels best.
    float fitting(const std::array<float, GROUP>& weights) const {
        const float squares = sum([&](std::size_t i) { return squared(levels[i]); });
        return squares > 0 ? sum([&](std::size_t i) { return levels[i] * weights[i]; }) / squares : 0;
    }

private:
    static float squared(float value) { return value * value; }

    // Of the group, eight at a time, which compilers make vectors of.
    template <class Term>
    static float sum(Term term) {
        std::array<float, 8> sums{};
        for (std::size_t begin = 0; begin < GROUP; begin += 8)
            for (std::size_t i = 0; i < 8; ++i) sums[i] += term(begin + i);
        return ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
    }
};

// Of the scales that are found from the weight farthest from 0 and by fitting, the one with the least squared error.
template <class Levels, std::size_t GROUP>
Rounding<Levels, GROUP> rounded(const std::array<float, GROUP>& weights) {
    const auto nearer = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
    const float farthest = *std::max_element(weights.begin(), weights.end(), nearer);
    Rounding<Levels, GROUP> best(weights, farthest / Levels::FIRST);
    for (const float tried : Levels::TRIED) {
        float scale = farthest * tried / Levels::FIRST;
        for (int fits = 0; fits < 3; ++fits) {
            const Rounding<Levels, GROUP> found(weights, scale);
            if (found.error < best.error) best = found;
            scale = found.fitting(weights);
        }
    }
    return best;
}

void pack_int6(const Block<INT8_GROUP>& block, std::uint8_t*& to) {
    auto* scales = reinterpret_cast<std::uint16_t*>(to);
    std::uint8_t *middle = to + PANEL * 2, *top = middle + PANEL * INT8_GROUP / 2;
    std::memset(middle, 0, PANEL * INT8_GROUP * 6 / 8);
    for (int row = 0; row < PANEL; ++row) {
        const auto found = rounded<EvenLevels>(block[row]);
        scales[row] = to_half(found.scale);
        for (int column = 0; column < INT8_GROUP; ++column) {
            const int number = 128 + static_cast<int>(found.levels[column]), byte = row * 4 + column % 4;
            middle[column / 8 * PANEL * 4 + byte] |= static_cast<std::uint8_t>((number >> 2 & 15) << column % 8 / 4 * 4);
            top[column / 16 * PANEL * 4 + byte] |= static_cast<std::uint8_t>(number >> 6 << column % 16 / 4 * 2);
        }
    }
    to = top + PANEL * INT8_GROUP / 4;
}

void pack_int4(const Block<INT4_GROUP>& block, std::uint8_t*& to) {
    auto* scales = reinterpret_cast<std::uint16_t*>(to);
    std::uint8_t* numbers = to + PANEL * 2;
    std::memset(numbers, 0, PANEL * INT4_GROUP / 2);
    for (int row = 0; row < PANEL; ++row) {
        const auto found = rounded<UnevenLevels>(block[row]);
        scales[row] = to_half(found.scale);
        for (int column = 0; column < INT4_GROUP; ++column) {
            const int number = UnevenLevels::number(found.levels[column]);
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
        case Format::int6: return "int6";
        case Format::int4: return "int4";
        default: return "fp32";
    }
}

Format format_of(std::string_view name) {
    for (const Format format : {Format::fp32, Format::bf16, Format::int8, Format::int6, Format::int4})
        if (name_of(format) == name) return format;
    throw std::invalid_argument(std::string(name) + ": no format of weights; there are fp32, bf16, int8, int6, int4");
}

void pack(Format format, const Plain& plain, int begin, int end, std::uint8_t* packed) {
    std::uint8_t* to = packed + begin * panel_bytes(format, plain.width);
    switch (format) {
        case Format::fp32: return pack_panels<64>(plain, begin, end, to, pack_fp32);
        case Format::bf16: return pack_panels<64>(plain, begin, end, to, pack_bf16);
        case Format::int8: return pack_panels<INT8_GROUP>(plain, begin, end, to, pack_int8);
        case Format::int6: return pack_panels<INT8_GROUP>(plain, begin, end, to, pack_int6);
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
        } else if (matrix.format == Format::int6) {
            const std::uint8_t* group = panel + column / INT8_GROUP * (PANEL * 2 + PANEL * INT8_GROUP * 6 / 8);
            const float scale = from_half(reinterpret_cast<const std::uint16_t*>(group)[lane]);
            const std::uint8_t *middle = group + PANEL * 2, *top = middle + PANEL * INT8_GROUP / 2;
            const int place = column % INT8_GROUP, byte = lane * 4 + place % 4;
            const int four = middle[place / 8 * PANEL * 4 + byte] >> place % 8 / 4 * 4 & 15;
            const int two = top[place / 16 * PANEL * 4 + byte] >> place % 16 / 4 * 2 & 3;
            values[column] = scale * static_cast<float>(two * 64 + four * 4 - 128);
        } else {
            const std::uint8_t* group = panel + column / INT4_GROUP * (PANEL * 2 + PANEL * INT4_GROUP / 2);
            const float scale = from_half(reinterpret_cast<const std::uint16_t*>(group)[lane]);
            const int place = column % INT4_GROUP;
            const int number = group[PANEL * 2 + (place / 8 * PANEL + lane) * 4 + place % 4] >> place % 8 / 4 * 4 & 15;
            values[column] = scale * static_cast<float>(INT4_LEVELS[number]);
        }
    }
}

}  // namespace gpt2kit
