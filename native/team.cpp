#include "team.hpp"

#if defined(GPT2KIT_X86)
#include <immintrin.h>
#endif

namespace gpt2kit {

namespace {

// A look takes some 40 ns: half a millisecond until a thread that has nothing to do sleeps, as long as a token's choice.
constexpr int LOOKS_BEFORE_SLEEP = 10'000;
// In the middle of a step the others come soon, unless the system has given their processor to somebody else.
constexpr int LOOKS_BEFORE_YIELD = 2'000;

inline void pause() {
#if defined(GPT2KIT_X86)
    _mm_pause();
#else
    std::this_thread::yield();
#endif
}

template <class Happened>
void look_until(Happened happened) {
    for (int looks = 0; !happened(); ++looks) {
        if (looks < LOOKS_BEFORE_YIELD) pause();
        else std::this_thread::yield();
    }
}

}  // namespace

Team::Team(int size) : size_(size) {
    for (int thread = 1; thread < size; ++thread) threads_.emplace_back([this, thread] { wait_for_work(thread); });
}

Team::~Team() {
    leaving_ = true;
    round_.fetch_add(1);
    round_.notify_all();
    for (auto& thread : threads_) thread.join();
}

void Team::run(const std::function<void(int)>& work) {
    work_ = &work;
    done_.store(0, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
    work(0);
    look_until([this] { return done_.load(std::memory_order_acquire) == size_ - 1; });
}

void Team::meet() {
    const unsigned meeting = meeting_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        meeting_.store(meeting + 1, std::memory_order_release);
        return;
    }
    look_until([this, meeting] { return meeting_.load(std::memory_order_acquire) != meeting; });
}

void Team::wait_for_work(int thread) {
    for (unsigned round = 0;;) {
        for (int looks = 0; looks < LOOKS_BEFORE_SLEEP && round_.load(std::memory_order_acquire) == round; ++looks) pause();
        round_.wait(round, std::memory_order_acquire);
        ++round;
        if (leaving_) return;
        (*work_)(thread);
        done_.fetch_add(1, std::memory_order_release);
    }
}

}  // namespace gpt2kit
