#include "memory.hpp"

#include <cstdint>

namespace gpt2kit {

namespace {
constexpr std::size_t PAGE = 4096, HUGE_PAGE = 2 << 20;
}

#if defined(__linux__)

Buffer::Buffer(std::size_t bytes, Pages pages) : bytes_(bytes) {
    if (!bytes) return;
    const std::size_t alignment = pages == Pages::huge ? HUGE_PAGE : PAGE;
    mapped_bytes_ = round_up(bytes, alignment) + alignment;
    mapped_ = mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped_ == MAP_FAILED) {
        mapped_ = nullptr;
        throw std::bad_alloc();
    }
    data_ = reinterpret_cast<void*>(round_up(reinterpret_cast<std::uintptr_t>(mapped_), alignment));
    if (pages == Pages::huge) madvise(data_, round_up(bytes, alignment), MADV_HUGEPAGE);  // where there are any
}

Buffer::~Buffer() {
    if (mapped_) munmap(mapped_, mapped_bytes_);
}

void Buffer::forget(std::size_t begin, std::size_t end) const {
    begin = round_up(begin, PAGE);
    end = end / PAGE * PAGE;
    if (begin < end) madvise(as<char>() + begin, end - begin, MADV_DONTNEED);
}

#else

Buffer::Buffer(std::size_t bytes, Pages) : bytes_(bytes) {
    if (bytes) data_ = ::operator new(bytes, std::align_val_t(CACHE_LINE));
}

Buffer::~Buffer() {
    if (data_) ::operator delete(data_, std::align_val_t(CACHE_LINE));
}

void Buffer::forget(std::size_t, std::size_t) const {}

#endif

}  // namespace gpt2kit
