// The Python module gpt2kit._native.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <stdexcept>

#include "model.hpp"
#include "probe.hpp"
#include "sample.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace gpt2kit {

namespace {

using Bytes = nb::ndarray<std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using ConstBytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Matrix2 = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using Ids = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Column = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void require(bool holds, const std::string& otherwise) {
    if (!holds) throw std::invalid_argument(otherwise);
}

// Of a mistake in the calling code, which no user can make.
void assert_that(bool holds, const std::string& otherwise) {
    if (holds) return;
    PyErr_SetString(PyExc_AssertionError, otherwise.c_str());
    throw nb::python_error();
}

// The instruction set that the environment names, or the fastest.
Isa chosen_isa() {
    const char* name = std::getenv("GPT2KIT_ISA");
    return choose_isa(name ? name : "");
}

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const Isa isa : usable()) names.emplace_back(name_of(isa));
    return names;
}

void pack_matrix(const std::string& format_name, const Matrix2& matrix, const Bytes& into, int threads) {
    const Format format = format_of(format_name);
    const int rows = static_cast<int>(matrix.shape(0)), width = static_cast<int>(matrix.shape(1));
    require(into.size() == packed_bytes(format, rows, width), "into: the packed matrix has another size");
    const Plain plain{matrix.data(), rows, width, matrix.stride(0), matrix.stride(1)};
    nb::gil_scoped_release released;
    Team team(threads);
    team.run([&](int thread) {
        const Share mine(panels_of(rows), thread, threads);
        pack(format, plain, mine.begin, mine.end, into.data());
    });
}

// As a step does it, for tests.
void multiply_matrix(const std::string& isa, const std::string& format_name, const ConstBytes& packed, const Floats& bias,
                     const nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>& inputs,
                     const nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>& outputs) {
    const Kernels& kernels = kernels_of(choose_isa(isa));
    const Format format = format_of(format_name);
    const int tokens = static_cast<int>(inputs.shape(0)), width = static_cast<int>(inputs.shape(1)), rows = static_cast<int>(bias.size());
    require(rows % PANEL == 0 && packed.size() == packed_bytes(format, rows, width), "packed: the matrix has another size");
    require(outputs.shape(0) == inputs.shape(0) && outputs.shape(1) == bias.size(), "outputs: another shape");
    const Reading reading = kernels.reading(format);
    const InputRoom room(tokens, width, {&reading, 1});
    const Inputs prepared = room.as(reading);
    std::vector<float> padded(prepared.width);
    for (int token = 0; token < tokens; ++token) {
        std::copy_n(inputs.data() + static_cast<std::size_t>(token) * width, width, padded.begin());
        for (std::size_t column = 0; column < prepared.width; column += PANEL) kernels.prepare(prepared, token, column, &padded[column]);
    }
    const Matrix matrix{format, rows, width, packed.data(), bias.data()};
    kernels.multiply(matrix, Share(matrix.panels(), 0, 1), prepared, tokens, {.floats = outputs.data(), .step = bias.size()});
}

using Clock = std::chrono::steady_clock;
constexpr auto LISTENS = std::chrono::milliseconds(50);  // a long step hears Ctrl-C so often

// A model that keeps alive the arrays its weights lie in.
class PyModel {
public:
    using Formats = std::map<std::string, std::string>;  // of every matrix, by its name

    PyModel(Shape shape, const Formats& formats, std::map<std::string, nb::ndarray<nb::ro>> arrays, int slots, bool bf16_cache, int threads)
        : arrays_(std::move(arrays)), model_(shape, weights(shape, formats), slots, bf16_cache, threads, chosen_isa()) {}

    nb::ndarray<nb::numpy, const float, nb::ndim<2>> step(const std::vector<std::tuple<int, Ids, int>>& rows) {
        std::vector<Row> asked;
        std::size_t wanted = 0;
        for (const auto& [slot, ids, count] : rows) {
            assert_that(0 <= slot && slot < model_.slots(), "a step names slot " + std::to_string(slot));
            const std::size_t size = ids.size();
            assert_that(size > 0 && model_.length(slot) + size <= static_cast<std::size_t>(model_.shape().window), "a row must fit the window");
            assert_that(0 <= count && static_cast<std::size_t>(count) <= size, "a row wants logits of more ids than it brings");
            for (std::size_t i = 0; i < size; ++i)
                assert_that(0 <= ids(i) && ids(i) < model_.shape().vocabulary, "token id " + std::to_string(ids(i)) + " is outside the vocabulary");
            asked.push_back({slot, {ids.data(), size}, count});
            wanted += count;
        }
        bool whole;
        {
            nb::gil_scoped_release released;
            whole = model_.step(asked, [last = Clock::now()]() mutable {
                if (Clock::now() - last < LISTENS) return false;
                last = Clock::now();
                nb::gil_scoped_acquire held;
                return PyErr_CheckSignals() != 0;
            });
        }
        if (!whole) throw nb::python_error();
        const std::size_t vocabulary = model_.shape().vocabulary;
        return {model_.logits(), {wanted, vocabulary}, nb::find(this), {static_cast<std::int64_t>(model_.logits_step()), 1}};
    }

