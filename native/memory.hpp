// Memory for arrays: aligned to cache lines, in huge pages where the system has them, not touched before it is written.
#pragma once

#include <cstddef>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gpt2kit {

constexpr std::size_t CACHE_LINE = 64;

inline std::size_t round_up(std::size_t number, std::size_t multiple) {
    return (number + multiple - 1) / multiple * multiple;
}

// Where a process reads all of its weights for every token, small pages cost up to a third of the bandwidth.
enum class Pages { usual, huge };

class Buffer {
public:
    Buffer() = default;
    explicit Buffer(std::size_t bytes, Pages pages = Pages::usual);
    Buffer(Buffer&& other) noexcept { swap(other); }
    Buffer& operator=(Buffer&& other) noexcept {
        swap(other);
        return *this;
    }
    ~Buffer();

    template <class T>
    T* as() const {
        return static_cast<T*>(data_);
    }
    std::size_t bytes() const { return bytes_; }

    // Give the pages back to the system; what they held is lost, the addresses stay good.
    void forget(std::size_t begin, std::size_t end) const;

private:
    void swap(Buffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        std::swap(mapped_, other.mapped_);
        std::swap(mapped_bytes_, other.mapped_bytes_);
    }

    void* data_ = nullptr;
    std::size_t bytes_ = 0;
    void* mapped_ = nullptr;
    std::size_t mapped_bytes_ = 0;
};

// An array of T that is written before it is read.
template <class T>
class Array {
public:
    Array() = default;
    explicit Array(std::size_t size, Pages pages = Pages::usual) : buffer_(size * sizeof(T), pages), size_(size) {}
    T* data() const { return buffer_.as<T>(); }
    std::size_t size() const { return size_; }
    T& operator[](std::size_t index) const { return data()[index]; }

private:
    Buffer buffer_;
    std::size_t size_ = 0;
};

}  // namespace gpt2kit
