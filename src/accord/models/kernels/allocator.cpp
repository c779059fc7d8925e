// Memory of tensors by plain malloc, with room to align within. PyTorch asks for aligned blocks; to find one glibc needs
// a free block that is larger, so a freed block is never used again for another of its size: the heap grows past it, and
// each tensor is written to memory that no cache holds.

#include <c10/core/CPUAllocator.h>

#include <malloc.h>

#include <cstdlib>

namespace {

constexpr uintptr_t ALIGNMENT = 64;                // what PyTorch promises its kernels; malloc gives 16
constexpr uint64_t OURS = 0x9d3f61c2a75be804;      // not to be met by chance in front of a block that is not ours

struct Front { uint64_t mark; void* block; };      // stands before the data, which begins 16 to 64 bytes into its block

// torch.profiler counts what is taken and given back, where it is asked to.
void report(void* data, void* block, int64_t sign) {
    if (!c10::memoryProfilingEnabled()) return;
    c10::reportMemoryUsageToProfiler(data, sign * int64_t(malloc_usable_size(block)), 0, 0, c10::Device(c10::DeviceType::CPU));
}

void give_back(void* data) {
    if (!data) return;
    Front* front = static_cast<Front*>(data) - 1;  // of a block of PyTorch's own allocator: what malloc notes there
    if (front->mark != OURS) return std::free(data);
    front->mark = 0;
    report(data, front->block, -1);
    std::free(front->block);
}

struct Reusing final : c10::Allocator {
    c10::DataPtr allocate(size_t size) override {
        const c10::Device cpu(c10::DeviceType::CPU);
        if (!size) return {nullptr, nullptr, &give_back, cpu};
        void* block = size + ALIGNMENT > size ? std::malloc(size + ALIGNMENT) : nullptr;
        TORCH_CHECK(block, "DefaultCPUAllocator: can't allocate memory: you tried to allocate ", size, " bytes.");
        auto start = (reinterpret_cast<uintptr_t>(block) + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
        void* data = reinterpret_cast<void*>(start);
        static_cast<Front*>(data)[-1] = {OURS, block};
        report(data, block, 1);
        return {data, data, &give_back, cpu};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
    void copy_data(void* to, const void* from, size_t size) const override { default_copy_data(to, from, size); }
};

Reusing allocator;

}  // namespace

extern "C" void install() { c10::SetCPUAllocator(&allocator, 1); }