    Model& model() { return model_; }

private:
    const float* floats(const std::string& name, std::size_t size) {
        const auto& array = arrays_.at(name);
        require(array.dtype() == nb::dtype<float>() && array.size() == size, name + ": wants " + std::to_string(size) + " floats");
        return static_cast<const float*>(array.data());
    }

    Matrix matrix(const std::string& name, const Formats& formats, int rows, int width) {
        const auto& array = arrays_.at(name + ".weight");
        const Format format = format_of(formats.at(name + ".weight"));
        require(array.dtype() == nb::dtype<std::uint8_t>() && array.size() == packed_bytes(format, rows, width),
                name + ": the packed matrix has another size");
        const std::size_t filled = panels_of(rows) * PANEL;
        return {format, rows, width, static_cast<const std::uint8_t*>(array.data()), floats(name + ".bias", filled)};
    }

    Norm norm(const std::string& name, int width) {
        const std::size_t filled = filled_up(width);
        return {floats(name + ".weight", filled), floats(name + ".bias", filled)};
    }

    Weights weights(const Shape& shape, const Formats& formats) {
        Weights all;
        const int width = shape.width, inner = shape.inner_width;
        for (int index = 0; index < shape.layers; ++index) {
            const std::string h = "h." + std::to_string(index) + ".";
            all.layers.push_back({
                .norm1 = norm(h + "ln_1", width),
                .norm2 = norm(h + "ln_2", width),
                .attention_in = matrix(h + "attn.c_attn", formats, 3 * width, width),
                .attention_out = matrix(h + "attn.c_proj", formats, width, width),
                .mlp_in = matrix(h + "mlp.c_fc", formats, inner, width),
                .mlp_out = matrix(h + "mlp.c_proj", formats, width, inner),
            });
        }
        all.norm = norm("ln_f", width);
        all.positions = floats("wpe.weight", static_cast<std::size_t>(shape.window) * width);
        all.tokens = matrix("wte", formats, shape.vocabulary, width);
        all.head = arrays_.count("lm_head.weight") ? matrix("lm_head", formats, shape.vocabulary, width) : all.tokens;
        return all;
    }

    std::map<std::string, nb::ndarray<nb::ro>> arrays_;
    Model model_;
};

using Logits = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
template <class T>
using Result = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Calls work(row, its logits) for every row, shared by threads where that is worth their start.
template <class Work>
void for_rows(const Logits& logits, int threads, Work work) {
    require(logits.stride(1) == 1, "the logits of a row lie side by side");
    const int rows = static_cast<int>(logits.shape(0));
    nb::gil_scoped_release released;
    Team team(std::clamp(rows / 4, 1, threads));
    team.run([&](int thread) {
        const Share mine(rows, thread, team.size());
        for (int row = mine.begin; row < mine.end; ++row) work(row, logits.data() + row * logits.stride(0));
    });
}

void sample_rows(const Logits& logits, const Column<double>& temperatures, const Column<std::int64_t>& top_ks,
                 const Column<double>& top_ps, const Column<double>& uniforms, const Result<std::int64_t>& ids, int threads) {
    for (const std::size_t size : {temperatures.size(), top_ks.size(), top_ps.size(), uniforms.size(), ids.size()})
        require(size == logits.shape(0), "every column has an entry a row");
    const int vocabulary = static_cast<int>(logits.shape(1));
    const Kernels& kernels = kernels_of(chosen_isa());
    for_rows(logits, threads, [&](int row, const float* of_row) {
        const int top_k = static_cast<int>(std::min<std::int64_t>(top_ks(row), vocabulary));
        ids.data()[row] = sample(kernels, of_row, vocabulary, {temperatures(row), top_k, top_ps(row), uniforms(row)});
    });
}

void log_sum_exp_rows(const Logits& logits, const Result<double>& sums, int threads) {
    require(sums.size() == logits.shape(0), "sums has an entry a row");
    const Kernels& kernels = kernels_of(chosen_isa());
    for_rows(logits, threads, [&](int row, const float* of_row) {
        sums.data()[row] = log_sum_exp(kernels, of_row, static_cast<int>(logits.shape(1)));
    });
}

nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>> huge_pages(std::size_t bytes) {
    auto* buffer = new Buffer(bytes, Pages::huge);
    nb::capsule owner(buffer, [](void* kept) noexcept { delete static_cast<Buffer*>(kept); });
    return {buffer->as<std::uint8_t>(), {bytes}, owner};
}

}  // namespace

}  // namespace gpt2kit

