// A team of threads that do one piece of work together, phase by phase. Between two pieces of work they sleep.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace gpt2kit {

class Team {
public:
    // Whoever calls `run` is thread 0, so that `size` 1 starts none.
    explicit Team(int size);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return size_; }

    // Every thread calls work(number of the thread); returns when all have.
    void run(const std::function<void(int)>& work);

    // For the work: nobody goes on before all have come here. What they wrote before is seen by all.
    void meet();

private:
    void wait_for_work(int thread);

    const int size_;
    const std::function<void(int)>* work_ = nullptr;
    std::atomic<bool> leaving_{false};
    alignas(64) std::atomic<unsigned> round_{0};  // of `run`
    alignas(64) std::atomic<int> done_{0};
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<unsigned> meeting_{0};
    std::vector<std::thread> threads_;
};

// What of `count` things is thread `thread`'s: [begin, end).
struct Share {
    int begin, end;
    Share(int count, int thread, int threads)
        : begin(static_cast<int>(static_cast<long long>(count) * thread / threads)),
          end(static_cast<int>(static_cast<long long>(count) * (thread + 1) / threads)) {}
};

}  // namespace gpt2kit