NB_MODULE(_native, module) {
    using namespace gpt2kit;
    module.doc() = "The CPU engine: packed weights, and a step from ids to logits in one call.";
    module.def("isas", &isas, "Instruction sets that can be used here, the fastest last.");
    module.def("isa", [] { return std::string(name_of(chosen_isa())); }, "The one that models use: GPT2KIT_ISA, or the fastest.");
    module.def("packed_bytes", [](const std::string& format, int rows, int width) { return packed_bytes(format_of(format), rows, width); },
               "format"_a, "rows"_a, "width"_a, "How many bytes a packed matrix takes.");
    module.def("pack", &pack_matrix, "format"_a, "matrix"_a.noconvert(), "into"_a.noconvert(), "threads"_a,
               "Pack a float32 matrix [outputs, inputs] of any strides.");
    module.def("unpack", [](const std::string& format, const ConstBytes& packed, int rows, int width, const nb::ndarray<float, nb::ndim<2>, nb::c_contig>& into) {
        require(packed.size() == packed_bytes(format_of(format), rows, width), "packed: the matrix has another size");
        require(into.shape(0) == static_cast<std::size_t>(rows) && into.shape(1) == static_cast<std::size_t>(width), "into: another shape");
        const Matrix matrix{format_of(format), rows, width, packed.data(), nullptr};
        for (int row = 0; row < rows; ++row) unpack_row(matrix, row, into.data() + static_cast<std::size_t>(row) * width);
    }, "format"_a, "packed"_a.noconvert(), "rows"_a, "width"_a, "into"_a.noconvert(), "The matrix as its packed form means it.");
    module.def("multiply", &multiply_matrix, "isa"_a, "format"_a, "packed"_a.noconvert(), "bias"_a.noconvert(), "inputs"_a.noconvert(), "outputs"_a.noconvert(),
               "outputs [tokens, filled rows] = packed matrix * inputs [tokens, width] + bias, by one instruction set.");
    module.def("huge_pages", &huge_pages, "bytes"_a, "Unwritten memory in huge pages, where the system has them.");
    module.def("read_speed", [](const ConstBytes& memory, int threads) {
        nb::gil_scoped_release released;
        return read_speed(memory.data(), memory.size(), threads);
    }, "memory"_a, "threads"_a, "Bytes a second that threads read of this memory, once through.");
    module.def("sample_rows", &sample_rows, "logits"_a.noconvert(), "temperatures"_a.noconvert(), "top_ks"_a.noconvert(),
               "top_ps"_a.noconvert(), "uniforms"_a.noconvert(), "ids"_a.noconvert(), "threads"_a,
               "Choose an id a row, as generate.sampling defines it; -1 where the logits are not numbers.");
    module.def("log_sum_exp", &log_sum_exp_rows, "logits"_a.noconvert(), "sums"_a.noconvert(), "threads"_a,
               "The logarithm of the sum of e^logit of every row; NaN where the logits are not numbers.");

    nb::enum_<Activation>(module, "Activation")
        .value("gelu_tanh", Activation::gelu_tanh)
        .value("gelu_exact", Activation::gelu_exact)
        .value("relu", Activation::relu);
    nb::class_<Shape>(module, "Shape")
        .def("__init__", [](Shape* shape, int vocabulary, int window, int width, int heads, int inner_width, Activation activation,
                            float epsilon, std::vector<float> attention_scales) {
            const int layers = static_cast<int>(attention_scales.size());
            require(vocabulary > 0 && window > 0 && width > 0 && heads > 0 && inner_width > 0 && layers > 0 && width % heads == 0,
                    "no such model");
            new (shape) Shape{vocabulary, window, width, layers, heads, inner_width, activation, epsilon, std::move(attention_scales)};
        }, nb::kw_only(), "vocabulary"_a, "window"_a, "width"_a, "heads"_a, "inner_width"_a, "activation"_a, "epsilon"_a, "attention_scales"_a);
    nb::class_<PyModel>(module, "Model")
        .def(nb::init<Shape, const PyModel::Formats&, std::map<std::string, nb::ndarray<nb::ro>>, int, bool, int>(),
             "shape"_a, "formats"_a, "arrays"_a, "slots"_a, "bf16_cache"_a, "threads"_a)
        .def("step", &PyModel::step, "rows"_a, "Append ids: rows of (slot, ids int32, how many of the last ids want logits).")
        .def("truncate", [](PyModel& self, int slot, int length) { self.model().truncate(slot, length); }, "slot"_a, "length"_a)
        .def("share", [](PyModel& self, int source, int target, int length) { self.model().share(source, target, length); },
             "source"_a, "target"_a, "length"_a)
        .def_prop_ro("bytes_per_id", [](PyModel& self) { return self.model().bytes_per_id(); })
        .def_prop_ro("isa", [](PyModel& self) { return std::string(name_of(self.model().isa())); });
}
